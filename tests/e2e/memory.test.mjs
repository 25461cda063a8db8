// Memory: calls leave nothing behind, and a model takes little more than its file.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BROWSERS, launch } from "./browsers.mjs";
import { statSync } from "node:fs";
import { realModel, tinyModel } from "./models.mjs";
import { serve } from "./server.mjs";

let server;
before(async () => {
  server = await serve({ files: { "/tiny.gguf": tinyModel(), "/real.gguf": realModel() } });
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

/**
 * Sizes of the file that the page's process and the GPU's may hold besides what an empty page takes. The aim is 2 on both. On WebGPU in
 * software, which keeps buffers in the GPU process, 1 is the weights, 0.5 the module, 0.2 the page's and the worker's own, 0.3 Dawn's
 * staging buffers and heaps, 0.3 what SwiftShader's compiler makes.
 */
const MOST_FILE_SIZES = { cpu: 2, webgpu: 2.75 };

test("loading a model and completing holds little more than its file", async () => {
  const empty = await peak((browser) => browser.newEmptyPage());
  for (const [device, most] of Object.entries(MOST_FILE_SIZES)) {
    const bytes = await peak(async (browser) => {
      const page = await browser.newPage(`${server.url}/`);
      const { error } = await page.evaluate((device) => {
        globalThis.cinder = new globalThis.cinderlm.Cinder({ device, models: [{ id: "real", url: "/real.gguf" }] });
        return globalThis.settle(globalThis.cinder.complete({ model: "real", prompt: "The capital of France is", max_tokens: 8 }));
      }, device);
      assert.equal(error, undefined);
      return page;
    });
    const sizes = (bytes - empty) / statSync(realModel()).size;
    assert.ok(sizes > 1 && sizes <= most, `${device}: ${sizes.toFixed(2)} times the file, at most ${most} are allowed`);
    console.log(`# ${device}: ${sizes.toFixed(2)} times the file`);
  }
});

/** The most memory that a fresh Chromium held for the page that `use` gives back. */
async function peak(use) {
  const browser = await launch("chromium");
  try {
    return await browser.peakBytes(await use(browser));
  } finally {
    await browser.close();
  }
}
