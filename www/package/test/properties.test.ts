import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CompletionError } from "../src/errors.js";
import { answerFetch } from "../src/fetch.js";
import { snapshot } from "../src/snapshot.js";
import { CompletionStream } from "../src/stream.js";
import type { Completion, CompletionChunk, CompletionParams } from "../src/types.js";
import { validate } from "../src/validate.js";

function chunk(text: string): CompletionChunk {
  return { id: "cmpl-1", object: "text_completion", created: 0, model: "m", system_fingerprint: "f", choices: [{ index: 0, text, logprobs: null, finish_reason: null }] };
}

/** Texts and in which order they come and are taken. */
const course = fc.record({ texts: fc.array(fc.string({ unit: "grapheme" }), { maxLength: 20 }), takes: fc.array(fc.boolean(), { maxLength: 60 }) });

test("a stream gives every text once and in order, however it comes and is taken", async () => {
  await fc.assert(
    fc.asyncProperty(course, async ({ texts, takes }) => {
      let nTaken = 0;
      const stream = new CompletionStream({ taken: () => (nTaken += 1), left: () => assert.fail("left"), ended: () => undefined });
      const waiting = [...texts];
      const read: Promise<IteratorResult<CompletionChunk, undefined>>[] = [];
      for (const isTake of takes) {
        if (isTake && read.length < texts.length) read.push(stream.next());
        else if (waiting.length > 0) stream.push(chunk(waiting.shift() as string));
      }
      for (const text of waiting) stream.push(chunk(text));
      stream.finish();
      while (read.length < texts.length) read.push(stream.next());
      const found = (await Promise.all(read)).map(({ value }) => value?.choices[0]?.text);
      assert.deepEqual(found, texts);
      assert.equal(nTaken, texts.length);
      assert.equal((await stream.next()).done, true);
    }),
  );
});

test("server-sent events carry every text over unchanged", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.string({ unit: "grapheme" }), { maxLength: 12 }), async (texts) => {
      const chunks = (async function* () {
        for (const text of texts) yield chunk(text);
      })();
      const target = { models: () => [], complete: () => Promise.resolve(chunks as AsyncIterableIterator<CompletionChunk> | Completion) };
      const request = new Request("https://x.test/v1/completions", { method: "POST", body: JSON.stringify({ model: "m", stream: true }) });
      const lines = (await (await answerFetch(target, undefined, request)).text()).split("\n\n").filter((line) => line !== "");
      assert.equal(lines.pop(), "data: [DONE]");
      const found = lines.map((line) => (JSON.parse(line.replace(/^data: /, "")) as CompletionChunk).choices[0]?.text);
      assert.deepEqual(found, texts);
    }),
    { numRuns: 50 },
  );
});

const anyField = fc.constantFrom("model", "prompt", "suffix", "max_tokens", "n", "best_of", "echo", "logprobs", "temperature", "top_p", "logit_bias", "seed", "stop", "stream", "stream_options", "user", "other");
const anyParams = fc.dictionary(anyField, fc.oneof(fc.anything(), fc.jsonValue(), fc.integer(), fc.double(), fc.string(), fc.boolean()), { maxKeys: 6 });

test("any value is a valid request or a CompletionError, and what is valid stays so", () => {
  fc.assert(
    fc.property(fc.oneof(fc.anything({ withBigInt: true, withNullPrototype: true }), anyParams), (value) => {
      try {
        const own = snapshot(value) as CompletionParams;
        validate(own);
        validate(snapshot(own));
      } catch (error) {
        assert.ok(error instanceof CompletionError, String(error));
        assert.equal(error.status, 400);
      }
    }),
    { numRuns: 500 },
  );
});

test("values inside the ranges are taken", () => {
  const valid = fc.record(
    {
      model: fc.constant("m"),
      prompt: fc.oneof(fc.string(), fc.array(fc.string(), { minLength: 1 }), fc.array(fc.nat(), { minLength: 1 }), fc.array(fc.array(fc.nat(), { minLength: 1 }), { minLength: 1 })),
      max_tokens: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      n: fc.integer({ min: 1, max: 128 }),
      logprobs: fc.integer({ min: 0, max: 5 }),
      temperature: fc.double({ min: 0, max: 2, noNaN: true }),
      top_p: fc.double({ min: 0, max: 1, noNaN: true }),
      frequency_penalty: fc.double({ min: -2, max: 2, noNaN: true }),
      logit_bias: fc.dictionary(fc.nat().map(String), fc.double({ min: -100, max: 100, noNaN: true })),
      seed: fc.oneof(fc.maxSafeInteger(), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })),
      stop: fc.oneof(fc.string({ minLength: 1 }), fc.array(fc.string({ minLength: 1 }), { maxLength: 4 })),
      user: fc.string(),
    },
    { requiredKeys: ["model"] },
  );
  fc.assert(fc.property(valid, (params) => validate(snapshot(params))));
});
