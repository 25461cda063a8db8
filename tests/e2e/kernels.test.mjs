// Every kernel against its reference, in the browser: there CPU kernels use WebAssembly's SIMD, which native builds do not have, and the
// others each browser's own WebGPU.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { BROWSERS, launch } from "./browsers.mjs";
import { serve } from "./server.mjs";

/** The module with both devices, and that of the CPU with threads. */
const FOLDERS = { "/selftest": "CINDERLM_MODULE_SELFTEST", "/selftest-threads": "CINDERLM_MODULE_SELFTEST_THREADS" };
/** What runs: the profile, the module, and threads besides the first. */
const RUNS = [
  ["cpu", "/selftest", 0],
  ["cpu", "/selftest-threads", 0],
  ["cpu", "/selftest-threads", 3],
  ["software", "/selftest", 0],
  ["gpu", "/selftest", 0],
];

let server;
before(async () => {
  const files = Object.entries(FOLDERS).flatMap(([path, variable]) => {
    const folder = process.env[variable];
    if (folder === undefined) throw new Error(`${variable} must name the folder of the kernels' tests, as \`./x test\` does`);
    return readdirSync(folder).map((name) => [`${path}/${name}`, join(folder, name)]);
  });
  server = await serve({ files: Object.fromEntries(files), isolated: true });
});
after(() => server.close());

for (const name of BROWSERS) describe(name, () => suite(name));

function suite(name) {
  let browser;
  before(async () => {
    browser = await launch(name);
  });
  after(() => browser?.close());

  for (const [profile, folder, nHelpers] of RUNS) {
    test(`kernels of ${folder} agree with the reference under the ${profile} profile, with ${nHelpers} helpers`, async () => {
      const page = await browser.newPage(`${server.url}/`);
      const { error, nCases, failures } = await page.evaluate(
        (run) =>
          new Promise((resolve, reject) => {
            const worker = new Worker("/page/selftest-worker.mjs", { type: "module" });
            worker.onmessage = ({ data }) => resolve(data);
            worker.onerror = (event) => reject(new Error(event.message));
            worker.postMessage(run);
          }),
        { folder, profile, nHelpers },
      );
      await page.close();
      assert.equal(error, undefined);
      assert.deepEqual(failures, []);
      assert.ok(nCases > 50, `${nCases} cases`);
    });
  }
}
