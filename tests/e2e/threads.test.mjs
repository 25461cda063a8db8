// The CPU's threads: in pages that are cross-origin isolated, and what takes their place elsewhere and where they fail.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { BROWSERS, launch } from "./browsers.mjs";
import { tinyModel } from "./models.mjs";
import { dist, serve } from "./server.mjs";

/** A thread that says that it is ready, and fails a little later. */
const FAILING = 'addEventListener("message", () => { postMessage("ready"); setTimeout(() => { throw new Error("the thread broke"); }, 200); });';

let isolated;
let plain;
before(async () => {
  const files = {
    "/tiny.gguf": tinyModel(),
    "/failing/worker.js": join(dist, "worker.js"),
    "/failing/thread.js": Buffer.from(FAILING),
    "/failing/cinderlm-cpu-threads.wasm": join(dist, "cinderlm-cpu-threads.wasm"),
  };
  isolated = await serve({ files, isolated: true });
  plain = await serve({ files });
});
after(() => Promise.all([isolated.close(), plain.close()]));

for (const name of BROWSERS) describe(name, () => suite(name));

function suite(name) {
  let browser;
  before(async () => {
    browser = await launch(name);
  });
  after(() => browser?.close());

  /** Completes in a fresh page; resolves to what came out, and the modules and threads that were asked for. */
  async function complete(server, options) {
    const page = await browser.newPage(`${server.url}/`);
    const before = server.requests.length;
    const result = await page.evaluate(completeInPage, options);
    await page.close();
    const asked = server.requests.slice(before).map(({ path }) => path);
    return { ...result, modules: asked.filter((path) => path.endsWith(".wasm")), nThreadFiles: asked.filter((path) => path === "/dist/thread.js").length };
  }

  test("an isolated page uses threads, which change no bit", async () => {
    const alone = await complete(plain, {});
    assert.deepEqual([alone.device.threads, alone.modules, alone.nThreadFiles], [1, ["/dist/cinderlm-cpu.wasm"], 0]);
    assert.match(alone.device.reason, /not cross-origin isolated/);
    for (const threads of [2, 3, undefined]) {
      const together = await complete(isolated, { threads });
      assert.deepEqual(together.modules, ["/dist/cinderlm-cpu-threads.wasm"]);
      assert.equal(together.device.threads, threads ?? Math.min(together.nCores, 8));
      assert.match(together.device.reason, new RegExp(`It has ${together.device.threads} threads`));
      assert.deepEqual(together.choices, alone.choices);
      assert.deepEqual(together.warnings, []);
    }
  });

  test("one thread takes the module without threads", async () => {
    const { device, modules, nThreadFiles } = await complete(isolated, { threads: 1 });
    assert.deepEqual([device.threads, modules, nThreadFiles], [1, ["/dist/cinderlm-cpu.wasm"], 0]);
  });

  test("a thread that cannot start is done without", async () => {
    isolated.fault("/dist/thread.js", { status: 404 });
    const alone = await complete(isolated, { threads: 3 });
    assert.deepEqual([alone.device.threads, alone.modules], [1, ["/dist/cinderlm-cpu-threads.wasm", "/dist/cinderlm-cpu.wasm"]]);
    assert.match(alone.device.reason, /thread\.js/);
    assert.equal(alone.warnings.length, 1);
    isolated.clearFaults();
    isolated.fault("/dist/thread.js", { status: 404, times: 1 });
    const fewer = await complete(isolated, { threads: 3 });
    assert.deepEqual([fewer.device.threads, fewer.choices], [2, alone.choices]);
    assert.match(fewer.warnings.join(), /on 2 threads and not on 3/);
  });

  test("a module with threads that cannot be had is done without", async () => {
    isolated.fault("/dist/cinderlm-cpu-threads.wasm", { status: 404 });
    const { device, warnings } = await complete(isolated, { threads: 2 });
    assert.equal(device.threads, 1);
    assert.match(warnings.join(), /404/);
    isolated.clearFaults();
  });

  test("a thread that fails fails what runs, and the next call starts afresh", async () => {
    const page = await browser.newPage(`${isolated.url}/`);
    const { first, second } = await page.evaluate(async () => {
      const { Cinder } = globalThis.cinderlm;
      const cinder = new Cinder({ device: "cpu", threads: 2, models: [{ id: "tiny", url: "/tiny.gguf" }], workerUrl: "/failing/worker.js" });
      const params = { model: "tiny", prompt: "A cinder slept", max_tokens: 200, logit_bias: { 0: -100 } };
      const until = async () => {
        for (;;) await cinder.complete(params);
      };
      return { first: await globalThis.settle(until()), second: (await globalThis.settle(cinder.device())).value };
    });
    assert.equal(first.error.code, "internal");
    assert.match(first.error.message, /the thread broke/);
    assert.equal(second.threads, 2);
    await page.close();
  });

  if (name === "chromium") {
    test("no worker outlives dispose, nor the page's leaving", async () => {
      const page = await browser.newPage(`${isolated.url}/`);
      const empty = await browser.countWorkers();
      await page.evaluate(async () => {
        globalThis.cinder = new globalThis.cinderlm.Cinder({ device: "cpu", threads: 4, models: [{ id: "tiny", url: "/tiny.gguf" }] });
        await globalThis.cinder.load("tiny");
      });
      assert.equal(await browser.countWorkers(), empty + 4);
      await page.evaluate(() => globalThis.cinder.dispose());
      await until(async () => (await browser.countWorkers()) === empty);
      await page.close();
    });
  }
}

/** Waits until something holds; the test's own time limit ends it. */
async function until(holds) {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 50));
}

/** Runs in the page. */
async function completeInPage(options) {
  const warnings = [];
  const logger = { ...console, info: () => undefined, warn: (message) => warnings.push(message) };
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null && value !== undefined));
  const cinder = new globalThis.cinderlm.Cinder({ device: "cpu", cache: false, logger, models: [{ id: "tiny", url: "/tiny.gguf" }], ...given });
  const device = await cinder.device();
  const prompt = "A cinder slept ".repeat(20);
  const { choices } = await cinder.complete({ model: "tiny", prompt, temperature: 0, max_tokens: 12, logprobs: 3, echo: true });
  await cinder.dispose();
  return { device, choices, warnings, nCores: navigator.hardwareConcurrency };
}
