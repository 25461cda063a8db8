// Builds the extension into dist/ (Chromium) and dist-firefox/ (Firefox), or with --tests the unit tests into .test-out/.
// The package must have been built before: its worker and its modules are copied from www/package/dist.
import { build } from "esbuild";
import { copyFile, cp, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { manifest } from "./manifest.mjs";

const root = dirname(fileURLToPath(import.meta.url));
const at = (...parts) => join(root, ...parts);

const shared = { absWorkingDir: root, bundle: true, target: "es2022", logLevel: "warning", legalComments: "none" };

/** Extension pages and the background are modules; what is injected into pages has to be classic scripts. */
const MODULES = { background: "src/background.ts", panel: "src/panel/panel.ts", client: "src/client.ts" };
const INJECTED = { content: "src/content/main.ts", bridge: "src/bridge.ts" };

async function buildExtension(browser, folder) {
  await rm(at(folder), { recursive: true, force: true });
  await mkdir(at(folder), { recursive: true });
  // The seam between browsers, `#platform`, is chosen by a condition of package.json's imports.
  const options = { ...shared, outdir: folder, conditions: [browser], minify: true };
  const modules = browser === "chromium" ? { ...MODULES, offscreen: "src/host/offscreen.ts" } : MODULES;
  await build({ ...options, entryPoints: modules, format: "esm" });
  await build({ ...options, entryPoints: INJECTED, format: "iife" });
  const pages = browser === "chromium" ? ["panel/panel.html", "panel/panel.css", "host/offscreen.html"] : ["panel/panel.html", "panel/panel.css"];
  for (const page of pages) await copyFile(at("src", page), at(folder, page.replace(/^.*\//, "")));
  for (const file of ["worker.js", "cinderlm-webgpu.wasm", "cinderlm-cpu.wasm"]) await copyFile(at("../package/dist", file), at(folder, file));
  await cp(at("icons"), at(folder, "icons"), { recursive: true, filter: (path) => !/\.(?:svg|mjs)$/.test(path) });
  await writeFile(at(folder, "manifest.json"), `${JSON.stringify(manifest(browser), null, 2)}\n`);
}

async function buildTests() {
  await rm(at(".test-out"), { recursive: true, force: true });
  const tests = (await readdir(at("test"))).filter((name) => name.endsWith(".test.ts"));
  const options = { platform: "node", external: ["typescript", "fast-check"], outExtension: { ".js": ".mjs" }, sourcemap: "inline" };
  await build({ ...shared, ...options, format: "esm", entryPoints: tests.map((name) => `test/${name}`), outdir: ".test-out" });
}

if (process.argv.includes("--tests")) {
  await buildTests();
} else {
  await buildExtension("chromium", "dist");
  await buildExtension("firefox", "dist-firefox");
}
