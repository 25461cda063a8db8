// Memory: calls leave nothing behind.
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

for (const name of BROWSERS) {
  for (const device of ["cpu", "webgpu"]) {
    test(`${name}, ${device}: fifty completions hold no more than ten`, async () => {
      const browser = await launch(name);
      try {
        const page = await browser.newPage(`${server.url}/`);
        const { kind, early, late } = await page.evaluate(async (device) => {
          const cinder = new globalThis.cinderlm.Cinder({ device, models: [{ id: "tiny", url: "/tiny.gguf" }] });
          const complete = async (times) => {
            for (let i = 0; i < times; i += 1) {
              const params = { model: "tiny", prompt: "and rolled the cinder", max_tokens: 4, seed: i, n: 2, logprobs: 2 };
              for await (const chunk of await cinder.complete({ ...params, stream: true })) if (i % 3 === 1 && chunk.choices.length > 0) break;
            }
            return cinder.memory();
          };
          return { kind: (await cinder.device()).kind, early: await complete(10), late: await complete(40) };
        }, device);
        assert.equal(kind, device);
        assert.ok(early.wasmBytes > 0);
        assert.equal(early.gpuBytes > 0, device === "webgpu");
        assert.deepEqual(late, early);
      } finally {
        await browser.close();
      }
    });
  }
}
