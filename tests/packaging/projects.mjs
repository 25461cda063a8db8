// How web apps build the package in: each takes a folder that has `main.js` and the package in `node_modules`, and writes an app.
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { build as esbuild } from "esbuild";
import { build as vite } from "vite";
import webpack from "webpack";

const page = (script) => `<!doctype html><meta charset="utf-8"><title>packaging</title>${script}`;

/** Names and builders; a builder resolves to options that the app needs, beside where its files are. */
export const PROJECTS = {
  /** No bundler. */
  async "module script"(folder, out, base) {
    for (const name of ["index.js", "worker.js", "cinderlm.wasm"]) await copyFile(join(folder, "node_modules/cinderlm/dist", name), join(out, name));
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

  /** esbuild leaves `new URL(…, import.meta.url)` alone: the worker and the module are copied, and the app says where they are. */
  async esbuild(folder, out, base) {
    await esbuild({ absWorkingDir: folder, entryPoints: ["main.js"], bundle: true, minify: true, format: "esm", target: "es2022", outdir: out, logLevel: "error" });
    for (const name of ["worker.js", "cinderlm.wasm"]) await copyFile(join(folder, "node_modules/cinderlm/dist", name), join(out, name));
    await writeFile(join(out, "index.html"), page(`<script type="module" src="${base}main.js"></script>`));
    return { workerUrl: `${base}worker.js`, wasmUrl: `${base}cinderlm.wasm` };
  },
};
