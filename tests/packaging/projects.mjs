// How web apps build the package in: each takes a folder that has `main.js` and the package in `node_modules`, and writes an app.
import { execFile } from "node:child_process";
import { copyFile, cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build as esbuild } from "esbuild";
import { build as vite } from "vite";
import webpack from "webpack";

/** The package's WebAssembly modules. */
export const MODULES = ["cinderlm-webgpu.wasm", "cinderlm-cpu.wasm", "cinderlm-cpu-threads.wasm"];

const page = (script) => `<!doctype html><meta charset="utf-8"><title>packaging</title>${script}`;

/**
 * Names and builders. A builder resolves to what is special about the app: `options` that it needs to find the worker and the modules, and
 * `scripts`, where its policy must allow scripts that are not files of its own.
 */
export const PROJECTS = {
  /** No bundler. */
  async "module script"(folder, out, base) {
    for (const name of ["index.js", "worker.js", "thread.js", ...MODULES]) await copyFile(join(folder, "node_modules/cinderlm/dist", name), join(out, name));
    // A strict policy takes no inline import map, so the name is resolved here.
    const main = await readFile(join(folder, "main.js"), "utf8");
    await writeFile(join(out, "main.js"), main.replace('"cinderlm"', `"${base}index.js"`));
    await writeFile(join(out, "index.html"), page(`<script type="module" src="${base}main.js"></script>`));
    return {};
  },

  async vite(folder, out, base) {
    await writeFile(join(folder, "index.html"), page('<script type="module" src="/main.js"></script>'));
    await vite({ root: folder, base, logLevel: "error", configFile: false, build: { outDir: out, emptyOutDir: true, target: "es2022", modulePreload: { polyfill: false } } });
    return {};
  },

  async webpack(folder, out, base) {
    const config = {
      mode: "production",
      context: folder,
      entry: "./main.js",
      output: { path: out, publicPath: base, filename: "main.js", module: true },
      experiments: { outputModule: true },
      performance: { hints: false },
    };
    const stats = await new Promise((resolve, reject) => webpack(config, (error, stats) => (error ? reject(error) : resolve(stats))));
    if (stats.hasErrors()) throw new Error(stats.toString({ all: false, errors: true }));
    await writeFile(join(out, "index.html"), page(`<script type="module" src="${base}main.js"></script>`));
    return {};
  },

  /** esbuild leaves `new URL(…, import.meta.url)` alone: the workers and the modules are copied, and the app says where they are. */
  async esbuild(folder, out, base) {
    await esbuild({ absWorkingDir: folder, entryPoints: ["main.js"], bundle: true, minify: true, format: "esm", target: "es2022", outdir: out, logLevel: "error" });
    for (const name of ["worker.js", "thread.js", ...MODULES]) await copyFile(join(folder, "node_modules/cinderlm/dist", name), join(out, name));
    await writeFile(join(out, "index.html"), page(`<script type="module" src="${base}main.js"></script>`));
    const [webgpu, cpu, cpuThreads] = MODULES.map((name) => base + name);
    return { options: { workerUrl: `${base}worker.js`, wasmUrls: { webgpu, cpu, cpuThreads } } };
  },

  /** A static export. Its pages bring what they need in inline scripts, so that is what its policy has to allow. */
  async "next.js"(folder, out, base) {
    await mkdir(join(folder, "app"), { recursive: true });
    await writeFile(join(folder, "package.json"), JSON.stringify({ name: "packaging-next", private: true }));
    const root = fileURLToPath(new URL("../..", import.meta.url));
    const config = { output: "export", basePath: base.replace(/\/$/, ""), distDir: "built", turbopack: { root } };
    await writeFile(join(folder, "next.config.mjs"), `export default ${JSON.stringify(config)};`);
    await writeFile(join(folder, "app/layout.js"), `export default ({ children }) => <html lang="en"><body>{children}</body></html>;`);
    await writeFile(join(folder, "app/page.js"), `"use client";\nimport "../main.js";\nexport default () => <p>packaging</p>;`);
    const next = join(root, "node_modules/next/dist/bin/next");
    await promisify(execFile)(process.execPath, [next, "build"], { cwd: folder, env: { ...process.env, NEXT_TELEMETRY_DISABLED: "1" } });
    await cp(join(folder, "built"), out, { recursive: true });
    return { scripts: "'unsafe-inline'" };
  },
};
