// A hundred requests at once, of which some are aborted and some are never read: the others end as they should, in bounded memory.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "./browsers.mjs";
import { tinyModel } from "./models.mjs";
import { serve } from "./server.mjs";

const N_REQUESTS = 100;
/** Far less than a hundred requests would leave: the keys and values of one are some 100 KiB, its chunks as much. */
const ALLOWANCE_BYTES = 512 * 1024;

let server;
before(async () => {
  server = await serve({ files: { "/tiny.gguf": tinyModel() } });
});
after(() => server.close());

/**
 * Not Firefox on WebGPU: version 153 on lavapipe at times never finishes mapping a buffer after a hundred steps or more, with nothing of ours
 * to wait for, and the timers of that worker stop too. It does so with one call after another as well.
 */
const PLACES = [
  ["chromium", "cpu"],
  ["chromium", "webgpu"],
  ["firefox", "cpu"],
];

for (const [name, device] of PLACES) {
  test(`${name}, ${device}: a crowd of requests`, async () => {
    const browser = await launch(name);
    try {
      const page = await browser.newPage(`${server.url}/`);
      const outcome = JSON.parse(await page.evaluate(crowd, { device, nRequests: N_REQUESTS }));
      for (const [i, { kind, text, expected, error }] of outcome.requests.entries()) {
        // One that was faster than its abort has ended as the others.
        if (kind === "aborted" && error !== undefined) assert.equal(error.name, "AbortError", `${i}: ${error.message}`);
        else assert.equal(error?.message ?? text, expected, `${i}, ${kind}`);
      }
      assert.ok(outcome.requests.some(({ error }) => error?.name === "AbortError"), "no abort came in time");
      assert.ok(outcome.mostBytes <= outcome.budget, `${outcome.mostBytes} bytes of keys and values were held, of ${outcome.budget} allowed`);
      assert.ok(outcome.mostBytes > outcome.budget / 2, `${outcome.mostBytes} of ${outcome.budget} bytes: they did not run side by side`);
      // What is kept for prompts to come, and nothing besides.
      assert.ok(outcome.idle.kvBytes <= outcome.budget / 2, JSON.stringify(outcome));
      // How calls fall together differs from round to round, and with it how memory is cut; what it once had wasm never gives back.
      for (const [kind, { before, after }] of Object.entries(outcome.memory)) {
        assert.ok(after <= before + ALLOWANCE_BYTES, `${after} ${kind} after the second round, ${before} after the first`);
      }
      assert.equal(outcome.reports, N_REQUESTS);
    } finally {
      await browser.close();
    }
  });
}

/** Runs in the page. */
async function crowd({ device, nRequests }) {
  const { Cinder } = globalThis.cinderlm;
  const { settle } = globalThis;
  const blockBytes = await (async () => {
    const cinder = new Cinder({ device, models: [{ id: "tiny", url: "/tiny.gguf" }] });
    // Seeded: one that ends early is too short to be kept.
    await cinder.complete({ model: "tiny", prompt: "A cinder slept in the", seed: 1, max_tokens: 20, logit_bias: { 2: -100 } });
    // The sequence is set aside with the step that was under way when the completion ended.
    let stats;
    do stats = (await cinder.stats()).tiny;
    while (stats.keptTokens === 0);
    const { keptBytes, keptTokens } = stats;
    await cinder.dispose();
    return (64 * keptBytes) / keptTokens;
  })();
  const budget = 12 * blockBytes;
  let reports = 0;
  const onUsage = () => (reports += 1);
  const cinder = new Cinder({ device, maxQueue: 2 * nRequests, kvCacheBytes: budget, onUsage, models: [{ id: "tiny", url: "/tiny.gguf" }] });
  // Longer than the window of chunks, so that nobody who is not read ends.
  const params = (seed) => ({ model: "tiny", prompt: `A cinder ${"slept ".repeat(seed % 5)}`, seed: seed % 10, max_tokens: 60, n: 1 + (seed % 2), logit_bias: { 2: -100 } });
  const textOf = ({ choices }) => choices.map(({ text }) => text).join("|");
  const expected = [];
  for (let seed = 0; seed < 10; seed++) expected.push(textOf(await cinder.complete(params(seed))));

  /** The texts of a stream's choices. */
  const read = async (stream, texts = ["", ""]) => {
    for await (const { choices } of stream) for (const { index, text } of choices) texts[index] += text;
    return texts;
  };
  const joined = (texts, seed) => texts.slice(0, 1 + (seed % 2)).join("|");
  // The same numbers each time.
  let state = 1;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;

  let mostBytes = 0;
  let isWatching = true;
  const watch = (async () => {
    while (isWatching) {
      mostBytes = Math.max(mostBytes, (await cinder.stats()).tiny.kvBytes ?? 0);
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
  })();

  const round = async () => {
    const unread = [];
    const run = async (i) => {
      const request = params(i);
      const kind = ["read", "whole", "unread", "aborted"][i % 4];
      if (kind === "whole") return { kind, text: textOf(await cinder.complete(request)) };
      const controller = new AbortController();
      if (kind === "aborted") setTimeout(() => controller.abort(), random() * 400);
      const stream = await cinder.complete({ ...request, stream: true }, { signal: controller.signal });
      if (kind === "unread") {
        unread.push({ i, stream });
        return { kind };
      }
      return { kind, text: joined(await read(stream), i) };
    };
    const requests = await Promise.all(
      Array.from({ length: nRequests }, async (_, i) => {
        const { value, error } = await settle(run(i));
        return { kind: ["read", "whole", "unread", "aborted"][i % 4], ...value, error, expected: expected[i % 10] };
      }),
    );
    // Those that nobody read were in nobody's way. Some are read now, the others are left.
    for (const [number, { i, stream }] of unread.entries()) {
      if (number % 2 === 0) requests[i].text = joined(await read(stream), i);
      else {
        await stream.return();
        requests[i].text = requests[i].expected;
      }
    }
    return requests;
  };

  await round();
  const before = await cinder.memory();
  reports = 0;
  const requests = await round();
  isWatching = false;
  await watch;
  while (reports < nRequests) await new Promise((resolve) => setTimeout(resolve, 5));
  const after = await cinder.memory();
  const memory = Object.fromEntries(Object.keys(before).map((kind) => [kind, { before: before[kind], after: after[kind] }]));
  const result = { requests, mostBytes, budget, idle: (await cinder.stats()).tiny, memory, reports };
  await cinder.dispose();
  return JSON.stringify(result);
}
