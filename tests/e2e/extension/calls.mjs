// Calls of pages that the user allowed, and of other extensions.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { stopBackground } from "./driver.mjs";
import { allow, bridges, browser, open, PARAMS, POEM, revoke, server } from "./stage.mjs";
import { until } from "./until.mjs";

export function callTests() {
  describe("for pages", () => {
    const INVALID = { name: "CompletionError", status: 401, code: "invalid_api_key" };
    const openCaller = (origin, use) =>
      open(`${origin}/caller.html`, async (page) => {
        await page.waitForFunction(() => globalThis.isReady);
        await use(page);
      });

    test("an allowed page completes with its key, and others do not", async () => {
      const other = server.url.replace("localhost", "127.0.0.1");
      const key = await allow(server.url);
      const otherKey = await allow(other);
      await until("the bridges", async () => (await bridges()).length === 2);
      await openCaller(server.url, async (page) => {
        const ask = (key, params = PARAMS) => page.evaluate(([key, params]) => globalThis.complete(key, params), [key, params]);
        assert.equal(await ask(key), POEM);
        assert.equal(await page.evaluate(([key, params]) => globalThis.streamed(key, params), [key, PARAMS]), POEM);
        assert.deepEqual(await ask(undefined), { ...INVALID, code: "missing_api_key" });
        for (const wrong of ["", "ck-wrong", otherKey]) assert.deepEqual(await ask(wrong), INVALID, wrong);
        assert.deepEqual(await ask(key, { n: 0 }), { name: "CompletionError", status: 400, code: "out_of_range" });
        assert.deepEqual(await ask(key, { nothing: 0 }), { name: "CompletionError", status: 400, code: "unknown_parameter" });
        const big = await page.evaluate(([key, params]) => globalThis.complete(key, { ...params, seed: 2n ** 62n }), [key, PARAMS]);
        assert.equal(big, POEM);
        await revoke(server.url);
        assert.deepEqual(await ask(key), INVALID);
      });
      await until("the bridge to leave", async () => (await bridges()).join() === `${other}/*`);
      await openCaller(server.url, async (page) => {
        const answer = await page.evaluate((key) => globalThis.complete(key, {}), key);
        assert.deepEqual(answer, { name: "CompletionError", status: 404, code: "not_found" });
      });
      await revoke(other);
    });

    test("a call counts for the page's origin, whoever the page says it is, and ends when it is aborted or left", async () => {
      const key = await allow(server.url);
      await until("the bridge", async () => (await bridges()).length === 1);
      await openCaller(server.url, async (page) => {
        // Streams that nobody reads stay open.
        const start = (user) =>
          page.evaluate(async ([key, params, user]) => {
            globalThis.streams ??= [];
            globalThis.controller ??= new AbortController();
            const { signal } = globalThis.controller;
            try {
              globalThis.streams.push(await globalThis.connect({ key }).complete({ ...params, user, n: 2, stream: true }, { signal }));
              return "taken";
            } catch ({ code }) {
              return code;
            }
          }, [key, PARAMS, user]);
        for (const user of ["a", "b", "c", "d"]) assert.equal(await start(user), "taken");
        assert.equal(await start("e"), "user_limit");
        await page.evaluate(() => globalThis.streams[0].return());
        await until("the place of the one that was left", async () => (await start("f")) === "taken");
        const aborted = await page.evaluate(async () => {
          globalThis.controller.abort();
          return globalThis.streams[1].next().catch(({ name }) => name);
        });
        assert.equal(aborted, "AbortError");
      });
      await revoke(server.url);
    });

    test("a stream goes on when the browser stops the background, and ends when its key is revoked", async () => {
      const key = await allow(server.url);
      await until("the bridge", async () => (await bridges()).length === 1);
      await openCaller(server.url, async (page) => {
        // More chunks than may be on their way: the stream stands still until it is read.
        const begin = (more = {}) =>
          page.evaluate(async ([key, params]) => {
            globalThis.stream = await globalThis.connect({ key }).complete({ ...params, stream: true });
            return (await globalThis.stream.next()).value.choices[0].text;
          }, [key, { ...PARAMS, ...more }]);
        let text = await begin();
        await stopBackground(browser);
        text += await page.evaluate(async () => {
          let rest = "";
          for await (const chunk of globalThis.stream) rest += chunk.choices[0]?.text ?? "";
          return rest;
        });
        assert.equal(text, POEM);

        await begin({ n: 8 });
        await revoke(server.url);
        // Read slowly: there is more to come than can be read before the host hears of it.
        const read = () => page.evaluate(() => globalThis.stream.next().then(({ done }) => done && "its end", ({ code }) => code));
        assert.equal(await until("the end of the stream", read), "invalid_api_key");
      });
    });
  });

  test("another extension completes with its key, and a third with that one does not", async () => {
    const [first, second] = await browser.callers();
    const ask = ({ page }, key, params = PARAMS) => page.evaluate(([id, key, params]) => globalThis.complete(id, key, params), [browser.id, key, params]);
    const refused = { name: "CompletionError", status: 401, code: "invalid_api_key" };
    assert.deepEqual(await ask(first, "ck-none"), refused);
    const key = await allow(first.id);
    assert.equal(await ask(first, key), POEM);
    assert.equal(await ask(first, key, { ...PARAMS, stream: true }), POEM);
    assert.deepEqual(await ask(first, undefined), { ...refused, code: "missing_api_key" });
    assert.deepEqual(await ask(second, key), refused);
    await revoke(first.id);
    assert.deepEqual(await ask(first, key), refused);
    for (const { page } of [first, second]) await page.close();
  });
}
