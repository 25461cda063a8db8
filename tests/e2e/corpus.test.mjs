// The contract corpus in real browsers, through the whole package: the module that ships, on a model that follows the cases' scripts.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { build } from "esbuild";
import { fileURLToPath } from "node:url";
import { BROWSERS, launch } from "./browsers.mjs";
import { serve } from "./server.mjs";
import { foldChunks } from "./text.mjs";

const MIN_CASES = 220;
const CONTEXT_LENGTH = 64;
const TOLERANCE = 1e-6;

const corpus = fileURLToPath(new URL("../golden/contract/", import.meta.url));
const cases = readdirSync(corpus)
  .filter((name) => name.endsWith(".json"))
  .flatMap((name) => {
    const { scripts, cases } = JSON.parse(readFileSync(join(corpus, name), "utf8"));
    return cases.map((one) => ({ ...one, scripts: [...scripts, ...(one.scripts ?? [])] }));
  });

/** The package's worker with another module in place of its own. */
async function scriptedWorker(folder) {
  const replace = {
    name: "scripted module",
    setup: ({ onResolve }) => onResolve({ filter: /generated\/.*\.js$/ }, () => ({ path: join(folder, "scripted.js") })),
  };
  const entry = fileURLToPath(new URL("../../www/package/src/worker.ts", import.meta.url));
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, format: "esm", target: "es2022", write: false, plugins: [replace], logLevel: "error" });
  return Buffer.from(outputFiles[0].contents);
}

let server;
before(async () => {
  const folder = process.env.CINDERLM_MODULE_SCRIPTED;
  if (folder === undefined) throw new Error("CINDERLM_MODULE_SCRIPTED must name the folder of the scripted module, as `./x test` does");
  const [js, wasm] = ["scripted.js", "scripted_bg.wasm"].map((name) => join(folder, name));
  server = await serve({ files: { "/scripted/worker.js": await scriptedWorker(folder), "/scripted/scripted.js": js, "/scripted/scripted_bg.wasm": wasm } });
});
after(() => server.close());

test("the corpus is there", () => assert.ok(cases.length >= MIN_CASES, `${cases.length} cases`));

for (const name of BROWSERS) describe(name, () => suite(name));

function suite(name) {
  let browser;
  let page;
  before(async () => {
    browser = await launch(name);
    page = await browser.newPage(`${server.url}/`);
    await page.evaluate(async () => {
      const wasmUrl = "/scripted/scripted_bg.wasm";
      globalThis.cinder = new globalThis.cinderlm.Cinder({ device: "cpu", workerUrl: "/scripted/worker.js", wasmUrls: { cpu: wasmUrl } });
      // The module by itself, for what the page's own validator would find first.
      globalThis.bare = await import("/scripted/scripted.js");
      await globalThis.bare.default({ module_or_path: fetch(wasmUrl) });
      globalThis.readAll = async (params) => {
        const chunks = [];
        for await (const chunk of await globalThis.cinder.complete(params)) chunks.push(chunk);
        return chunks;
      };
    });
  });
  after(() => browser?.close());

  for (const one of cases) {
    test(one.name, async () => {
      const model = { contextLength: CONTEXT_LENGTH, canFillIn: one.vocabulary === "fill-in-the-middle", scripts: one.scripts };
      // As text: 64-bit numbers and shared objects cross to and from the browser unchanged.
      const outcome = JSON.parse(await page.evaluate(run, JSON.stringify({ model, request: one.request, isStreamed: isStreamed(one) })));
      if (one.error !== undefined) {
        checkError(outcome.whole.error, one.error);
        if (one.found_by !== "model") checkError(outcome.bare, one.error);
        return;
      }
      assert.equal(outcome.bare, null);
      checkWhole(outcome.whole, one.response);
      if (!isStreamed(one)) return;
      assert.equal(outcome.streamed.error, undefined, outcome.streamed.error?.message);
      checkStream(outcome.streamed.value, outcome.whole.value, one);
    });
  }

  /** Runs in the page. */
  async function run(text) {
    const { model, request, isStreamed } = JSON.parse(text);
    const { cinder, bare, settle, readAll } = globalThis;
    if (cinder.models().some(({ id }) => id === "tiny")) await cinder.unload("tiny");
    cinder.register({ id: "tiny", file: new Blob([JSON.stringify(model)]) });
    const refusal = await settle((async () => bare.validate(request))());
    const result = { bare: refusal.error ?? null, whole: await settle(cinder.complete(isStreamed ? { ...request, stream: false, stream_options: null } : request)) };
    if (isStreamed) result.streamed = await settle(readAll({ ...request, stream: true, stream_options: { include_usage: true } }));
    return JSON.stringify(result);
  }
}

/** Whether a case is made as a stream too: every one that succeeds and whose choices are not ranked. */
function isStreamed({ request, error }) {
  return error === undefined && (request.best_of ?? request.n ?? 1) === (request.n ?? 1);
}

function checkError(found, { message_has, ...expected }) {
  const { status, type, code, param, message } = found ?? {};
  assert.deepEqual({ status, type, code, param }, expected, message);
  for (const part of message_has) assert.ok(message.includes(part), `${part} is missing from: ${message}`);
}

function checkWhole({ value, error }, response) {
  assert.equal(error, undefined, error?.message);
  const { choices, usage, object, model, cinderlm } = value;
  checkValue("choices", choices, response.choices);
  assert.deepEqual(usage, response.usage);
  assert.deepEqual([object, model, cinderlm.ran_on], ["text_completion", "tiny", "local"]);
}

function checkStream(chunks, whole, { chunks: texts }) {
  const folded = foldChunks(chunks);
  checkValue("streamed choices", folded.choices, whole.choices);
  assert.deepEqual(folded.usage, whole.usage);
  const last = chunks.at(-1);
  assert.deepEqual([last.choices, last.cinderlm?.ran_on], [[], "local"]);
  assert.ok(chunks.slice(0, -1).every(({ usage, cinderlm }) => usage === null && cinderlm === undefined));
  if (texts === undefined) return;
  const found = chunks.flatMap(({ choices }) => choices.map(({ text }) => text)).filter((text) => text !== "");
  assert.deepEqual(found, texts);
}

/** Compares plain values, numbers within a tolerance. */
function checkValue(path, found, expected) {
  if (typeof expected === "number" && typeof found === "number") {
    assert.ok(Math.abs(found - expected) <= TOLERANCE, `${path} is ${found}, expected ${expected}`);
  } else if (typeof expected === "object" && expected !== null && typeof found === "object" && found !== null) {
    assert.deepEqual(Object.keys(found).sort(), Object.keys(expected).sort(), path);
    for (const key of Object.keys(expected)) checkValue(`${path}.${key}`, found[key], expected[key]);
  } else {
    assert.equal(found, expected, path);
  }
}
