// What bounds a step on a real GPU is how many bytes of weights it reads. Eight choices must read them once, as one choice does.
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { after, before, test } from "node:test";
import { launch } from "./browsers.mjs";
import { realModel } from "./models.mjs";
import { serve } from "./server.mjs";

let server;
let browser;
before(async () => {
  server = await serve({ files: { "/model.gguf": realModel() } });
  browser = await launch("chromium");
});
after(async () => {
  await browser?.close();
  await server?.close();
});

test("a step of eight choices binds the weight bytes of a step of one", async () => {
  const page = await browser.newPage(`${server.url}/`);
  const [one, eight] = await page.evaluate(async () => {
    const cinder = new globalThis.cinderlm.Cinder({ device: "webgpu", workerUrl: "/page/counting-worker.mjs", models: [{ id: "m", url: "/model.gguf" }] });
    await cinder.load("m");
    const channel = new BroadcastChannel("bound-bytes");
    const ask = (type) => {
      const answer = new Promise((resolve) => channel.addEventListener("message", ({ data }) => resolve(data), { once: true }));
      channel.postMessage({ type });
      return answer;
    };
    /** Weight bytes of each step: the prompt's, and then one for the second token of every choice. */
    const count = async (n) => {
      await ask("count");
      await cinder.complete({ model: "m", prompt: "Once", max_tokens: 2, n, seed: 1, logit_bias: { 2: -100 } });
      return ask("tell");
    };
    const counts = [await count(1), await count(8)];
    await cinder.dispose();
    return counts;
  });
  const fileBytes = statSync(realModel()).size;
  for (const { bytes, rest } of [one, eight]) {
    assert.equal(bytes.length, 2, `${bytes.length} answers were read`);
    assert.equal(rest, 0);
    assert.ok(bytes[1] > 0.8 * fileBytes && bytes[1] < 1.1 * fileBytes, `${bytes[1]} of ${fileBytes} bytes`);
  }
  assert.equal(eight.bytes[1], one.bytes[1]);
});
