// The package in real browsers, on a tiny model that knows one poem: requests, streams, failures and what comes after them.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { readFileSync } from "node:fs";
import { BROWSERS, launch } from "./browsers.mjs";
import { tinyModel } from "./models.mjs";
import { serve } from "./server.mjs";

const POEM = JSON.parse(readFileSync(tinyModel().replace(/gguf$/, "json"), "utf8")).greedy[0].text;
const START = "A cinder slept";
const tiny = readFileSync(tinyModel());

/** The file with some bytes replaced. */
function patched(offset, bytes) {
  const copy = Buffer.from(tiny);
  Buffer.from(bytes).copy(copy, offset);
  return copy;
}

const MALFORMED = [
  ["empty", Buffer.alloc(0), "corrupt_model"],
  ["no GGUF", Buffer.from("<!doctype html><title>404</title>".repeat(10)), "corrupt_model"],
  ["cut in the magic", tiny.subarray(0, 3), "corrupt_model"],
  ["cut in the metadata", tiny.subarray(0, 500), "corrupt_model"],
  ["cut in the tensors", tiny.subarray(0, tiny.length - 1000), "corrupt_model"],
  ["of version 1", patched(4, [1, 0, 0, 0]), "unsupported_model"],
  ["claiming 2^60 tensors", patched(8, [0, 0, 0, 0, 0, 0, 0, 16]), "corrupt_model"],
  ["claiming 2^60 metadata entries", patched(16, [0, 0, 0, 0, 0, 0, 0, 16]), "corrupt_model"],
  ["claiming a key of 2^56 bytes", patched(24, [0, 0, 0, 0, 0, 0, 0, 1]), "corrupt_model"],
  ["of an unknown architecture", patched(tiny.indexOf("llama"), "lxxxx"), "unsupported_model"],
];

const INVALID = [
  ["an unknown field", { prompts: "x" }, "unknown_parameter", "prompts"],
  ["n of 0", { n: 0 }, "out_of_range", "n"],
  ["n as text", { n: "two" }, "invalid_type", "n"],
  ["a temperature of NaN", { temperature: NaN }, "out_of_range", "temperature"],
  ["five stops", { stop: ["a", "b", "c", "d", "e"] }, "out_of_range", "stop"],
  ["an empty stop", { stop: ["a", ""] }, "out_of_range", "stop[1]"],
  ["no tokens without echo", { max_tokens: 0 }, "conflicting_parameters", "max_tokens"],
  ["best_of below n", { n: 3, best_of: 2 }, "conflicting_parameters", "best_of"],
  ["stream options without stream", { stream_options: { include_usage: true } }, "conflicting_parameters", "stream_options"],
  ["an id out of the vocabulary", { prompt: [1, 99999] }, "out_of_range", "prompt[1]"],
  ["a bias for no token", { logit_bias: { 99999: 1 } }, "out_of_range", "logit_bias.99999"],
  ["more tokens than the context", { max_tokens: 100000 }, "context_length_exceeded", "max_tokens"],
  ["a suffix for a model without such tokens", { suffix: "end" }, "unsupported_parameter", "suffix"],
];

let server;
before(async () => {
  server = await serve({ files: { "/tiny.gguf": tiny } });
});
after(() => server.close());

for (const name of BROWSERS) describe(name, () => suite(name));

function suite(name) {
  let browser;
  let page;
  before(async () => {
    browser = await launch(name);
    page = await browser.newPage(`${server.url}/`);
    await page.evaluate(() => {
      globalThis.open = (options = {}) =>
        new globalThis.cinderlm.Cinder({ device: "cpu", models: [{ id: "tiny", url: "/tiny.gguf" }], ...options });
      globalThis.greedy = { model: "tiny", prompt: "<|endoftext|>A cinder slept", temperature: 0, max_tokens: 12 };
      globalThis.cinder = globalThis.open();
    });
  });
  after(() => browser?.close());

  /** The page's shared instance still answers. */
  const stillWorks = () =>
    page.evaluate(async () => (await globalThis.cinder.complete(globalThis.greedy)).choices[0].text).then((text) => {
      assert.ok(text.length > 10 && POEM.startsWith(START + text), text);
    });

  for (const device of ["cpu", "webgpu"]) {
    test(`the poem, whole and streamed, on ${device}`, async () => {
      const { whole, parts, models } = await page.evaluate(async (device) => {
        const cinder = globalThis.open({ device });
        const params = { model: "tiny", temperature: 0, max_tokens: 120 };
        const whole = await cinder.complete(params);
        const parts = [];
        const stream_options = { include_usage: true };
        for await (const chunk of await cinder.complete({ ...params, stream: true, stream_options })) parts.push(chunk);
        const models = cinder.models();
        await cinder.dispose();
        return { whole, parts, models };
      }, device);
      assert.equal(whole.choices[0].text, POEM);
      assert.equal(whole.choices[0].finish_reason, "stop");
      assert.equal(whole.cinderlm.device, device);
      assert.ok(whole.cinderlm.timings.load_millis > 0);
      assert.equal(parts.map(({ choices }) => choices[0]?.text ?? "").join(""), POEM);
      assert.ok(parts.length > 20, `${parts.length} chunks`);
      const last = parts.at(-1);
      assert.deepEqual([last.choices, last.usage], [[], whole.usage]);
      assert.ok(parts.slice(0, -1).every(({ usage }) => usage === null));
      assert.deepEqual([models[0].id, models[0].loaded, models[0].vocabularySize], ["tiny", true, 320]);
    });
  }

  for (const [what, fields, code, param] of INVALID) {
    test(`${what} is refused by name, and the next request works`, async () => {
      const { error } = await page.evaluate((fields) => {
        const { cinder, greedy, settle } = globalThis;
        return settle(cinder.complete({ ...greedy, ...fields }));
      }, fields);
      assert.deepEqual([error?.name, error?.status, error?.code, error?.param], ["CompletionError", 400, code, param], error?.message);
      await stillWorks();
    });
  }

  for (const [what, bytes, code] of MALFORMED) {
    test(`a file ${what} is ${code}, and other models work`, async () => {
      server.files["/bad.gguf"] = bytes;
      const { error } = await page.evaluate(async () => {
        globalThis.cinder.register({ id: "bad", url: "/bad.gguf" });
        return globalThis.settle(globalThis.cinder.complete({ ...globalThis.greedy, model: "bad" }));
      });
      assert.deepEqual([error?.status, error?.type, error?.code], [502, "model_load_error", code], error?.message);
      await stillWorks();
    });
  }

  test("downloads that fail say how, and work once the fault is gone", async () => {
    const load = () => page.evaluate(() => globalThis.settle(globalThis.cinder.load("flaky")));
    server.files["/flaky.gguf"] = tiny;
    await page.evaluate(() => globalThis.cinder.register({ id: "flaky", url: "/flaky.gguf" }));
    server.fault("/flaky.gguf", { status: 503 });
    const refused = await load();
    assert.equal(refused.error?.code, "download_failed");
    assert.match(refused.error.message, /flaky\.gguf answered 503/);
    server.fault("/flaky.gguf", { cutAt: 0 });
    const cut = await load();
    assert.equal(cut.error?.code, "download_failed");
    // Whether the answer had begun is seen differently.
    assert.match(cut.error.message, /flaky\.gguf failed(?: after 0 bytes)?: .*the last of 4 tries/);
    server.clearFaults();
    assert.equal((await load()).value?.loaded, true);
    await page.evaluate(() => globalThis.cinder.unload("flaky"));
    // Each connection breaks; the next goes on where it broke.
    server.fault("/flaky.gguf", { cutAt: Math.ceil(tiny.length / 4) + 1 });
    const { text, last } = await page.evaluate(async () => {
      const { cinder, greedy } = globalThis;
      let last;
      await cinder.load("flaky", { onProgress: (progress) => (last = progress) });
      const { choices } = await cinder.complete({ ...greedy, model: "flaky" });
      await cinder.unload("flaky");
      return { text: choices[0].text, last };
    });
    server.clearFaults();
    assert.ok(POEM.startsWith(START + text), text);
    assert.deepEqual([last.phase, last.bytes, last.total], ["ready", tiny.length, tiny.length]);
  });

  test("a file of another hash is refused; a File with the right one runs", async () => {
    const outcome = await page.evaluate(async () => {
      const { cinder, greedy, settle } = globalThis;
      const bytes = await (await fetch("/tiny.gguf")).arrayBuffer();
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
      const sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      cinder.register({ id: "wrong", url: "/tiny.gguf", sha256: "0".repeat(64) });
      cinder.register({ id: "right", file: new File([bytes], "tiny.gguf"), sha256 });
      return { wrong: await settle(cinder.load("wrong")), right: await settle(cinder.complete({ ...greedy, model: "right" })) };
    });
    assert.equal(outcome.wrong.error?.code, "integrity_mismatch");
    assert.ok(POEM.startsWith(START + outcome.right.value?.choices[0].text));
  });

  test("leaving the loop, aborting before, during and after", async () => {
    const outcome = await page.evaluate(async () => {
      const { cinder, greedy, settle } = globalThis;
      const params = { ...greedy, max_tokens: 200, logit_bias: { 2: -100 } };
      let nChunks = 0;
      for await (const _ of await cinder.complete({ ...params, stream: true })) if (++nChunks === 3) break;
      const early = await settle(cinder.complete(params, { signal: AbortSignal.abort() }));
      const controller = new AbortController();
      const stream = await cinder.complete({ ...params, stream: true }, { signal: controller.signal });
      await stream.next();
      controller.abort();
      const middle = await settle(stream.next());
      const later = new AbortController();
      const running = cinder.complete({ ...params, n: 64 }, { signal: later.signal });
      setTimeout(() => later.abort(), 10);
      return { nChunks, early, middle, whole: await settle(running), again: await settle(stream.next()) };
    });
    assert.equal(outcome.nChunks, 3);
    for (const part of ["early", "middle", "whole"]) assert.equal(outcome[part].error?.name, "AbortError", part);
    assert.equal(outcome.again.value?.done, true);
    await stillWorks();
  });

  test("calls side by side take their steps together, and a stream that nobody reads keeps nobody waiting", async () => {
    const outcome = await page.evaluate(async () => {
      const { cinder, greedy } = globalThis;
      const long = { ...greedy, max_tokens: 200, logit_bias: { 2: -100 }, stream: true };
      const unread = await cinder.complete(long);
      const seeds = [1, 2, 3, 4];
      const sampled = (seed) => cinder.complete({ model: "tiny", prompt: "A cinder", seed, n: 3, max_tokens: 20 });
      const together = await Promise.all(seeds.map(sampled));
      await unread.return();
      const alone = [];
      for (const seed of seeds) alone.push(await sampled(seed));
      return { together: together.map(({ choices }) => choices), alone: alone.map(({ choices }) => choices) };
    });
    assert.equal(outcome.together.length, 4);
    assert.deepEqual(outcome.together, outcome.alone);
  });

  for (const device of ["cpu", "webgpu"]) {
    test(`a prompt that grew is read from where it grew, to the same text, on ${device}`, async () => {
      const outcome = await page.evaluate(async (device) => {
        const cinder = globalThis.open({ device });
        const fresh = globalThis.open({ device, kvCacheBytes: 0 });
        const start = "Qualms vex, jumpy zebras fight, ".repeat(2);
        const texts = [`${start}and dream`, `${start}and dreamt of fire`, `${start}and woke`];
        const answers = [];
        for (const prompt of texts) {
          const params = { model: "tiny", prompt, seed: 5, max_tokens: 6, logprobs: 1 };
          answers.push([(await cinder.complete(params)).choices, (await fresh.complete(params)).choices]);
        }
        const stats = [(await cinder.stats()).tiny, (await fresh.stats()).tiny];
        await cinder.dispose();
        await fresh.dispose();
        return { answers, stats };
      }, device);
      for (const [kept, fresh] of outcome.answers) assert.deepEqual(kept, fresh);
      const [kept, fresh] = outcome.stats;
      assert.equal(kept.hits, 2);
      assert.ok(kept.savedTokens >= 80 && kept.keptTokens > 40 && kept.keptBytes > 0, JSON.stringify(kept));
      const { decode, prefill, ...rest } = fresh;
      assert.deepEqual(rest, { hits: 0, savedTokens: 0, keptTokens: 0, keptBytes: 0, kvBytes: 0 });
      // A prompt gives the first of six tokens, and each step one of the others.
      assert.deepEqual([decode.steps, decode.tokens], [15, 15]);
      assert.ok(prefill.tokens > kept.prefill.tokens, "what is kept is not read again");
      assert.equal(decode.last.dispatches > 0, device === "webgpu");
      assert.ok(kept.kvBytes >= kept.keptBytes, JSON.stringify(kept));
    });
  }

  test("requests past the queue are refused with 429", async () => {
    const outcome = await page.evaluate(async () => {
      const { greedy, settle } = globalThis;
      const cinder = globalThis.open({ maxBatch: 1, maxQueue: 1 });
      await cinder.load("tiny");
      const calls = await Promise.all([1, 2, 3].map(() => settle(cinder.complete({ ...greedy, max_tokens: 100, logit_bias: { 2: -100 } }))));
      const again = await settle(cinder.complete(greedy));
      await cinder.dispose();
      return { errors: calls.map(({ error }) => error).filter((error) => error !== undefined), again };
    });
    assert.deepEqual(outcome.errors.map(({ status, type, code }) => [status, type, code]), [[429, "rate_limit_error", "queue_full"]]);
    assert.equal(outcome.again.error, undefined);
  });

  test("a context length past the model's own is the model's own", async () => {
    const info = await page.evaluate(async () => {
      const cinder = globalThis.open({ models: [{ id: "long", url: "/tiny.gguf", contextLength: 2 ** 33 }] });
      const info = await cinder.load("long");
      await cinder.dispose();
      return info;
    });
    assert.equal(info.contextLength, 512);
  });

  test("unloading ends the call that runs, and the next one loads again", async () => {
    const outcome = await page.evaluate(async () => {
      const { greedy, settle } = globalThis;
      const cinder = globalThis.open();
      const stream = await cinder.complete({ ...greedy, max_tokens: 200, logit_bias: { 2: -100 }, stream: true });
      await stream.next();
      const drained = settle((async () => {
        for await (const chunk of stream) void chunk;
      })());
      await cinder.unload("tiny");
      const unloaded = cinder.models()[0].loaded;
      const result = { drained: await drained, unloaded, again: await settle(cinder.complete(greedy)) };
      await cinder.dispose();
      return result;
    });
    assert.deepEqual([outcome.drained.error?.code, outcome.drained.error?.param], ["model_not_found", "model"]);
    assert.equal(outcome.unloaded, false);
    assert.ok(POEM.startsWith(START + outcome.again.value?.choices[0].text));
  });

  test("unloading ends a stream that nobody reads, and frees its model", async () => {
    const outcome = await page.evaluate(async () => {
      const { greedy, settle } = globalThis;
      const cinder = globalThis.open({ device: "webgpu" });
      await cinder.load("tiny");
      await cinder.unload("tiny");
      const before = (await cinder.memory()).gpuBytes;
      const stream = await cinder.complete({ ...greedy, max_tokens: 200, logit_bias: { 2: -100 }, stream: true });
      await cinder.unload("tiny");
      const after = (await cinder.memory()).gpuBytes;
      const read = await settle((async () => {
        for await (const chunk of stream) void chunk;
      })());
      await cinder.dispose();
      return { before, after, read };
    });
    assert.deepEqual([outcome.read.error?.code, outcome.read.error?.param], ["model_not_found", "model"]);
    // What launches keep for their scalars may stay.
    assert.ok(outcome.after <= outcome.before + 65536, `${outcome.after} bytes after, ${outcome.before} before`);
  });

  test("a worker that is gone rejects its calls, and the next call starts another", async () => {
    const outcome = await page.evaluate(async () => {
      const { greedy, settle } = globalThis;
      const cinder = globalThis.open();
      await cinder.load("tiny");
      const running = settle(cinder.complete({ ...greedy, max_tokens: 200, logit_bias: { 2: -100 } }));
      globalThis.workers.at(-1).terminate();
      const result = { running: await running, again: await settle(cinder.complete(greedy)) };
      await cinder.dispose();
      return result;
    });
    assert.deepEqual([outcome.running.error?.name, outcome.running.error?.code], ["CompletionError", "internal"]);
    assert.ok(POEM.startsWith(START + outcome.again.value?.choices[0].text));
  });

  test("two models side by side, n, best_of, logprobs and a seed", async () => {
    const outcome = await page.evaluate(async () => {
      const cinder = globalThis.open({ models: [{ id: "a", url: "/tiny.gguf" }, { id: "b", url: "/tiny.gguf", contextLength: 32 }] });
      const params = { prompt: "A cinder slept", max_tokens: 8, seed: 7n, n: 2, best_of: 3, logprobs: 2 };
      const [a, b] = await Promise.all([cinder.complete({ ...params, model: "a" }), cinder.complete({ ...params, model: "b" })]);
      const tooLong = await globalThis.settle(cinder.complete({ ...params, model: "b", max_tokens: 32 }));
      await cinder.dispose();
      return { a: a.choices, b: b.choices, usage: a.usage, tooLong };
    });
    assert.deepEqual(outcome.a, outcome.b);
    assert.deepEqual(outcome.a.map(({ index }) => index), [0, 1]);
    assert.equal(outcome.a[0].logprobs.text_offset[0], START.length);
    assert.equal(outcome.usage.completion_tokens > 16, true, JSON.stringify(outcome.usage));
    assert.equal(outcome.tooLong.error?.code, "context_length_exceeded");
  });

  test("auto avoids the software adapter and says why", async () => {
    const device = await page.evaluate(async () => {
      const cinder = globalThis.open({ device: "auto" });
      const device = await cinder.device();
      await cinder.dispose();
      return device;
    });
    assert.equal(device.kind, "cpu");
    assert.match(device.reason, /software/);
  });
}

test("importing the package in Node does not crash", async () => {
  const { Cinder, complete, CompletionError } = await import("../../www/package/dist/index.js");
  assert.equal(typeof complete, "function");
  assert.equal(new CompletionError({ status: 400, type: "invalid_request_error", code: "invalid_type", param: null, message: "m" }).message, "m");
  assert.deepEqual(new Cinder().models(), []);
});
