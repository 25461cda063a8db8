// Builds the npm package into dist/, or with --tests the unit tests into .test-out/.
import { build } from "esbuild";
import { execFileSync } from "node:child_process";
import { copyFile, mkdir, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(fileURLToPath(import.meta.url));
const at = (...parts) => join(root, ...parts);

const shared = { absWorkingDir: root, bundle: true, format: "esm", target: "es2022", logLevel: "warning", legalComments: "none" };

async function buildPackage() {
  await rm(at("dist"), { recursive: true, force: true });
  await mkdir(at("dist"), { recursive: true });
  await build({
    ...shared,
    entryPoints: { index: "src/index.ts", worker: "src/worker.ts", thread: "src/thread.ts", "wasm-webgpu": "src/wasm-webgpu.ts", "wasm-cpu": "src/wasm-cpu.ts" },
    outdir: "dist",
    minify: true,
    sourcemap: true,
  });
  for (const name of ["webgpu", "cpu", "cpu-threads"]) await copyFile(at("generated", name, `${name}_bg.wasm`), at("dist", `cinderlm-${name}.wasm`));
  // npm takes them along from beside package.json.
  for (const name of ["README.md", "LICENSE-APACHE", "LICENSE-MIT"]) await copyFile(at("../..", name), at(name));
  await buildTypes();
}

async function buildTypes() {
  execFileSync(process.execPath, [fileURLToPath(import.meta.resolve("typescript/bin/tsc")), "-p", "tsconfig.types.json"], { cwd: root, stdio: "inherit" });
  for (const name of ["webgpu", "cpu"]) await copyFile(at("generated", name, `${name}.d.ts`), at("dist", `wasm-${name}.d.ts`)); // The generated folder is not shipped.
}

async function buildTests() {
  await rm(at(".test-out"), { recursive: true, force: true });
  const tests = (await readdir(at("test"))).filter((name) => name.endsWith(".test.ts"));
  await build({ ...shared, entryPoints: tests.map((name) => `test/${name}`), outdir: ".test-out", platform: "node", external: ["typescript", "fast-check"], outExtension: { ".js": ".mjs" }, sourcemap: "inline" });
}

await (process.argv.includes("--tests") ? buildTests() : buildPackage());
