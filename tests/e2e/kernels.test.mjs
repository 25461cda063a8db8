// Every kernel against its reference, in the browser: there CPU kernels use WebAssembly's SIMD, which native builds do not have, and the
// others each browser's own WebGPU.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { BROWSERS, launch } from "./browsers.mjs";
import { serve } from "./server.mjs";

let server;
before(async () => {
  const folder = process.env.CINDERLM_MODULE_SELFTEST;
  if (folder === undefined) throw new Error("CINDERLM_MODULE_SELFTEST must name the folder of the kernels' tests, as `./x test` does");
  const files = readdirSync(folder).map((name) => [`/selftest/${name}`, join(folder, name)]);
  server = await serve({ files: Object.fromEntries(files) });
});
after(() => server.close());

for (const name of BROWSERS) describe(name, () => suite(name));

function suite(name) {
  let browser;
  before(async () => {
    browser = await launch(name);
  });
  after(() => browser?.close());

  for (const profile of ["cpu", "software", "gpu"]) {
    test(`kernels agree with the reference under the ${profile} profile`, async () => {
      const page = await browser.newPage(`${server.url}/`);
      const { error, nCases, failures } = await page.evaluate(
        (profile) =>
          new Promise((resolve, reject) => {
            const worker = new Worker("/page/selftest-worker.mjs", { type: "module" });
            worker.onmessage = ({ data }) => resolve(data);
            worker.onerror = (event) => reject(new Error(event.message));
            worker.postMessage(profile);
          }),
        profile,
      );
      await page.close();
      assert.equal(error, undefined);
      assert.deepEqual(failures, []);
      assert.ok(nCases > 50, `${nCases} cases`);
    });
  }
}
