import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import fc from "fast-check";
import type { RequestEnd } from "../src/accounts.js";
import { CompletionError, errorBody } from "../src/errors.js";
import { Remote } from "../src/remote.js";
import type { CompletionChunk, CompletionParams, RemoteOptions } from "../src/types.js";

const realFetch = globalThis.fetch;
afterEach(() => void (globalThis.fetch = realFetch));

interface Asked {
  url: string;
  init: RequestInit;
}

/** Answers every request with what `answer` makes; gives the requests. */
function serve(answer: (asked: Asked) => Response | Promise<Response>): Asked[] {
  const asked: Asked[] = [];
  globalThis.fetch = async (input, init = {}) => {
    asked.push({ url: String(input), init });
    return answer({ url: String(input), init });
  };
  return asked;
}

function remote(options: Partial<RemoteOptions> = {}): Remote {
  return new Remote({ baseURL: "https://server.test/v1/", ...options });
}

const usage = { prompt_tokens: 2, completion_tokens: 2, total_tokens: 4 };
const choice = (text: string, finish_reason: string | null = null, index = 0): object => ({ index, text, logprobs: null, finish_reason });
const event = (choices: object[], more: object = {}): string =>
  `data: ${JSON.stringify({ id: "cmpl-9", object: "text_completion", created: 5, model: "m", choices, ...more })}\n\n`;

function events(parts: (string | Uint8Array)[]): Response {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const part of parts) controller.enqueue(typeof part === "string" ? encoder.encode(part) : part);
      controller.close();
    },
  });
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}

async function readAll(stream: AsyncIterable<CompletionChunk>): Promise<CompletionChunk[]> {
  const chunks: CompletionChunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const params: CompletionParams = { model: "m", prompt: "hi" };
const ignored = (): void => undefined;

/** Bytes without end. */
function flood(size: number): ReadableStream<Uint8Array> {
  return new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(size).fill(32)) });
}

for (const [name, options] of [
  ["an address without a scheme of the web", { baseURL: "ftp://server.test" }],
  ["an empty key", { apiKey: "" }],
  ["a key in the open", { baseURL: "http://server.test/v1", apiKey: "secret" }],
  ["a key to who looks like this machine", { baseURL: "http://127.evil.test/v1", apiKey: "secret" }],
  ["a password in the address", { baseURL: "https://me:secret@server.test/v1" }],
] satisfies [string, Partial<RemoteOptions>][]) {
  test(`options are checked: ${name}`, () => assert.throws(() => remote(options), TypeError));
}

test("a whole completion: the request as it is, the key, and where it ran", async () => {
  const asked = serve(() => Response.json({ id: "cmpl-9", object: "text_completion", created: 5, model: "m", choices: [{ index: 0, text: "hello", finish_reason: "stop" }], usage }));
  const ends: RequestEnd[] = [];
  const completion = await remote({ apiKey: "secret" }).complete({ ...params, seed: 2n ** 60n, stop: ["x"] }, undefined, (end) => ends.push(end));
  assert.deepEqual(completion.choices, [choice("hello", "stop")]);
  assert.equal(completion.cinderlm.ran_on, "remote");
  assert.equal(completion.cinderlm.device, null);
  const [{ url, init }] = asked as [Asked];
  assert.equal(url, "https://server.test/v1/completions");
  assert.equal((init.headers as Record<string, string>)["authorization"], "Bearer secret");
  assert.equal(init.redirect, "error");
  assert.equal(init.body, '{"model":"m","prompt":"hi","stop":["x"],"seed":1152921504606846976}');
  assert.deepEqual(ends.map(({ outcome, usage }) => ({ outcome, usage })), [{ outcome: "completed", usage }]);
});

test("a query stays with the address and out of errors; a key is allowed to this machine", async () => {
  const asked = serve(() => new Response("no", { status: 500 }));
  await assert.rejects(remote({ baseURL: "https://server.test/v1/?version=SECRET#x" }).complete(params, undefined, ignored), (error: Error) => !error.message.includes("SECRET"));
  await assert.rejects(remote({ baseURL: "http://127.0.0.1:8000/v1", apiKey: "k" }).complete(params, undefined, ignored));
  assert.deepEqual(asked.map(({ url }) => url), ["https://server.test/v1/completions?version=SECRET", "http://127.0.0.1:8000/v1/completions"]);
});

test("integers of any kind reach the server as numbers", async () => {
  const asked = serve(() => new Response("no", { status: 500 }));
  const request = { ...params, n: 1n, max_tokens: 5n, prompt: [1n, 2n], logit_bias: { 7: 1n } } as unknown as CompletionParams;
  await assert.rejects(remote().complete(request, undefined, ignored), { code: "remote_failed" });
  assert.equal(asked[0]?.init.body, '{"model":"m","prompt":[1,2],"n":1,"max_tokens":5,"logit_bias":{"7":1}}');
});

test("what an event stream may hold besides is passed over", async () => {
  serve(() => events(["retry: soon\n\n", "foo: bar\n\n", ": hello\n\n", event([choice("a", "stop")]), "data: [DONE]\n\n"]));
  const chunks = await readAll(await remote().stream({ ...params, stream: true }, undefined, ignored));
  assert.deepEqual(chunks.map(({ choices }) => choices[0]?.text), ["a"]);
});

test("closing ends what runs with the error that it is given", async () => {
  const { response } = endless();
  serve(response);
  const own = remote();
  const ends: RequestEnd[] = [];
  const stream = await own.stream({ ...params, stream: true }, undefined, (end) => ends.push(end));
  await stream.next();
  const gone = new CompletionError(errorBody("internal", "gone"));
  own.close(gone);
  await assert.rejects(readAll(stream), gone);
  await assert.rejects(own.complete(params, undefined, (end) => ends.push(end)), gone);
  assert.deepEqual(ends.map(({ outcome, error }) => [outcome, error]), [["failed", gone], ["failed", gone]]);
});

test("a stream: chunks as they come, the last says where it ran", async () => {
  serve(() => events([event([choice("he")]), event([choice("llo")]), event([choice("", "stop")]), "data: [DONE]\n\n"]));
  const chunks = await readAll(await remote().stream({ ...params, stream: true }, undefined, ignored));
  assert.deepEqual(chunks.map(({ choices }) => choices[0]?.text), ["he", "llo", ""]);
  assert.deepEqual(chunks.map(({ cinderlm }) => cinderlm?.ran_on), [undefined, undefined, "remote"]);
  assert.ok(chunks.every(({ usage, system_fingerprint }) => usage === undefined && system_fingerprint === ""));
});

test("a stream with usage ends with the totals, whether the server sends them or not", async () => {
  const options = { ...params, stream: true, stream_options: { include_usage: true } };
  for (const totals of [[event([], { usage })], []]) {
    serve(() => events([event([choice("hi", "stop")]), ...totals, "data: [DONE]\n\n"]));
    const chunks = await readAll(await remote().stream(options, undefined, ignored));
    assert.deepEqual(chunks.map(({ choices, usage, cinderlm }) => [choices.length, usage, cinderlm?.ran_on]), [
      [1, null, undefined],
      [0, totals.length > 0 ? usage : null, "remote"],
    ]);
  }
});

test("however the server's bytes are cut, the chunks are the same", async () => {
  const texts = fc.array(fc.string({ unit: "grapheme", minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(texts, fc.array(fc.nat(), { maxLength: 12 }), fc.constantFrom("\n\n", "\r\n\r\n"), async (texts, cuts, line) => {
      const all = texts.map((text) => event([choice(text)])).join("") + event([choice("", "length")]) + ": a comment\n\n" + "data: [DONE]\n\n";
      const bytes = new TextEncoder().encode(all.replaceAll("\n\n", line));
      const places = [...new Set([0, ...cuts.map((cut) => cut % bytes.length), bytes.length])].sort((a, b) => a - b);
      serve(() => events(places.slice(1).map((to, i) => bytes.subarray(places[i], to))));
      const chunks = await readAll(await remote().stream({ ...params, stream: true }, undefined, ignored));
      assert.equal(chunks.map(({ choices }) => choices[0]?.text).join(""), texts.join(""));
    }),
    { numRuns: 50 },
  );
});

for (const [name, answer, expected] of [
  ["no server", () => Promise.reject(new TypeError("fetch failed")), [502, "remote_failed", /cannot be reached: fetch failed/]],
  ["a server's own fault", () => new Response("<h1>Bad gateway</h1>", { status: 502 }), [502, "remote_failed", /answered 502: <h1>Bad gateway/]],
  ["a wrong key", () => Response.json({ error: { message: "no such key", type: "auth", code: null } }, { status: 401 }), [401, "invalid_api_key", /no such key/]],
  ["no such model", () => Response.json({ error: { message: "no m", code: "model_not_found", param: "model" } }, { status: 404 }), [404, "model_not_found", /no m/]],
  ["a refused field", () => Response.json({ error: { message: "n is too much", param: "n", code: 400 } }, { status: 400 }), [400, "unsupported_parameter", /n is too much/]],
  ["too many requests", () => Response.json({}, { status: 429, headers: { "retry-after": "7" } }), [429, "queue_full", /answered 429/]],
  ["no JSON", () => new Response("hello"), [502, "remote_failed", /no JSON: hello/]],
  ["JSON that is no completion", () => Response.json({ object: "list" }), [502, "remote_failed", /without choices/]],
  ["a choice too few", () => Response.json({ choices: [] }), [502, "remote_failed", /0 of 1 choices/]],
  ["a code that does not go with its status", () => Response.json({ error: { message: "x", code: "device_lost" } }, { status: 400 }), [400, "unsupported_parameter", /: x/]],
  ["a status that no error has", () => new Response(null, { status: 304 }), [502, "remote_failed", /answered 304/]],
  ["a choice without an end", () => Response.json({ choices: [choice("a")], usage }), [502, "remote_failed", /0 of 1 choices/]],
  ["no usage", () => Response.json({ choices: [choice("a", "stop")] }), [502, "remote_failed", /without usage/]],
  ["usage that counts nothing", () => Response.json({ choices: [choice("a", "stop")], usage: { prompt_tokens: 1, completion_tokens: "5" } }), [502, "remote_failed", /without usage/]],
  ["less than nothing used", () => Response.json({ choices: [choice("a", "stop")], usage: { prompt_tokens: -1, completion_tokens: 5 } }), [502, "remote_failed", /without usage/]],
  ["a choice of nothing", () => Response.json({ choices: [null], usage }), [502, "remote_failed", /index undefined/]],
  ["a choice that was not asked for", () => Response.json({ choices: [choice("a", "stop", 1)], usage }), [502, "remote_failed", /index 1, of 1/]],
  ["a choice twice", () => Response.json({ choices: [choice("a", "stop"), choice("b", "stop")], usage }), [502, "remote_failed", /choice 0 after its end/]],
  ["a text that is none", () => Response.json({ choices: [{ index: 0, text: 42, finish_reason: "stop" }], usage }), [502, "remote_failed", /without text/]],
  ["an end that is none", () => Response.json({ choices: [choice("a", "content_filter")], usage }), [502, "remote_failed", /ended with "content_filter"/]],
  ["logprobs that are none", () => Response.json({ choices: [{ ...choice("a", "stop"), logprobs: { tokens: ["a"], token_logprobs: [], top_logprobs: null, text_offset: [0] } }], usage }), [502, "remote_failed", /logprobs/]],
  ["an answer without end", () => new Response(flood(2 ** 20)), [502, "remote_failed", /more than 67108864 bytes/]],
  ["an error without end", () => new Response(flood(2 ** 16), { status: 500 }), [502, "remote_failed", /answered 500/]],
] as const) {
  test(`${name} is an error that says so`, async () => {
    serve(answer);
    const ends: RequestEnd[] = [];
    await assert.rejects(remote().complete(params, undefined, (end) => ends.push(end)), (error) => {
      assert.ok(error instanceof CompletionError);
      assert.deepEqual([error.status, error.code], expected.slice(0, 2));
      assert.match(error.message, expected[2]);
      assert.match(error.message, /https:\/\/server\.test/);
      if (error.status === 429) assert.equal(error.retry_after, 7);
      return true;
    });
    assert.deepEqual(ends.map(({ outcome }) => outcome), ["failed"]);
  });
}

for (const [name, parts, message, nMore = 0] of [
  ["an error midway", [event([choice("a")]), 'data: {"error":{"message":"out of memory"}}\n\n'], /failed: out of memory/],
  ["an end midway", [event([choice("a")])], /before the completion was whole/],
  ["text after the end of a choice", [event([choice("a", "stop")]), event([choice("b")])], /choice 0 after its end/],
  ["events that do not end", [event([choice("a", "stop")]), ...Array.from({ length: 10 }, () => event([]))], /goes on after the end/, 4],
  ["a line that is no JSON", [event([choice("a")]), "data: {oops\n\n"], /no JSON: \{oops/],
] as [string, string[], RegExp, number?][]) {
  test(`a stream with ${name} gives what came and then fails`, async () => {
    serve(() => events([...parts]));
    const stream = await remote().stream({ ...params, stream: true }, undefined, ignored);
    assert.equal((await stream.next()).value?.choices[0]?.text, "a");
    for (let i = 0; i < nMore; i++) assert.deepEqual((await stream.next()).value?.choices, []);
    await assert.rejects(stream.next(), (error) => error instanceof CompletionError && error.code === "remote_failed" && message.test(error.message));
    assert.equal((await stream.next()).done, true);
  });
}

test("a stream that is no event stream is refused", async () => {
  serve(() => Response.json({ choices: [] }));
  await assert.rejects(remote().stream({ ...params, stream: true }, undefined, ignored), /without an event stream/);
});

/** An endless answer, which counts what is read of it and knows when it was left. */
function endless(): { response: (asked: Asked) => Response; state: { nPulled: number; isLeft: boolean } } {
  const state = { nPulled: 0, isLeft: false };
  const response = ({ init }: Asked): Response => {
    init.signal?.addEventListener("abort", () => (state.isLeft = true));
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (init.signal?.aborted) return controller.error(init.signal.reason);
        state.nPulled += 1;
        controller.enqueue(new TextEncoder().encode(event([choice(`${state.nPulled} `)])));
      },
      cancel: () => void (state.isLeft = true),
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
  return { response, state };
}

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20));

test("a stream that nobody reads is not read from the server, and leaving it ends the request", async () => {
  const { response, state } = endless();
  serve(response);
  const ends: RequestEnd[] = [];
  const stream = await remote().stream({ ...params, stream: true }, undefined, (end) => ends.push(end));
  await settle();
  assert.ok(state.nPulled < 200, `${state.nPulled} events`);
  for await (const chunk of stream) if (chunk.choices[0]?.text === "3 ") break;
  await settle();
  assert.equal(state.isLeft, true);
  assert.deepEqual(ends.map(({ outcome }) => outcome), ["aborted"]);
});

test("an abort rejects the iteration with AbortError and ends the request", async () => {
  const { response, state } = endless();
  serve(response);
  const controller = new AbortController();
  const stream = await remote().stream({ ...params, stream: true }, controller.signal, ignored);
  await stream.next();
  controller.abort();
  await assert.rejects(readAll(stream), { name: "AbortError" });
  await settle();
  assert.equal(state.isLeft, true);
});

test("an abort before the server answers", async () => {
  serve(({ init }) => new Promise((_, reject) => init.signal?.addEventListener("abort", () => reject(init.signal?.reason))));
  for (const stream of [false, true]) {
    const controller = new AbortController();
    const ends: RequestEnd[] = [];
    const call = stream
      ? remote().stream({ ...params, stream }, controller.signal, (end) => ends.push(end))
      : remote().complete(params, controller.signal, (end) => ends.push(end));
    controller.abort("enough");
    await assert.rejects(call, (error: Error) => error.name === "AbortError" && error.cause === "enough");
    assert.deepEqual(ends.map(({ outcome }) => outcome), ["aborted"]);
  }
});
