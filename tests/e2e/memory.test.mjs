// Memory: what a load takes at its peak, and that calls leave nothing behind.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { BROWSERS, launch } from "./browsers.mjs";
import { realModel, tinyModel } from "./models.mjs";
import { serve } from "./server.mjs";

/** Peak resident memory of a load and a short completion, over that of an empty page, in sizes of the model file. */
const PEAK_LIMIT = 2;

let server;
before(async () => {
  server = await serve({ files: { "/real.gguf": realModel(), "/tiny.gguf": tinyModel() } });
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

for (const device of ["cpu", "webgpu"]) {
  test(`${device}: loading takes at most ${PEAK_LIMIT} times the file`, async () => {
    const idle = await peakBytes(() => undefined);
    const peak = await peakBytes((page) =>
      page.evaluate(async (device) => {
        const cinder = new globalThis.cinderlm.Cinder({ device, models: [{ id: "real", url: "/real.gguf" }] });
        await cinder.complete({ model: "real", prompt: "The capital of France is", max_tokens: 2 });
      }, device),
    );
    const share = (peak - idle) / statSync(realModel()).size;
    console.log(`${device}: peak ${(peak / 2 ** 20).toFixed(0)} MiB, idle ${(idle / 2 ** 20).toFixed(0)} MiB, ${share.toFixed(2)} times the file`);
    assert.ok(share <= PEAK_LIMIT, `${share} times the file`);
  });
}

/** Sum of the peaks of Chromium's renderer and GPU processes while `act` runs. */
async function peakBytes(act) {
  const earlier = new Set(browserProcesses());
  const browser = await launch("chromium");
  try {
    const page = await browser.newPage(`${server.url}/`);
    await act(page);
    const pids = browserProcesses().filter((pid) => !earlier.has(pid));
    assert.ok(pids.length >= 2, "a renderer and a GPU process");
    return pids.reduce((sum, pid) => sum + residentPeak(pid), 0);
  } finally {
    await browser.close();
  }
}

function browserProcesses() {
  return readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && /--type=(renderer|gpu-process)/.test(read(`/proc/${pid}/cmdline`)));
}

function residentPeak(pid) {
  return Number(/VmHWM:\s+(\d+) kB/.exec(read(`/proc/${pid}/status`))?.[1] ?? 0) * 1024;
}

/** Empty when the process has ended meanwhile. */
function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
