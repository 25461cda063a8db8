// What a token costs the GPU: few dispatches in one submission, a few words to read, nothing created, and no byte bound beside weights and cache.
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { after, before, test } from "node:test";
import { launch } from "./browsers.mjs";
import { realModel } from "./models.mjs";
import { serve } from "./server.mjs";

const MAX_DISPATCHES = 240;
const MAX_READBACK_BYTES = 4096;
/** Bytes bound, in sizes of quantised weights with keys and values. */
const MAX_BOUND = 1.1;

let server;
let browser;
before(async () => {
  server = await serve({ files: { "/model.gguf": realModel() } });
  browser = await launch("chromium");
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** Requests for tokens that are drawn in different ways. */
const REQUESTS = [
  ["greedy", { temperature: 0 }],
  ["sampled", { seed: 1 }],
  ["from the likeliest, with log-probabilities", { seed: 1, top_p: 0.9, logprobs: 5, frequency_penalty: 0.5 }],
];

for (const [what, fields] of REQUESTS) {
  test(`a token that is ${what}`, async () => {
    const page = await browser.newPage(`${server.url}/`);
    const { stats, steps, kvBytes } = await page.evaluate(async (fields) => {
      const cinder = new globalThis.cinderlm.Cinder({ device: "webgpu", workerUrl: "/page/steps-worker.mjs", models: [{ id: "m", url: "/model.gguf" }] });
      await cinder.load("m");
      const steps = [];
      new BroadcastChannel("gpu-steps").addEventListener("message", ({ data }) => steps.push(data));
      const params = { model: "m", prompt: "The hearth was cold", max_tokens: 6, logit_bias: { 2: -100, 0: -100 }, ...fields };
      await cinder.complete(params);
      const { m } = await cinder.stats();
      await new Promise((resolve) => setTimeout(resolve, 100)); // The last message may be on its way.
      await cinder.dispose();
      return { stats: m, steps, kvBytes: m.kvBytes };
    }, fields);
    // The prompt is read in one step, and each token but the first comes of another.
    assert.equal(stats.decode.steps, 5);
    assert.equal(stats.decode.tokens, 5);
    assert.equal(stats.prefill.steps, 1);
    assert.equal(steps.length, 6);
    const { nAwaited, ...last } = steps.at(-1);
    assert.equal(nAwaited, fields.frequency_penalty === undefined ? 1 : 0, "the last step was begun while the one before it ran, unless it depends on its token");
    const { readbacks, ...counted } = stats.decode.last;
    assert.deepEqual(counted, last, "the package's own count agrees");
    assert.equal(readbacks, 1);
    assert.ok(last.dispatches <= MAX_DISPATCHES, `${last.dispatches} dispatches`);
    assert.equal(last.submits, 1);
    assert.ok(last.readbackBytes <= MAX_READBACK_BYTES, `${last.readbackBytes} bytes are read back`);
    assert.equal(last.createdObjects, 0);
    const fileBytes = statSync(realModel()).size;
    assert.ok(last.boundBytes <= MAX_BOUND * (fileBytes + kvBytes), `${last.boundBytes} bytes are bound, of ${fileBytes} of weights and ${kvBytes} of keys and values`);
    console.log(`# ${JSON.stringify(last)}`);
  });
}

test("kernels are compiled while the model loads", async () => {
  const page = await browser.newPage(`${server.url}/`);
  const [loaded, completed] = await page.evaluate(async () => {
    const cinder = new globalThis.cinderlm.Cinder({ device: "webgpu", workerUrl: "/page/steps-worker.mjs", models: [{ id: "m", url: "/model.gguf" }] });
    const channel = new BroadcastChannel("gpu-steps");
    const nPipelines = () =>
      new Promise((resolve) => {
        channel.onmessage = ({ data }) => data.nPipelines !== undefined && resolve(data.nPipelines);
        channel.postMessage("pipelines?");
      });
    await cinder.load("m");
    const loaded = await nPipelines();
    await cinder.complete({ model: "m", prompt: "The hearth was cold, and nobody had lit a fire since", max_tokens: 4, temperature: 0 });
    const counts = [loaded, await nPipelines()];
    channel.close();
    await cinder.dispose();
    return counts;
  });
  assert.ok(loaded >= 8, `${loaded} kernels were ready`);
  // The prompt's last row is picked, a token is drawn, and handed to the next step.
  assert.ok(completed - loaded <= 3, `${completed - loaded} kernels more were compiled for a first text`);
});
