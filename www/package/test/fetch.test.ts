import assert from "node:assert/strict";
import { test } from "node:test";
import { completionError, CompletionError } from "../src/errors.js";
import { answerFetch, type FetchTarget } from "../src/fetch.js";
import type { CompletionChunk, CompletionParams } from "../src/types.js";

const BASE = "https://anything.test/v1";

/** Answers with what the request held, or streams the texts, and then what `end` throws. */
function target({ texts = ["a", "b"], fails, end }: { texts?: string[]; fails?: Error; end?: Error } = {}) {
  const log: string[] = [];
  const chunks = async function* (signal?: AbortSignal): AsyncIterableIterator<CompletionChunk> {
    try {
      for (const text of texts) {
        if (signal?.aborted) throw new DOMException("stop", "AbortError");
        log.push(`made ${text}`);
        yield { choices: [{ index: 0, text }] } as unknown as CompletionChunk;
      }
      if (end !== undefined) throw end;
    } finally {
      log.push("ended");
    }
  };
  const complete = (params: CompletionParams, { signal }: { signal?: AbortSignal }): Promise<unknown> => {
    if (fails !== undefined) return Promise.reject(fails);
    return Promise.resolve(params.stream === true ? chunks(signal) : { object: "text_completion", params });
  };
  return { log, target: { complete, models: () => [{ id: "tale", loaded: false }, { id: "a/b", loaded: true }] } as unknown as FetchTarget };
}

function ask(from: FetchTarget, path: string, init: RequestInit = {}, keys?: string[]): Promise<Response> {
  return answerFetch(from, keys, new Request(`${BASE}${path}`, init));
}

function post(params: unknown, init: RequestInit = {}): RequestInit {
  return { method: "POST", body: typeof params === "string" ? params : JSON.stringify(params), ...init };
}

test("a completion is JSON", async () => {
  const response = await ask(target().target, "/completions", post({ model: "tale", prompt: "x" }));
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type") ?? "", /application\/json/);
  assert.deepEqual(await response.json(), { object: "text_completion", params: { model: "tale", prompt: "x" } });
});

test("a stream is events, made as they are read, with a closing [DONE]", async () => {
  const { log, target: from } = target();
  const response = await ask(from, "/completions", post({ model: "tale", stream: true }));
  assert.match(response.headers.get("content-type") ?? "", /^text\/event-stream/);
  assert.deepEqual(log, []);
  const events = (await response.text()).split("\n\n").filter((line) => line !== "");
  assert.deepEqual(events.at(-1), "data: [DONE]");
  assert.deepEqual(
    events.slice(0, -1).map((line) => (JSON.parse(line.replace(/^data: /, "")) as CompletionChunk).choices[0]?.text),
    ["a", "b"],
  );
});

test("a stream that fails midway says so in its last event", async () => {
  const end = completionError("device_lost", "gone");
  const response = await ask(target({ texts: ["a"], end }).target, "/completions", post({ model: "tale", stream: true }));
  const events = (await response.text()).split("\n\n").filter((line) => line !== "");
  assert.equal(events.length, 2);
  assert.deepEqual(JSON.parse(events[1]?.replace(/^data: /, "") ?? ""), {
    error: { message: "gone", type: "runtime_error", param: null, code: "device_lost" },
  });
});

test("a reader that leaves ends the stream", async () => {
  const { log, target: from } = target();
  const response = await ask(from, "/completions", post({ model: "tale", stream: true }));
  const reader = response.body?.getReader();
  await reader?.read();
  await reader?.cancel();
  assert.deepEqual(log, ["made a", "ended"]);
});

test("an abort rejects the call, and breaks a body that is being read", async () => {
  const early = answerFetch(target({ fails: new DOMException("stop", "AbortError") }).target, undefined, new Request(`${BASE}/completions`, post({ model: "tale" }, { signal: AbortSignal.abort() })));
  await assert.rejects(early, { name: "AbortError" });
  const controller = new AbortController();
  const response = await ask(target().target, "/completions", post({ model: "tale", stream: true }, { signal: controller.signal }));
  const reader = response.body?.getReader();
  await reader?.read();
  controller.abort();
  await assert.rejects(async () => reader?.read(), { name: "AbortError" });
});

test("models are listed and described", async () => {
  const { target: from } = target();
  const listed = (await (await ask(from, "/models")).json()) as { object: string; data: { id: string; object: string; owned_by: string }[] };
  assert.equal(listed.object, "list");
  assert.deepEqual(listed.data.map(({ id }) => id), ["tale", "a/b"]);
  for (const path of ["/models/a/b", "/models/a%2Fb"]) {
    const one = (await (await ask(from, path)).json()) as { id: string; object: string };
    assert.deepEqual([one.id, one.object], ["a/b", "model"], path);
  }
});

for (const [what, path, init, status, code, param] of [
  ["an unknown model", "/models/saga", {}, 404, "model_not_found", "model"],
  ["another route", "/chat/completions", post({}), 404, "not_found", null],
  ["GET of completions", "/completions", {}, 405, "method_not_allowed", null],
  ["POST of models", "/models", post({}), 405, "method_not_allowed", null],
  ["a body that is no JSON", "/completions", post("{"), 400, "invalid_type", null],
  ["a body that is a list", "/completions", post("[]"), 400, "invalid_type", null],
] as const) {
  test(`${what} is ${status} ${code}, and not to be retried`, async () => {
    const response = await ask(target().target, path, init);
    assert.equal(response.status, status);
    assert.equal(response.headers.get("x-should-retry"), "false");
    const { error } = (await response.json()) as { error: { code: string; param: string | null } };
    assert.deepEqual([error.code, error.param, Object.keys(error)], [code, param, ["message", "type", "param", "code"]]);
  });
}

test("an error of the engine keeps its status, and a full queue says when to try again", async () => {
  const fails = new CompletionError({ status: 429, type: "rate_limit_error", code: "queue_full", param: null, message: "full", retry_after: 1.2 });
  const response = await ask(target({ fails }).target, "/completions", post({ model: "tale" }));
  assert.deepEqual([response.status, response.headers.get("retry-after"), response.headers.get("x-should-retry")], [429, "2", null]);
});

for (const [what, header, status, code] of [
  ["no key", undefined, 401, "missing_api_key"],
  ["another key", "Bearer wrong", 401, "invalid_api_key"],
  ["a key of another scheme", "Basic right", 401, "invalid_api_key"],
  ["a right key", "Bearer right", 200, undefined],
  ["a right key in lower case", "bearer other", 200, undefined],
] as const) {
  test(`where keys are configured, ${what} is ${status}`, async () => {
    const response = await ask(target().target, "/models", header === undefined ? {} : { headers: { authorization: header } }, ["right", "other"]);
    assert.equal(response.status, status);
    const { error } = (await response.json()) as { error?: { code: string } };
    assert.equal(error?.code, code);
  });
}
