import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseDevice, type AdapterLike, type GpuLike } from "../src/device.js";

function adapter(info: AdapterLike["info"] & object, features = ["timestamp-query"]): AdapterLike {
  return { info, features: { has: (name) => features.includes(name) } };
}

function gpu(found: AdapterLike | null | Error): GpuLike {
  return { requestAdapter: () => (found instanceof Error ? Promise.reject(found) : Promise.resolve(found)) };
}

const real = adapter({ description: "Apple M3", isFallbackAdapter: false });
const fallback = adapter({ description: "SwiftShader Device", isFallbackAdapter: true });
const unflagged = adapter({ vendor: "mesa", architecture: "llvmpipe" });
const untimed = adapter({ description: "Old GPU" }, []);

const rows: [string, Parameters<typeof chooseDevice>[0], GpuLike | undefined, "webgpu" | "cpu" | "error", RegExp][] = [
  ["a real adapter is taken", "auto", gpu(real), "webgpu", /adapter with all/],
  ["no WebGPU", "auto", undefined, "cpu", /no WebGPU/],
  ["no adapter", "auto", gpu(null), "cpu", /no adapter/],
  ["an adapter request that fails", "auto", gpu(new Error("blocked")), "cpu", /blocked/],
  ["a fallback adapter", "auto", gpu(fallback), "cpu", /software one/],
  ["a software adapter that does not say so", "auto", gpu(unflagged), "cpu", /llvmpipe/],
  ["an adapter that lacks a feature", "auto", gpu(untimed), "cpu", /timestamp-query/],
  ["the CPU by name", "cpu", gpu(real), "cpu", /asked for/],
  ["a software adapter by name", "webgpu", gpu(fallback), "webgpu", /asked for/],
  ["WebGPU by name where there is none", "webgpu", undefined, "error", /no WebGPU/],
  ["WebGPU by name without an adapter", "webgpu", gpu(null), "error", /no adapter/],
];

for (const [name, asked, offered, kind, reason] of rows) {
  test(`device: ${name}`, async () => {
    if (kind === "error") {
      await assert.rejects(chooseDevice(asked, offered), (error: { code: string; status: number; message: string }) => {
        assert.equal(error.code, "device_unavailable");
        assert.equal(error.status, 503);
        assert.match(error.message, reason);
        return true;
      });
      return;
    }
    const choice = await chooseDevice(asked, offered);
    assert.equal(choice.kind, kind);
    assert.match(choice.reason, reason);
    assert.equal(choice.software, kind === "webgpu" && offered !== undefined && choice.name.includes("SwiftShader"));
  });
}
