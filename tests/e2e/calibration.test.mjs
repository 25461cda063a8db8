// A calibration: made once for an adapter and a version, kept beside the models' files, and of no influence on a greedy text.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BROWSERS, launch } from "./browsers.mjs";
import { tinyModel } from "./models.mjs";
import { serve } from "./server.mjs";

let server;
before(async () => {
  server = await serve({ files: { "/tiny.gguf": tinyModel() }, storable: true });
});
after(() => server.close());

for (const name of BROWSERS) {
  test(`${name}: kernels are calibrated once`, async () => {
    const browser = await launch(name);
    try {
      const page = await browser.newPage(`${server.url}/`);
      await page.evaluate(() => {
        /** What the kernels of a fresh instance are, what it writes, and what it warns of. */
        globalThis.run = async (options) => {
          const warnings = [];
          const logger = { debug() {}, info() {}, error() {}, warn: (message) => warnings.push(message) };
          const cinder = new globalThis.cinderlm.Cinder({ device: "webgpu", models: [{ id: "tiny", url: "/tiny.gguf" }], logger, ...options });
          const { kernels } = await cinder.load("tiny");
          const { choices, system_fingerprint } = await cinder.complete({ model: "tiny", prompt: "and rolled the cinder", max_tokens: 24, temperature: 0, logprobs: 1 });
          await cinder.dispose();
          return { kernels, text: choices[0].text, logprobs: choices[0].logprobs.token_logprobs, fingerprint: system_fingerprint, warnings };
        };
        /** The stored file, given other contents if there are any to give. */
        globalThis.kernelsFile = async (contents) => {
          const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("cinderlm");
          const handle = await folder.getFileHandle("kernels.json");
          if (contents !== undefined) {
            const stream = await handle.createWritable();
            await stream.write(contents);
            await stream.close();
          }
          return (await handle.getFile()).text();
        };
      });
      const usual = await page.evaluate(() => globalThis.run({}));
      assert.equal(usual.kernels.origin, "default", "not by itself in software");
      assert.ok(usual.kernels.parameters.linearLanes >= 1);

      const first = await page.evaluate(() => globalThis.run({ calibrate: true }));
      assert.equal(first.kernels.origin, "calibrated");
      const record = JSON.parse(await page.evaluate(() => globalThis.kernelsFile()));
      assert.deepEqual(record.parameters, first.kernels.parameters);
      const second = await page.evaluate(() => globalThis.run({ calibrate: true }));
      assert.deepEqual(second.kernels, { ...first.kernels, origin: "kept" });
      assert.equal(second.fingerprint, first.fingerprint);
      assert.deepEqual(second.logprobs, first.logprobs);
      // The greedy text of random weights has no close calls here.
      for (const { text, logprobs } of [first, second]) {
        assert.equal(text, usual.text);
        for (const [i, logprob] of logprobs.entries()) assert.ok(Math.abs(logprob - usual.logprobs[i]) <= 0.005, `${logprob} and ${usual.logprobs[i]}`);
      }

      // What is kept is used, and a calibration that did not end is made anew, twice.
      const linearTiles = first.kernels.parameters.linearTiles === 16 ? 32 : 16;
      await page.evaluate((contents) => globalThis.kernelsFile(contents), JSON.stringify({ ...record, parameters: { ...record.parameters, linearTiles } }));
      const other = await page.evaluate(() => globalThis.run({ calibrate: true }));
      assert.deepEqual(other.kernels, { origin: "kept", parameters: { ...record.parameters, linearTiles } });
      assert.notEqual(other.fingerprint, first.fingerprint);
      const plain = await page.evaluate(() => globalThis.run({ calibrate: false }));
      assert.deepEqual(plain.kernels, usual.kernels);
      for (const [attempts, origin] of [[2, "calibrated"], [3, "default"]]) {
        await page.evaluate((contents) => globalThis.kernelsFile(contents), JSON.stringify({ ...record, attempts, parameters: null }));
        assert.equal((await page.evaluate(() => globalThis.run({ calibrate: true }))).kernels.origin, origin, `after ${attempts} attempts`);
      }

      // Of another adapter, another version, with parameters that nobody offers, or half a file: as if there were none.
      const others = [{ ...record, adapter: "another" }, { ...record, version: "0.0.0" }, { ...record, parameters: { ...record.parameters, linearTiles: 4096 } }, { ...record, attempts: -1 }, { parameters: 1 }, []];
      for (const contents of [...others.map((other) => JSON.stringify(other)), '{"version":"']) {
        await page.evaluate((contents) => globalThis.kernelsFile(contents), contents);
        const again = await page.evaluate(() => globalThis.run({ calibrate: true }));
        assert.equal(again.kernels.origin, "calibrated", contents);
        assert.equal(again.text, usual.text);
        assert.equal(again.warnings.length, contents.endsWith('"') ? 1 : 0, contents);
      }

      const unkept = await page.evaluate(() => globalThis.run({ calibrate: true, cache: false }));
      assert.equal(unkept.kernels.origin, "calibrated");
      assert.deepEqual(unkept.warnings, []);
      const onCpu = await page.evaluate(() => globalThis.run({ calibrate: true, device: "cpu" }));
      assert.equal(onCpu.kernels, undefined);
    } finally {
      await browser.close();
    }
  });
}
