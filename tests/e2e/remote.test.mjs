// Requests that are handed to a server: the recorded answers of a real one, or with `./x compat` that one itself.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { BROWSERS, launch } from "./browsers.mjs";
import { tinyModel } from "./models.mjs";
import { recordedRequest, remoteServer } from "./replay.mjs";
import { serve } from "./server.mjs";

let server;
let remote;
let dead;
before(async () => {
  server = await serve({ files: { "/tiny.gguf": tinyModel(), "/strange.gguf": Buffer.from("GGUF\x01\0\0\0".padEnd(64, "\0")) } });
  remote = await remoteServer();
  const gone = createServer();
  await new Promise((resolve) => gone.listen(0, "127.0.0.1", resolve));
  dead = `http://127.0.0.1:${gone.address().port}`;
  await new Promise((resolve) => gone.close(resolve));
});
after(async () => {
  await server.close();
  await remote.close();
});

for (const name of BROWSERS) describe(name, () => suite(name));

function suite(name) {
  let browser;
  let page;
  before(async () => {
    browser = await launch(name);
    page = await browser.newPage(`${server.url}/`);
    await page.evaluate(() => {
      globalThis.open = (url, use, options = {}) => {
        globalThis.reports = [];
        return new globalThis.cinderlm.Cinder({
          device: "cpu",
          models: [{ id: "tiny", url: "/tiny.gguf" }, { id: "strange", url: "/strange.gguf" }],
          remote: { baseURL: `${url}/v1`, apiKey: "key-of-the-server", use },
          onUsage: (report) => globalThis.reports.push(report),
          ...options,
        });
      };
      globalThis.local = { model: "tiny", prompt: "A cinder", temperature: 0, max_tokens: 4 };
    });
  });
  after(() => browser?.close());

  test("a completion, which says where it ran, with the key", async () => {
    const { completion, reports, nWorkers } = await page.evaluate(
      async ({ url, request }) => {
        const nBefore = globalThis.workers.length;
        const completion = await globalThis.open(url, "always").complete(request);
        // Objects that are in a result twice do not reach Node twice.
        return { completion, reports: structuredClone(globalThis.reports), nWorkers: globalThis.workers.length - nBefore };
      },
      { url: remote.url, request: recordedRequest("logprobs") },
    );
    assert.equal(completion.choices[0].text, " Paris.\n");
    assert.deepEqual(completion.choices[0].logprobs.tokens, [" Paris", ".", "\n"]);
    assert.deepEqual([completion.cinderlm.ran_on, completion.cinderlm.device, completion.usage.total_tokens], ["remote", null, 8]);
    assert.equal(nWorkers, 0);
    assert.deepEqual(reports.map(({ ran_on, outcome, usage }) => [ran_on, outcome, usage.total_tokens]), [["remote", "completed", 8]]);
    if (!remote.isReal) assert.equal(remote.seen.at(-1).headers.authorization, "Bearer key-of-the-server");
  });

  test("a stream, with usage or without", async () => {
    for (const request of ["a stream", "a stream with usage"]) {
      const chunks = await page.evaluate(
        async ({ url, request }) => {
          const chunks = [];
          for await (const chunk of await globalThis.open(url, "always").complete(request)) chunks.push(chunk);
          return chunks;
        },
        { url: remote.url, request: recordedRequest(request) },
      );
      assert.equal(chunks.map(({ choices }) => choices[0]?.text ?? "").join(""), " Paris.\n-");
      assert.deepEqual(chunks.map(({ cinderlm }) => cinderlm?.ran_on).filter((where) => where !== undefined), ["remote"]);
      assert.equal(chunks.at(-1).cinderlm?.ran_on, "remote");
      assert.equal("usage" in chunks[0], request === "a stream with usage");
    }
  });

  test("a stream that is aborted, and one that is left", async () => {
    const nSeen = remote.seen.length;
    const outcome = await page.evaluate(
      async ({ url, request }) => {
        const cinder = globalThis.open(url, "always");
        const controller = new AbortController();
        const stream = await cinder.complete(request, { signal: controller.signal });
        for (let i = 0; i < 3; i++) await stream.next();
        controller.abort();
        const aborted = await globalThis.settle(stream.next());
        let nChunks = 0;
        for await (const _ of await cinder.complete(request)) if (++nChunks === 3) break;
        while (globalThis.reports.length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
        return { aborted, reports: globalThis.reports };
      },
      { url: remote.url, request: recordedRequest("a long stream") },
    );
    assert.equal(outcome.aborted.error?.name, "AbortError");
    assert.deepEqual(outcome.reports.map(({ outcome }) => outcome), ["aborted", "aborted"]);
    if (remote.isReal) return;
    const isLeft = () => remote.seen.slice(nSeen).every(({ isLeft }) => isLeft);
    while (!isLeft()) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(remote.seen.length - nSeen, 2);
  });

  test("a server that leaves out what was asked for is told", async () => {
    const { whole, streamed } = await page.evaluate(
      async ({ url, requests }) => {
        const cinder = globalThis.open(url, "always");
        const read = async () => {
          for await (const chunk of await cinder.complete(requests[1])) void chunk;
        };
        return { whole: await globalThis.settle(cinder.complete(requests[0])), streamed: await globalThis.settle(read()) };
      },
      { url: remote.url, requests: ["two choices", "a stream of two choices"].map(recordedRequest) },
    );
    assert.deepEqual([whole.error?.code, streamed.error?.code], ["remote_failed", "remote_failed"]);
    assert.match(whole.error.message, /1 of 2 choices/);
  });

  test("clients get the server's answer through fetch too", async () => {
    const { status, body } = await page.evaluate(
      async ({ url, request }) => {
        const cinder = globalThis.open(url, "fallback");
        const response = await cinder.fetch("https://in.this.page/v1/completions", { method: "POST", body: JSON.stringify(request) });
        return { status: response.status, body: await response.json() };
      },
      { url: remote.url, request: recordedRequest("greedy") },
    );
    assert.equal(status, 200);
    assert.equal(body.choices[0].text, " Paris.\n-");
    assert.equal(body.cinderlm.ran_on, "remote");
  });

  test("never asks nobody, fallback runs here what it can, always nothing", async () => {
    const outcome = await page.evaluate(
      async ({ url, request }) => {
        const { settle, local } = globalThis;
        const ran = async (call) => {
          const { value, error } = await settle(call);
          return value?.cinderlm.ran_on ?? error.code;
        };
        const never = globalThis.open(url, "never");
        const fallback = globalThis.open(url, "fallback");
        const unset = globalThis.open(url, undefined);
        const result = {
          never: [await ran(never.complete(local)), await ran(never.complete(request))],
          unset: [await ran(unset.complete(request))],
          fallback: [await ran(fallback.complete(local)), await ran(fallback.complete(request))],
        };
        await Promise.all([never, fallback, unset].map((cinder) => cinder.dispose()));
        return result;
      },
      { url: remote.url, request: recordedRequest("greedy") },
    );
    assert.deepEqual(outcome, { never: ["local", "model_not_found"], unset: ["model_not_found"], fallback: ["local", "remote"] });
  });

  test("a model that this device cannot hold is handed on", async () => {
    const { completion, reports } = await page.evaluate(
      async ({ url, request }) => {
        const cinder = globalThis.open(url, "fallback");
        cinder.register({ id: request.model, url: "/strange.gguf" });
        const completion = await cinder.complete(request);
        await cinder.dispose();
        return { completion, reports: globalThis.reports };
      },
      { url: remote.url, request: recordedRequest("greedy") },
    );
    assert.equal(completion.choices[0].text, " Paris.\n-");
    assert.equal(completion.cinderlm.ran_on, "remote");
    assert.deepEqual(reports.map(({ ran_on, outcome }) => [ran_on, outcome]), [["remote", "completed"]]);
  });

  test("a dead server is a clear error, and with fallback the local model keeps answering", async () => {
    const outcome = await page.evaluate(
      async ({ dead, request }) => {
        const { settle, local } = globalThis;
        const fallback = globalThis.open(dead, "fallback");
        const results = [];
        for (const params of [local, request, local, { ...request, stream: true }, local]) results.push(await settle(fallback.complete(params)));
        await fallback.dispose();
        return results;
      },
      { dead, request: recordedRequest("greedy") },
    );
    for (const i of [0, 2, 4]) assert.equal(outcome[i].value?.cinderlm.ran_on, "local");
    for (const i of [1, 3]) {
      assert.deepEqual([outcome[i].error?.status, outcome[i].error?.code], [502, "remote_failed"]);
      assert.ok(outcome[i].error.message.includes(`${dead}/v1/completions cannot be reached`), outcome[i].error.message);
    }
  });
}
