// Builds the demo into dist/, or with --tests its unit tests into .test-out/. The package must have been built before.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(fileURLToPath(import.meta.url));
const at = (...parts) => join(root, ...parts);
const out = (...parts) => at("dist", ...parts);
const shared = { absWorkingDir: root, bundle: true, target: "es2022", logLevel: "warning", legalComments: "none" };

/** One for each kind of device: a visitor gets one of them. */
const MODULES = ["cinderlm-webgpu.wasm", "cinderlm-cpu.wasm", "cinderlm-cpu-threads.wasm"];

async function buildDemo() {
  await rm(out(), { recursive: true, force: true });
  await mkdir(out(), { recursive: true });
  await build({
    ...shared,
    format: "esm",
    entryPoints: { main: "src/main.ts", "early-theme": "src/early-theme.ts", style: "src/styles/style.css" },
    outdir: out(),
    minify: true,
  });
  for (const name of ["worker.js", "thread.js", ...MODULES]) await copyFile(at("../package/dist", name), out(name));
  for (const name of await readdir(at("static"))) await copyFile(at("static", name), out(name));
  await buildServiceWorker();
}

/** The service worker knows every file of the app, which of them are modules, and a version that changes when any of them does. */
async function buildServiceWorker() {
  const files = (await readdir(out())).sort();
  const shell = files.filter((name) => !MODULES.includes(name));
  const hash = createHash("sha256");
  for (const name of files) hash.update(`${name}\0`).update(await readFile(out(name)));
  hash.update(await readFile(at("src/sw.ts")));
  const version = hash.digest("hex").slice(0, 16);
  await build({
    ...shared,
    format: "iife",
    entryPoints: { sw: "src/sw.ts" },
    outdir: out(),
    minify: true,
    define: { SHELL_VERSION: JSON.stringify(version), SHELL_FILES: JSON.stringify(shell), MODULE_DIGESTS: JSON.stringify(await digests(MODULES)) },
  });
}

/** SHA-256 of files, by name. */
async function digests(names) {
  const digest = async (name) => [name, createHash("sha256").update(await readFile(out(name))).digest("hex")];
  return Object.fromEntries(await Promise.all(names.map(digest)));
}

async function buildTests() {
  await rm(at(".test-out"), { recursive: true, force: true });
  const tests = (await readdir(at("test"))).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...shared,
    format: "esm",
    entryPoints: tests.map((name) => `test/${name}`),
    outdir: ".test-out",
    platform: "node",
    external: ["fast-check"],
    outExtension: { ".js": ".mjs" },
    sourcemap: "inline",
  });
}

await (process.argv.includes("--tests") ? buildTests() : buildDemo());
