// Every kernel against its reference, in the browser: there CPU kernels use WebAssembly's SIMD, which native builds do not have, and the
// others each browser's own WebGPU.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { BROWSERS, launch } from "./browsers.mjs";
import { serve } from "./server.mjs";

/** The module of each device, and that of the CPU with threads. */
const FOLDERS = { "/selftest-webgpu": "CINDERLM_MODULE_SELFTEST_WEBGPU", "/selftest-cpu": "CINDERLM_MODULE_SELFTEST_CPU", "/selftest-threads": "CINDERLM_MODULE_SELFTEST_THREADS" };
/** What runs: the profile, the module, and threads besides the first. */
const RUNS = [
  ["cpu", "/selftest-cpu", 0],
  ["cpu", "/selftest-threads", 0],
  ["cpu", "/selftest-threads", 3],
  ["software", "/selftest-webgpu", 0],
  ["gpu", "/selftest-webgpu", 0],
];

/** Cases that one worker runs. */
const PIECE = 6;
/** How long they may take: many times what they do. */
const PIECE_MILLIS = 300_000;

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

  /** What came of the cases from `first` on; undefined if nothing did for long. */
  async function runPiece(run, first) {
    const page = await browser.newPage(`${server.url}/`);
    const outcome = page.evaluate(
      (run) =>
        new Promise((resolve, reject) => {
          const begin = (script, message) => {
            const worker = new Worker(script, { type: "module" });
            worker.onerror = (event) => reject(new Error(event.message));
            worker.postMessage(message);
            return worker;
          };
          begin("/page/selftest-worker.mjs", run).onmessage = ({ data }) => {
            if (data.start === undefined) return resolve(data);
            for (let i = 0; i < run.nHelpers; i += 1) begin("/page/selftest-thread.mjs", data.start);
          };
        }),
      { ...run, first, end: first + PIECE },
    );
    let timer;
    const late = new Promise((resolve) => (timer = setTimeout(resolve, PIECE_MILLIS)));
    const done = await Promise.race([outcome, late]);
    clearTimeout(timer);
    if (done === undefined) outcome.catch(() => undefined); // Its browser is about to be closed.
    else await page.close();
    return done;
  }

  /**
   * As {@link runPiece}. Firefox 153 on lavapipe at times never finishes mapping a buffer, with idle cores, and stops the timers of that worker: there the piece
   * is run once more, in a fresh browser.
   */
  async function finishPiece(run, first) {
    let outcome = await runPiece(run, first);
    if (outcome === undefined && name === "firefox" && run.profile !== "cpu") {
      console.log(`# firefox stopped within the cases from ${first} on, under the ${run.profile} profile`);
      await browser.close();
      browser = await launch(name);
      outcome = await runPiece(run, first);
    }
    return outcome ?? assert.fail(`no answer in ${PIECE_MILLIS / 1000} s`);
  }

  for (const [profile, folder, nHelpers] of RUNS) {
    test(`kernels of ${folder} agree with the reference under the ${profile} profile, with ${nHelpers} helpers`, async () => {
      let count = PIECE;
      for (let first = 0; first < count; first += PIECE) {
        const { error, nCases, failures } = await finishPiece({ folder, profile, nHelpers }, first);
        assert.equal(error, undefined);
        assert.deepEqual(failures, []);
        assert.ok(nCases > 50, `${nCases} cases`);
        count = nCases;
      }
    });
  }
}
