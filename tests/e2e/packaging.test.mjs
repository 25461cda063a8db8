// The packed package, as web apps get it: built in by each bundler, run in a browser under a strict content-security policy.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { MODULES, PROJECTS } from "../packaging/projects.mjs";
import { launch } from "./browsers.mjs";
import { tinyModel } from "./models.mjs";
import { serve } from "./server.mjs";
import { launchWebKit } from "./webkit.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const POEM = JSON.parse(readFileSync(tinyModel().replace(/gguf$/, "json"), "utf8")).greedy[0].text;
/** Compiling WebAssembly is all that is allowed beyond the app's own files: no inline script, no blob, no other origin. */
const policy = (scripts = "") => `default-src 'self'; script-src 'self' 'wasm-unsafe-eval' ${scripts}; worker-src 'self'; connect-src 'self'; object-src 'none'`;

let folder;
let tarball;
let browser;
before(async () => {
  // Within the project: some bundlers look for themselves, and for nothing else, above the app.
  mkdirSync(join(root, "target"), { recursive: true });
  folder = mkdtempSync(join(root, "target/packaging-"));
  const packed = execFileSync("npm", ["pack", "--json", "--silent", "--pack-destination", folder], { cwd: join(root, "www/package"), encoding: "utf8" });
  tarball = join(folder, JSON.parse(packed)[0].filename);
  browser = await launch("chromium");
});
after(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});

test("publint and attw find nothing", () => {
  const run = (...command) => execFileSync("npx", ["--no-install", ...command], { cwd: root, encoding: "utf8", stdio: "pipe" });
  assert.match(run("publint", "run", "--strict", tarball), /All good/);
  // It is ESM, and the wasm files are assets: CommonJS and types of that are not promised.
  run("attw", tarball, "--profile", "esm-only", "--exclude-entrypoints", ...MODULES.map((name) => `./${name}`));
});

/** Builds an app and serves it at `/app/`, plainly and cross-origin isolated; resolves to what the app needs to be told, and the servers. */
async function serveApp(name, build) {
  const project = join(folder, name.replace(" ", "-"));
  const out = join(project, "out");
  const installed = join(project, "node_modules/cinderlm");
  for (const path of [out, installed]) mkdirSync(path, { recursive: true });
  execFileSync("tar", ["-xzf", tarball, "-C", installed, "--strip-components=1"]);
  cpSync(join(root, "tests/packaging/main.js"), join(project, "main.js"));
  const { options = {}, scripts } = await build(project, out, "/app/");
  const files = readdirSync(out, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((entry) => join(entry.parentPath ?? entry.path, entry.name));
  const served = Object.fromEntries(paths.map((path) => [`/app/${relative(out, path)}`, path]));
  const settings = { files: { ...served, "/tiny.gguf": tinyModel(), "/favicon.ico": Buffer.alloc(0) }, policy: policy(scripts) };
  return { server: await serve(settings), isolated: await serve({ ...settings, isolated: true }), options };
}

/** That the text is the start of the poem. */
function assertPoem(text) {
  assert.ok(text.length > 10 && POEM.startsWith(`A cinder slept${text}`), text);
}

for (const [name, build] of Object.entries(PROJECTS)) {
  test(`an app built with ${name} completes under a strict policy, with threads where it is isolated`, async () => {
    const { server, isolated, options } = await serveApp(name, build);
    try {
      for (const [{ url }, expected] of [[server, 1], [isolated, 2]]) {
        const page = await browser.newPage(`${url}/app/index.html`);
        const { text, threads } = await page.evaluate((options) => globalThis.completeTiny({ ...options, threads: 2 }), options);
        assertPoem(text);
        assert.equal(threads, expected);
        assert.deepEqual(page.errors, []);
        await page.close();
      }
    } finally {
      await Promise.all([server.close(), isolated.close()]);
    }
  });
}

test("WebKit completes on the CPU, and without a cache", async () => {
  const { server, isolated, options } = await serveApp("webkit", PROJECTS["module script"]);
  const webkit = await launchWebKit();
  try {
    await webkit.open(`${server.url}/app/index.html`);
    await webkit.evaluate(() => new Promise((resolve) => (document.readyState === "complete" ? resolve() : addEventListener("load", () => resolve()))));
    const { text, device, notStored } = await webkit.evaluate((options) => globalThis.completeTiny({ ...options, device: "auto" }), options);
    assertPoem(text);
    assert.deepEqual([device, notStored], ["cpu", "storage_unavailable"]);
  } finally {
    await webkit.close();
    await Promise.all([server.close(), isolated.close()]);
  }
});
