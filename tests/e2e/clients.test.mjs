// Code written for a hosted completion API runs against `cinder.fetch` unchanged: clients that others wrote, unpatched, in the browser.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { readFileSync } from "node:fs";
import { build } from "esbuild";
import { fileURLToPath } from "node:url";
import { launch } from "./browsers.mjs";
import { tinyModel } from "./models.mjs";
import { serve } from "./server.mjs";

const POEM = JSON.parse(readFileSync(tinyModel().replace(/gguf$/, "json"), "utf8")).greedy[0].text;
const START = "A cinder slept";

describe("clients", () => {
  let server;
  let browser;
  let page;

  before(async () => {
    const bundled = await build({
      entryPoints: [fileURLToPath(new URL("clients/entry.mjs", import.meta.url))],
      bundle: true,
      format: "esm",
      platform: "browser",
      write: false,
      // LangChain asks for the environment of Node.
      define: { "process.env": "{}" },
      logLevel: "error",
    });
    server = await serve({ files: { "/tiny.gguf": tinyModel(), "/clients.js": Buffer.from(bundled.outputFiles[0].contents) } });
    browser = await launch("chromium");
    page = await browser.newPage(`${server.url}/`);
    await page.evaluate(async () => {
      await import("/clients.js");
      const { Cinder } = globalThis.cinderlm;
      const models = [{ id: "tiny", url: "/tiny.gguf" }];
      globalThis.cinder = new Cinder({ device: "cpu", models });
      globalThis.locked = new Cinder({ device: "cpu", models, apiKeys: ["right"] });
      globalThis.baseURL = "https://nowhere.invalid/v1";
      globalThis.openai = (cinder, apiKey = "none") =>
        new globalThis.clients.OpenAI({ baseURL: globalThis.baseURL, apiKey, fetch: cinder.fetch, dangerouslyAllowBrowser: true });
      globalThis.greedy = { model: "tiny", prompt: "<|endoftext|>A cinder slept", temperature: 0, max_tokens: 12 };
      /** What a client's error shows. */
      globalThis.clientError = async (promise) => {
        const error = await promise.then(
          () => undefined,
          (error) => error,
        );
        return error && { type: error.constructor.name, status: error.status, code: error.code, param: error.param, kind: error.type, message: error.message };
      };
    });
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  const isPoem = (text) => assert.ok(text.length > 10 && POEM.startsWith(START + text), JSON.stringify(text));

  test("openai: a completion", async () => {
    const completion = await page.evaluate(() => globalThis.openai(globalThis.cinder).completions.create({ ...globalThis.greedy, n: 2, logprobs: 1 }));
    assert.equal(completion.object, "text_completion");
    assert.equal(completion.choices.length, 2);
    completion.choices.forEach(({ text }) => isPoem(text));
    assert.equal(completion.usage.completion_tokens, 24);
    assert.equal(completion.choices[0].logprobs.tokens.length, 12);
  });

  test("openai: a stream, left early, and another", async () => {
    const { parts, left } = await page.evaluate(async () => {
      const client = globalThis.openai(globalThis.cinder);
      let left = 0;
      for await (const _ of await client.completions.create({ ...globalThis.greedy, max_tokens: 200, logit_bias: { 2: -100 }, stream: true })) {
        if (++left === 3) break;
      }
      const parts = [];
      const options = { stream: true, stream_options: { include_usage: true } };
      for await (const chunk of await client.completions.create({ ...globalThis.greedy, ...options })) parts.push(chunk);
      return { parts, left };
    });
    assert.equal(left, 3);
    isPoem(parts.map(({ choices }) => choices[0]?.text ?? "").join(""));
    assert.equal(parts.at(-1).usage.completion_tokens, 12);
  });

  test("openai: error classes", async () => {
    const errors = await page.evaluate(async () => {
      const { cinder, locked, openai, greedy, clientError } = globalThis;
      return {
        request: await clientError(openai(cinder).completions.create({ ...greedy, n: 0 })),
        model: await clientError(openai(cinder).completions.create({ ...greedy, model: "saga" })),
        key: await clientError(openai(locked, "wrong").completions.create(greedy)),
        chat: await clientError(openai(cinder).chat.completions.create({ model: "tiny", messages: [{ role: "user", content: "hi" }] })),
        right: await clientError(openai(locked, "right").completions.create(greedy)),
      };
    });
    const shown = ({ type, status, code, param, kind }) => [type, status, code, param, kind];
    assert.deepEqual(shown(errors.request), ["BadRequestError", 400, "out_of_range", "n", "invalid_request_error"]);
    assert.deepEqual(shown(errors.model), ["NotFoundError", 404, "model_not_found", "model", "invalid_request_error"]);
    assert.deepEqual(shown(errors.key), ["AuthenticationError", 401, "invalid_api_key", null, "authentication_error"]);
    assert.deepEqual(shown(errors.chat), ["NotFoundError", 404, "not_found", null, "invalid_request_error"]);
    assert.equal(errors.right, undefined);
  });

  test("openai: abort, whole and in a stream", async () => {
    const errors = await page.evaluate(async () => {
      const { cinder, openai, greedy, clientError } = globalThis;
      const params = { ...greedy, max_tokens: 200, n: 32, logit_bias: { 2: -100 } };
      const whole = new AbortController();
      setTimeout(() => whole.abort(), 10);
      const first = await clientError(openai(cinder).completions.create(params, { signal: whole.signal }));
      const stream = await openai(cinder).completions.create({ ...params, stream: true });
      let n = 0;
      for await (const _ of stream) if (++n === 2) stream.controller.abort();
      return { first, n };
    });
    assert.equal(errors.first?.type, "APIUserAbortError");
    assert.ok(errors.n < 20, `${errors.n} chunks after an abort`);
  });

  test("openai: models", async () => {
    const { ids, one } = await page.evaluate(async () => {
      const { models } = globalThis.openai(globalThis.cinder);
      const ids = [];
      for await (const { id } of models.list()) ids.push(id);
      return { ids, one: await models.retrieve("tiny") };
    });
    assert.deepEqual(ids, ["tiny"]);
    assert.deepEqual([one.id, one.object, one.owned_by], ["tiny", "model", "cinderlm"]);
  });

  test("AI SDK: generateText and streamText on the completion model", async () => {
    const { whole, streamed, usage, error } = await page.evaluate(async () => {
      const { createOpenAICompatible, generateText, streamText } = globalThis.clients;
      const provider = createOpenAICompatible({ name: "cinderlm", baseURL: globalThis.baseURL, fetch: globalThis.cinder.fetch, includeUsage: true });
      const options = { model: provider.completionModel("tiny"), prompt: "A cinder slept", temperature: 0, maxOutputTokens: 12 };
      const whole = await generateText(options);
      const stream = streamText(options);
      let streamed = "";
      for await (const part of stream.textStream) streamed += part;
      const failed = generateText({ ...options, model: provider.completionModel("saga") });
      const error = await failed.then(
        () => undefined,
        ({ name, statusCode, isRetryable }) => ({ name, statusCode, isRetryable }),
      );
      return { whole: whole.text, streamed, usage: whole.usage.outputTokens, error };
    });
    assert.ok(whole.length > 0);
    assert.equal(streamed, whole);
    assert.ok(usage > 0);
    assert.deepEqual(error, { name: "AI_APICallError", statusCode: 404, isRetryable: false });
  });

  test("LangChain: invoke and stream of the completion class", async () => {
    const { whole, streamed } = await page.evaluate(async () => {
      const { LangChainOpenAI } = globalThis.clients;
      const configuration = { baseURL: globalThis.baseURL, fetch: globalThis.cinder.fetch, dangerouslyAllowBrowser: true };
      const llm = new LangChainOpenAI({ model: "tiny", apiKey: "none", temperature: 0, maxTokens: 12, configuration });
      const whole = await llm.invoke(globalThis.greedy.prompt);
      let streamed = "";
      for await (const part of await llm.stream(globalThis.greedy.prompt)) streamed += part;
      return { whole, streamed };
    });
    isPoem(whole);
    assert.equal(streamed, whole);
  });
});
