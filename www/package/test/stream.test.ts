import assert from "node:assert/strict";
import { test } from "node:test";
import { CompletionStream } from "../src/stream.js";
import type { CompletionChunk } from "../src/types.js";

function chunk(text: string): CompletionChunk {
  return {
    id: "cmpl-1",
    object: "text_completion",
    created: 0,
    model: "m",
    system_fingerprint: "f",
    choices: [{ index: 0, text, logprobs: null, finish_reason: null }],
  };
}

function open(): { stream: CompletionStream; calls: string[] } {
  const calls: string[] = [];
  const stream = new CompletionStream({ taken: () => calls.push("taken"), left: () => calls.push("left"), ended: () => undefined });
  return { stream, calls };
}

const textOf = (value: CompletionChunk | undefined): string | undefined => value?.choices[0]?.text;

test("chunks come in order, whether they were waited for or not, and each is acknowledged", async () => {
  const { stream, calls } = open();
  stream.push(chunk("a"));
  const texts: (string | undefined)[] = [];
  const reading = (async () => {
    for await (const part of stream) texts.push(textOf(part));
  })();
  await Promise.resolve();
  stream.push(chunk("b"));
  stream.push(chunk("c"));
  stream.finish();
  await reading;
  assert.deepEqual(texts, ["a", "b", "c"]);
  assert.deepEqual(calls, ["taken", "taken", "taken"]);
});

test("leaving the loop tells the producer once and drops what came later", async () => {
  const { stream, calls } = open();
  stream.push(chunk("a"));
  stream.push(chunk("b"));
  for await (const part of stream) {
    assert.equal(textOf(part), "a");
    break;
  }
  stream.push(chunk("c"));
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
  assert.deepEqual(calls, ["taken", "left"]);
});

test("throw() stops the generation and rejects with its reason", async () => {
  const { stream, calls } = open();
  await assert.rejects(stream.throw(new Error("enough")), /enough/);
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
  assert.deepEqual(calls, ["left"]);
});

test("return() settles readers that still wait", async () => {
  const { stream } = open();
  const waiting = stream.next();
  await stream.return();
  assert.deepEqual(await waiting, { done: true, value: undefined });
});

test("a failure is reported once, after the chunks that came before it", async () => {
  const { stream, calls } = open();
  stream.push(chunk("a"));
  stream.fail(new Error("broken"));
  assert.equal(textOf((await stream.next()).value), "a");
  await assert.rejects(stream.next(), /broken/);
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
  assert.deepEqual(calls, ["taken"]);
});

test("an abort drops the chunks that nobody took", async () => {
  const { stream } = open();
  stream.push(chunk("a"));
  stream.abort(new DOMException("stop", "AbortError"));
  await assert.rejects(stream.next(), { name: "AbortError" });
});

test("an abort after the last chunk is heard as long as chunks wait", async () => {
  const { stream } = open();
  for (const text of ["a", "b"]) stream.push(chunk(text));
  stream.finish();
  await stream.next();
  stream.abort(new DOMException("stop", "AbortError"));
  await assert.rejects(stream.next(), { name: "AbortError" });
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
});

test("an abort after everything was taken changes nothing", async () => {
  const { stream } = open();
  stream.push(chunk("a"));
  stream.finish();
  await stream.next();
  stream.abort(new DOMException("stop", "AbortError"));
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
});

test("a stream can be iterated once", async () => {
  const { stream } = open();
  stream.finish();
  for await (const part of stream) assert.fail(String(part));
  assert.throws(() => stream[Symbol.asyncIterator](), /already iterated/);
});
