// The ground the other tests stand on: each browser has WebGPU, in software, in a dedicated worker.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BROWSERS, launch } from "./browsers.mjs";
import { serve } from "./server.mjs";

/** Firefox keeps its adapters' names to itself; there, VK_ICD_FILENAMES leaves it no choice. */
const ADAPTERS = { chromium: /swiftshader/i, firefox: /^ *$/ };

let server;
before(async () => {
  server = await serve();
});
after(() => server.close());

for (const name of BROWSERS) {
  test(`${name} computes on a software WebGPU adapter in a worker`, async () => {
    const browser = await launch(name);
    try {
      const page = await browser.newPage(`${server.url}/`);
      const reply = await page.evaluate(
        () =>
          new Promise((resolve, reject) => {
            const worker = new Worker("/page/probe-worker.mjs", { type: "module" });
            worker.onmessage = ({ data }) => resolve(data);
            worker.onerror = (event) => reject(new Error(event.message));
          }),
      );
      assert.equal(reply.error, undefined);
      assert.match(reply.value.name, ADAPTERS[name]);
      assert.ok(reply.value.fallback, "a software adapter says so");
      assert.equal(reply.value.sum, 42);
      assert.ok(reply.value.timestamps, "the GPU runtime needs timestamp-query");
    } finally {
      await browser.close();
    }
  });
}
