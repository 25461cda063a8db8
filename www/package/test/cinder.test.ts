import assert from "node:assert/strict";
import { test } from "node:test";
import { Cinder } from "../src/cinder.js";
import type { WorkerLike } from "../src/connection.js";
import { CompletionError, errorBody } from "../src/errors.js";
import type { Reply, Request } from "../src/messages.js";
import { complete, configure } from "../src/shared.js";
import type { CinderOptions, CompletionChunk, CompletionParams, RequestReport, Timings } from "../src/types.js";

/** A worker that answers from a script. */
class FakeWorker implements WorkerLike {
  readonly received: Request[] = [];
  terminated = false;
  readonly #listeners: ((event: MessageEvent<Reply>) => void)[] = [];
  readonly #failures: ((event: Event) => void)[] = [];

  constructor(readonly script: (request: Request, worker: FakeWorker) => void) {}

  postMessage(message: Request): void {
    const copy = structuredClone(message);
    this.received.push(copy);
    queueMicrotask(() => this.script(copy, this));
  }
  terminate(): void {
    this.terminated = true;
  }
  addEventListener(type: string, listener: ((event: MessageEvent<Reply>) => void) & ((event: Event) => void)): void {
    if (type === "message") this.#listeners.push(listener);
    if (type === "error") this.#failures.push(listener);
  }
  reply(reply: Reply): void {
    for (const listener of this.#listeners) listener({ data: reply } as MessageEvent<Reply>);
  }
  fail(): void {
    for (const listener of this.#failures) listener({ preventDefault: () => undefined } as Event);
  }
}

class TestCinder extends Cinder {
  readonly workers: FakeWorker[] = [];
  script: FakeWorker["script"] = () => undefined;
  /** Whether workers answer that they have started. */
  starts = true;

  protected override createWorker(): WorkerLike {
    const worker = new FakeWorker((request, self) => {
      if (request.type === "start" && !this.starts) return;
      if (request.type === "start") self.reply({ type: "result", id: request.id, value: { kind: "cpu", name: "cpu", reason: "test.", threads: 1 } });
      else this.script(request, self);
    });
    this.workers.push(worker);
    return worker;
  }
}

function make(options: CinderOptions = {}, script?: FakeWorker["script"]): TestCinder {
  const cinder = new TestCinder({ models: [{ id: "tale", url: "https://example.test/tale.gguf" }], ...options });
  if (script !== undefined) cinder.script = script;
  return cinder;
}

function chunk(text: string): CompletionChunk {
  const choices = [{ index: 0, text, logprobs: null, finish_reason: null }];
  return { id: "cmpl-1", object: "text_completion", created: 0, model: "tale", system_fingerprint: "f", choices };
}

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

test("nothing starts before the first call", () => {
  const cinder = make();
  assert.deepEqual(cinder.models(), [{ id: "tale", loaded: false }]);
  assert.equal(cinder.workers.length, 0);
});

for (const [name, options] of [
  ["no source", { models: [{ id: "a" }] }],
  ["two sources", { models: [{ id: "a", url: "https://example.test/a", file: new Blob([]) }] }],
  ["no id", { models: [{ id: "", url: "https://example.test/a" }] }],
  ["a bad hash", { models: [{ id: "a", url: "https://example.test/a", sha256: "xyz" }] }],
  ["a bad context length", { models: [{ id: "a", url: "https://example.test/a", contextLength: 0 }] }],
  ["an empty address", { models: [{ id: "a", url: "" }] }],
  ["a file that is a path", { models: [{ id: "a", file: "a.gguf" as unknown as File }] }],
  ["a batch of none", { maxBatch: 0 }],
  ["no threads", { threads: 0 }],
  ["half a thread", { threads: 1.5 }],
  ["too many threads", { threads: 65 }],
  ["a calibration that is a number", { calibrate: 1 as never }],
  ["one address for all modules", { wasmUrls: "/cinderlm.wasm" as never }],
  ["the address of a module that is not there", { wasmUrls: { gpu: "/gpu.wasm" } as never }],
  ["half a queue", { maxQueue: 0.5 }],
  ["an unknown device", { device: "tpu" as "cpu" }],
] satisfies [string, CinderOptions][]) {
  test(`options are checked: ${name}`, () => {
    assert.throws(() => new Cinder(options), TypeError);
  });
}

for (const [name, model, code] of [
  ["unknown", "saga", "model_not_found"],
  ["missing", undefined, "invalid_type"],
  ["null", null, "invalid_type"],
  ["a number", 7, "invalid_type"],
] as const) {
  test(`a model that is ${name} is refused without a worker`, async () => {
    const cinder = make();
    await assert.rejects(cinder.complete({ model: model as string }), (error) => {
      assert.ok(error instanceof CompletionError);
      assert.equal(error.code, code);
      assert.equal(error.param, "model");
      return true;
    });
    assert.equal(cinder.workers.length, 0);
  });
}

test("the worker is told where modules are and how many threads it may have and whether to calibrate, and its warnings are logged", async () => {
  const warnings: string[] = [];
  const logger = { ...console, info: () => undefined, warn: (message: string) => void warnings.push(message) };
  const wasmUrls = { cpu: "https://example.test/cpu.wasm", cpuThreads: new URL("https://example.test/threads.wasm") };
  const cinder = make({ wasmUrls, threads: 3, calibrate: false, logger });
  await cinder.device();
  const [worker] = cinder.workers;
  const start = worker?.received.find(({ type }) => type === "start");
  assert.deepEqual(start, {
    type: "start",
    id: 1,
    device: "auto",
    limits: {},
    storage: "origin-private",
    urls: { cpu: "https://example.test/cpu.wasm", cpuThreads: "https://example.test/threads.wasm" },
    threads: 3,
    calibrate: false,
  });
  worker?.reply({ type: "warning", message: "a thread is missing" });
  assert.deepEqual(warnings, ["cinderlm: a thread is missing"]);
});

test("an error keeps its code and param across the boundary", async () => {
  const body = { ...errorBody("out_of_range", "n: expected 1..128, got 0.", "n"), retry_after: 2 };
  const cinder = make({}, (request, worker) => worker.reply({ type: "error", id: (request as { id: number }).id, error: body }));
  await assert.rejects(cinder.complete({ model: "tale", n: 1 }), (error) => {
    assert.ok(error instanceof CompletionError && error instanceof Error);
    assert.deepEqual(
      { status: error.status, type: error.type, code: error.code, param: error.param, message: error.message, retry_after: error.retry_after },
      body,
    );
    return true;
  });
});

test("a stream resolves at its first chunk, gives credit as chunks are taken, and ends", async () => {
  const cinder = make({}, (request, worker) => {
    if (request.type !== "complete") return;
    for (const text of ["a", "b"]) worker.reply({ type: "chunk", id: request.id, chunk: chunk(text) });
    worker.reply({ type: "result", id: request.id, value: undefined });
  });
  let text = "";
  for await (const part of await cinder.complete({ model: "tale", stream: true })) text += part.choices[0]?.text;
  assert.equal(text, "ab");
  const credits = cinder.workers[0]?.received.filter((request) => request.type === "credit") ?? [];
  assert.deepEqual(credits.map((request) => request.type === "credit" && request.count), [1, 1]);
});

test("an error before the first chunk rejects the call, one after it the iteration", async () => {
  const early = make({}, (request, worker) => {
    if (request.type === "complete") worker.reply({ type: "error", id: request.id, error: errorBody("invalid_type", "no", "stop") });
  });
  await assert.rejects(early.complete({ model: "tale", stream: true }), { code: "invalid_type" });
  const late = make({}, (request, worker) => {
    if (request.type !== "complete") return;
    worker.reply({ type: "chunk", id: request.id, chunk: chunk("a") });
    worker.reply({ type: "error", id: request.id, error: errorBody("internal", "no") });
  });
  const stream = await late.complete({ model: "tale", stream: true });
  assert.equal((await stream.next()).value?.choices[0]?.text, "a");
  await assert.rejects(stream.next(), { code: "internal" });
});

test("break sends one cancel", async () => {
  const cinder = make({}, (request, worker) => {
    if (request.type === "complete") worker.reply({ type: "chunk", id: request.id, chunk: chunk("a") });
  });
  for await (const part of await cinder.complete({ model: "tale", stream: true })) {
    assert.equal(part.choices[0]?.text, "a");
    break;
  }
  assert.equal(cinder.workers[0]?.received.filter((request) => request.type === "cancel").length, 1);
});

test("aborting rejects with AbortError at once, whole or streamed, and cancels in the worker", async () => {
  for (const stream of [false, true]) {
    const cinder = make();
    const controller = new AbortController();
    const call = cinder.complete({ model: "tale", stream }, { signal: controller.signal });
    await settle();
    controller.abort();
    await assert.rejects(call, { name: "AbortError" });
    assert.deepEqual(cinder.workers[0]?.received.map(({ type }) => type), ["start", "complete", "cancel"]);
  }
});

test("a signal that was aborted before costs nothing", async () => {
  const cinder = make();
  await assert.rejects(cinder.complete({ model: "tale" }, { signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.equal(cinder.workers.length, 0);
});

test("a dead worker fails its calls; the next call starts another", async () => {
  const cinder = make();
  const calls = [cinder.complete({ model: "tale" }), cinder.complete({ model: "tale", stream: true })];
  await settle();
  cinder.workers[0]?.fail();
  for (const call of calls) await assert.rejects(call, { code: "internal" });
  assert.equal(cinder.workers[0]?.terminated, true);
  cinder.script = (request, worker) => worker.reply({ type: "result", id: (request as { id: number }).id, value: [1, 2] });
  assert.deepEqual(await cinder.tokenize("tale", "x"), [1, 2]);
  assert.equal(cinder.workers.length, 2);
});

test("a lost device fails its calls with device_lost, and no model counts as loaded", async () => {
  const cinder = make({}, (request, worker) => {
    if (request.type === "load") {
      worker.reply({ type: "loaded", info: { id: "tale", loaded: true } });
      worker.reply({ type: "result", id: request.id, value: { id: "tale", loaded: true } });
    } else if (request.type === "complete") {
      worker.reply({ type: "fatal", error: errorBody("device_lost", "gone") });
    }
  });
  await cinder.load("tale");
  assert.equal(cinder.models()[0]?.loaded, true);
  await assert.rejects(cinder.complete({ model: "tale" }), { code: "device_lost", status: 500 });
  assert.equal(cinder.models()[0]?.loaded, false);
});

test("dispose rejects what runs and what comes later", async () => {
  const cinder = make();
  const call = cinder.complete({ model: "tale" });
  await settle();
  await cinder.dispose();
  await assert.rejects(call, /disposed/);
  await assert.rejects(cinder.complete({ model: "tale" }), /disposed/);
});

for (const [name, fields, code, param] of [
  ["a function", { stop: ["a", () => "b"] }, "invalid_type", "stop[1]"],
  ["a symbol", { user: Symbol("me") }, "invalid_type", "user"],
  ["a buffer", { prompt: new ArrayBuffer(4) }, "invalid_type", "prompt"],
  ["an integer of more than 64 bits", { seed: 2n ** 70n }, "out_of_range", "seed"],
  ["a value nested without end", { logit_bias: nested(20) }, "invalid_type", "logit_bias.a.a.a.a.a.a.a"],
  ["a getter that throws", Object.defineProperty({}, "stop", { enumerable: true, get: () => JSON.parse("{") as string }), "invalid_type", null],
] as const) {
  test(`${name} in a request is refused by name, without a worker`, async () => {
    const cinder = make();
    const params = Object.defineProperties({ model: "tale" }, Object.getOwnPropertyDescriptors(fields)) as CompletionParams;
    await assert.rejects(cinder.complete(params), { name: "CompletionError", code, param });
    assert.equal(cinder.workers.length, 0);
  });
}

function nested(depth: number): unknown {
  return depth === 0 ? 1 : { a: nested(depth - 1) };
}

test("a request is what it was when it was made, proxies and typed arrays included", async () => {
  const cinder = make({}, (request, worker) => worker.reply({ type: "result", id: (request as { id: number }).id, value: {} }));
  const params = { model: "tale", prompt: [new Uint32Array([1, 2])] as unknown as number[][], stop: new Proxy(["x"], {}) };
  const whole = cinder.complete(params);
  params.model = "saga";
  params.stop.push("y");
  await whole;
  const [sent] = cinder.workers[0]?.received.flatMap((request) => (request.type === "complete" ? [request.params] : [])) ?? [];
  assert.deepEqual(sent, { model: "tale", prompt: [[1, 2]], stop: ["x"] });
});

for (const [name, call, param] of [
  ["tokenize a number", (cinder: Cinder) => cinder.tokenize("tale", 5 as unknown as string), "text"],
  ["detokenize a length", (cinder: Cinder) => cinder.detokenize("tale", { length: 3e9 } as number[]), "ids"],
  ["detokenize text", (cinder: Cinder) => cinder.detokenize("tale", [1, "2"] as number[]), "ids[1]"],
] as const) {
  test(`${name}: refused by name, without a worker`, async () => {
    const cinder = make();
    await assert.rejects(call(cinder), { name: "CompletionError", code: "invalid_type", param });
    assert.equal(cinder.workers.length, 0);
  });
}

test("an abort is heard while the worker starts, and is an AbortError whatever the reason", async () => {
  const cinder = make();
  cinder.starts = false;
  const controller = new AbortController();
  const call = cinder.complete({ model: "tale" }, { signal: controller.signal });
  await settle();
  controller.abort("enough");
  await assert.rejects(call, (error: Error) => error.name === "AbortError" && error.cause === "enough");
});

test("what is no signal is refused before anything is sent", async () => {
  const cinder = make();
  await assert.rejects(cinder.complete({ model: "tale" }, { signal: new AbortController() as unknown as AbortSignal }), TypeError);
  assert.equal(cinder.workers.length, 0);
});

test("the instance hears once of a load that several calls wait for", async () => {
  const heard: number[] = [];
  const requests: { id: number; worker: { reply(reply: Reply): void } }[] = [];
  const cinder = make({ onProgress: ({ bytes }) => heard.push(bytes) }, (request, worker) => {
    if (request.type === "load") requests.push({ id: request.id, worker });
  });
  const own: number[] = [];
  const loads = [1, 2, 3].map(() => cinder.load("tale", { onProgress: ({ bytes }) => own.push(bytes) }));
  await settle();
  for (const bytes of [10, 20]) {
    for (const { id, worker } of requests) worker.reply({ type: "progress", id, progress: { model: "tale", phase: "download", bytes } });
  }
  for (const { id, worker } of requests) worker.reply({ type: "result", id, value: { id: "tale", loaded: true } });
  await Promise.all(loads);
  assert.deepEqual(heard, [10, 20]);
  assert.deepEqual(own, [10, 10, 10, 20, 20, 20]);
});

test("options that are refused leave the shared instance as it is", async () => {
  const first = configure({});
  assert.throws(() => configure({ device: "tpu" as "cpu" }), TypeError);
  await assert.rejects(complete({ model: "tale" }), { code: "model_not_found" });
  await first.dispose();
});

test("a value that cannot be cloned is an invalid_type, and the next call works", async () => {
  const cinder = make({}, (request, worker) => {
    if (request.type === "complete") worker.reply({ type: "result", id: request.id, value: { choices: [] } });
  });
  await assert.rejects(cinder.complete({ model: "tale", prompt: (() => "x") as unknown as string }), { code: "invalid_type" });
  assert.deepEqual(await cinder.complete({ model: "tale" }), { choices: [] });
});

test("the token goes along with addresses, never with files", async () => {
  const cinder = make(
    { token: "secret", models: [{ id: "tale", url: "https://example.test/a" }, { id: "local", file: new Blob(["x"]) }] },
    (request, worker) => worker.reply({ type: "result", id: (request as { id: number }).id, value: [] }),
  );
  await cinder.tokenize("tale", "x");
  await cinder.tokenize("local", "x");
  const tokens = cinder.workers[0]?.received.flatMap((request) => (request.type === "tokenize" ? [request.model.token] : []));
  assert.deepEqual(tokens, ["secret", undefined]);
});

/** Reports as far as a test can tell them beforehand. */
const shown = ({ outcome, error_code, usage }: RequestReport): unknown => [outcome, error_code, usage?.total_tokens];
const report = { usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 }, timings: {} as Timings };

test("each request is reported when the worker has told its end", async () => {
  const reports: RequestReport[] = [];
  const cinder = make({ onUsage: (report) => reports.push(report) }, (request, worker) => {
    if (request.type === "complete" && request.params.user === "wrong") worker.reply({ type: "error", id: request.id, error: errorBody("out_of_memory", "no"), report });
    else if (request.type === "complete" && request.params.user === "early") worker.reply({ type: "error", id: request.id, error: errorBody("download_failed", "no") });
    else if (request.type === "complete" && request.params.stream === true) worker.reply({ type: "chunk", id: request.id, chunk: chunk("a") });
    else if (request.type === "complete") worker.reply({ type: "result", id: request.id, value: {}, report });
    else if (request.type === "cancel") worker.reply({ type: "cancelled", id: request.id, report });
  });
  await cinder.complete({ model: "tale" });
  await assert.rejects(cinder.complete({ model: "tale", user: "wrong" }));
  await assert.rejects(cinder.complete({ model: "tale", user: "early" }));
  for await (const _ of await cinder.complete({ model: "tale", stream: true })) break;
  await settle();
  await assert.rejects(cinder.complete({ model: "tale" }, { signal: AbortSignal.abort() }));
  await assert.rejects(cinder.complete({ model: "saga" }));
  assert.deepEqual(reports.map(shown), [["completed", null, 3], ["failed", "out_of_memory", 3], ["failed", "download_failed", 0], ["aborted", null, 3]]);
});

test("a worker that dies leaves what it used unknown; who had left was not failed", async () => {
  const reports: RequestReport[] = [];
  const cinder = make({ onUsage: (report) => reports.push(report) }, (request, worker) => {
    if (request.type === "complete" && request.params.stream === true) worker.reply({ type: "chunk", id: request.id, chunk: chunk("a") });
  });
  const call = cinder.complete({ model: "tale" });
  for await (const _ of await cinder.complete({ model: "tale", stream: true })) break;
  cinder.workers[0]?.fail();
  await assert.rejects(call, { code: "internal" });
  await settle();
  assert.deepEqual(reports.map(shown).sort(), [["aborted", null, undefined], ["failed", "internal", undefined]]);
});

test("leaving or aborting a request makes room for the next at once", async () => {
  const cinder = make({ limits: { perUser: { concurrent: 1 } } }, (request, worker) => {
    if (request.type === "complete") worker.reply({ type: "chunk", id: request.id, chunk: chunk("a") });
  });
  for await (const _ of await cinder.complete({ model: "tale", stream: true })) break;
  const controller = new AbortController();
  const stream = await cinder.complete({ model: "tale", stream: true }, { signal: controller.signal });
  await assert.rejects(cinder.complete({ model: "tale" }), { code: "user_limit", status: 429 });
  controller.abort();
  await assert.rejects(stream.next(), { name: "AbortError" });
  await cinder.complete({ model: "tale", stream: true });
});

test("an abort before the runtime has started costs no tokens", async () => {
  const reports: RequestReport[] = [];
  const cinder = make({ onUsage: (report) => reports.push(report) });
  cinder.starts = false;
  const controller = new AbortController();
  const call = cinder.complete({ model: "tale" }, { signal: controller.signal });
  await settle();
  controller.abort();
  await assert.rejects(call, { name: "AbortError" });
  assert.deepEqual(reports.map(shown), [["aborted", null, 0]]);
});

test("after dispose nothing goes to a server either", async () => {
  const realFetch = globalThis.fetch;
  globalThis.fetch = () => assert.fail("a request was sent");
  try {
    const cinder = make({ remote: { baseURL: "https://server.test/v1", use: "always" } });
    await cinder.dispose();
    await assert.rejects(cinder.complete({ model: "tale" }), /disposed/);
  } finally {
    globalThis.fetch = realFetch;
  }
});

test("scopes of pages and of keys are never the same", async () => {
  const scopes: string[] = [];
  const cinder = make({ apiKeys: ["abc"] }, (request, worker) => {
    if (request.type !== "complete") return;
    scopes.push(request.cacheScope);
    worker.reply({ type: "result", id: request.id, value: {} });
  });
  await cinder.complete({ model: "tale" });
  await cinder.complete({ model: "tale" }, { cacheScope: "caller abc" });
  await cinder.fetch("https://x.test/v1/completions", { method: "POST", headers: { authorization: "Bearer abc" }, body: '{"model":"tale"}' });
  assert.equal(new Set(scopes).size, 3, scopes.join());
  await assert.rejects(cinder.complete({ model: "tale" }, { cacheScope: "\ud800" }), TypeError);
});
