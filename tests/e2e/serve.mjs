// `cargo xtask serve`: the built package and the downloaded models, for trying things in a browser by hand.
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { serve } from "./server.mjs";

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "8080" },
    models: { type: "string" },
    /** Cross-origin isolation (COOP and COEP), which threads need. */
    isolated: { type: "boolean", default: false },
  },
});

const names = values.models === undefined ? [] : await readdir(values.models).catch(() => []);
const models = names.filter((name) => name.endsWith(".gguf"));
const files = Object.fromEntries(models.map((name) => [`/models/${name}`, join(values.models, name)]));
const server = await serve({ port: Number(values.port), files, isolated: values.isolated });

console.error(`${server.url}/dist/index.js`);
for (const path of Object.keys(files)) console.error(`${server.url}${path}`);
console.error("Ctrl-C ends it.");
