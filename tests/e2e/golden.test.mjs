// The real model against float32 references: greedy steps and the scored text, on both devices of both browsers, and on the CPU with threads.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { readFile } from "node:fs/promises";
import { BROWSERS, launch } from "./browsers.mjs";
import { serve } from "./server.mjs";
import { realModel } from "./models.mjs";

const golden = async (name) => JSON.parse(await readFile(new URL(`../golden/smollm2-135m-instruct-q4_1/${name}.json`, import.meta.url), "utf8"));
const greedy = await golden("greedy");
const prose = await golden("scored_prose");
const tokenize = await golden("tokenize");

/** Steps whose two best reference log-probabilities are closer than this may swap. */
const CLEAR_GAP = 0.05;
/** Mean absolute difference of log-probabilities that the scored text may have. */
const MEAN_DIFFERENCE = 0.005;

// Software GPUs take a second for each token, so they get part of the data.
const EXTENT = { cpu: { steps: Infinity, scored: Infinity }, webgpu: { steps: 24, scored: 48 } };

let plain;
let isolated;
before(async () => {
  const files = { "/models/real.gguf": realModel() };
  plain = await serve({ files });
  isolated = await serve({ files, isolated: true });
});
after(() => Promise.all([plain.close(), isolated.close()]));

for (const name of BROWSERS) {
  for (const device of ["cpu", "webgpu"]) describe(`${name}, ${device}`, () => suite(name, device, 1));
}
describe("chromium, cpu with threads", () => suite("chromium", "cpu", 3));

function suite(name, device, threads) {
  const { steps, scored } = EXTENT[device];
  let browser;
  let page;
  before(async () => {
    browser = await launch(name);
    const server = threads > 1 ? isolated : plain;
    page = await browser.newPage(`${server.url}/`);
    const found = await page.evaluate(async (options) => {
      globalThis.cinder = new globalThis.cinderlm.Cinder({ ...options, models: [{ id: "real", url: "/models/real.gguf" }] });
      await globalThis.cinder.load("real");
      return globalThis.cinder.device();
    }, { device, threads });
    assert.deepEqual([found.kind, found.threads], [device, threads]);
  });
  after(() => browser?.close());

  for (const { name: caseName, prompt_ids, fp32_ids, fp32_top5 } of greedy.cases) {
    test(`greedy steps of ${caseName}`, async () => {
      const n = Math.min(steps, fp32_ids.length);
      const { token_logprobs, top_logprobs } = await score(page, [...prompt_ids, ...fp32_ids.slice(0, n)], 1);
      let nClear = 0;
      for (let step = 0; step < n; step += 1) {
        const [[, best], [, second]] = fp32_top5[step];
        if (best - second <= CLEAR_GAP) continue;
        nClear += 1;
        const at = prompt_ids.length + step;
        const likeliest = Math.max(...Object.values(top_logprobs[at]));
        assert.equal(token_logprobs[at], likeliest, `step ${step}: ${JSON.stringify(top_logprobs[at])}`);
      }
      assert.ok(nClear >= n / 2, `${nClear} clear steps of ${n}`);
    });
  }

  test("log-probabilities of the scored text", async () => {
    const ids = prose.ids.slice(0, scored);
    const { token_logprobs } = await score(page, ids, 0);
    assert.equal(token_logprobs.length, ids.length);
    assert.equal(token_logprobs[0], null);
    const differences = token_logprobs.slice(1).map((value, i) => Math.abs(value - prose.fp32_logprobs[i]));
    const mean = differences.reduce((sum, value) => sum + value, 0) / differences.length;
    assert.ok(mean <= MEAN_DIFFERENCE, `mean difference ${mean}`);
  });

  test("every row tokenises exactly, both ways", async () => {
    const wrong = await page.evaluate(async (rows) => {
      const wrong = [];
      for (const { text, ids } of rows) {
        const found = await globalThis.cinder.tokenize("real", text);
        const back = await globalThis.cinder.detokenize("real", ids);
        if (found.join() !== ids.join() || back !== text) wrong.push({ text, ids, found, back });
      }
      return wrong;
    }, tokenize.rows);
    assert.deepEqual(wrong, []);
    assert.deepEqual(page.errors, []);
  });
}

/** Teacher-forced log-probabilities of token ids. */
function score(page, prompt, logprobs) {
  return page.evaluate(
    async ({ prompt, logprobs }) => {
      const { choices } = await globalThis.cinder.complete({ model: "real", prompt, echo: true, max_tokens: 0, logprobs });
      return choices[0].logprobs;
    },
    { prompt, logprobs },
  );
}
