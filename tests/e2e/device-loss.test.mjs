// A GPU device that is lost ends the calls that run, and the next call works on another.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BROWSERS, launch } from "./browsers.mjs";
import { tinyModel } from "./models.mjs";
import { serve } from "./server.mjs";

let server;
before(async () => {
  server = await serve({ files: { "/tiny.gguf": tinyModel() } });
});
after(() => server.close());

/** Loses the device in the middle of a stream, in the way `lose` does it. */
async function check(name, workerUrl, lose) {
  const browser = await launch(name);
  try {
    const page = await browser.newPage(`${server.url}/`);
    await page.expose("lose", () => lose(browser, page));
    const { lost, waiting, again, device } = await page.evaluate(async (workerUrl) => {
      const { Cinder } = globalThis.cinderlm;
      const cinder = new Cinder({ device: "webgpu", models: [{ id: "tiny", url: "/tiny.gguf" }], ...(workerUrl === undefined ? {} : { workerUrl }) });
      const params = { model: "tiny", prompt: "A cinder slept", temperature: 0, max_tokens: 200, logit_bias: { 2: -100 } };
      const stream = await cinder.complete({ ...params, stream: true });
      await stream.next();
      const waiting = globalThis.settle(cinder.complete(params));
      await globalThis.lose();
      const lost = await globalThis.settle((async () => {
        for await (const chunk of stream) void chunk;
      })());
      const again = await globalThis.settle(cinder.complete({ ...params, max_tokens: 4 }));
      const device = await cinder.device();
      await cinder.dispose();
      return { lost, waiting: await waiting, again, device };
    }, workerUrl);
    for (const { error } of [lost, waiting]) {
      assert.deepEqual([error?.name, error?.status, error?.type, error?.code], ["CompletionError", 500, "runtime_error", "device_lost"], error?.message);
    }
    assert.equal(again.error, undefined);
    assert.equal(again.value.usage.completion_tokens, 4);
    assert.equal(device.kind, "webgpu");
  } finally {
    await browser.close();
  }
}

for (const name of BROWSERS) {
  test(`${name}: a destroyed device is lost, and the next call has another`, () =>
    check(name, "/page/fragile-worker.mjs", (_, page) => page.evaluate(() => new BroadcastChannel("destroy").postMessage(""))));
}

test("chromium: the GPU process crashes, and the next call has another", () => check("chromium", undefined, (browser) => browser.crashGpu()));
