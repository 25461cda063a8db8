import { errorBody, type ErrorBody } from "./errors.js";
import type { DeviceKind } from "./types.js";

/** What the runtime is told to run on. */
export interface DeviceChoice {
  kind: "webgpu" | "cpu";
  /** Whether the adapter is a software one, which asks for other kernel parameters. */
  software: boolean;
  name: string;
  reason: string;
}

/** The parts of WebGPU that the choice looks at. */
export interface AdapterLike {
  readonly features: { has(name: string): boolean };
  readonly info?: { vendor?: string; architecture?: string; device?: string; description?: string; isFallbackAdapter?: boolean };
  readonly isFallbackAdapter?: boolean;
}

/** The part of `navigator.gpu` that the choice uses. */
export interface GpuLike {
  requestAdapter(options?: { powerPreference?: "high-performance" }): Promise<AdapterLike | null>;
}

const SOFTWARE_NAMES = /swiftshader|llvmpipe|lavapipe|basic render|software/i;

/**
 * Chooses a device. `auto` takes WebGPU when the adapter is a real one; a device that was asked for by name and is not there is an
 * error.
 *
 * The GPU runtime starts its first stream with timestamp queries, so an adapter without them cannot be used.
 */
export async function chooseDevice(asked: DeviceKind, gpu: GpuLike | undefined): Promise<DeviceChoice> {
  if (asked === "cpu") return cpu("the CPU was asked for.");
  const found = await findAdapter(gpu);
  if ("missing" in found) {
    if (asked === "webgpu") throw unavailable(found.missing);
    return cpu(found.missing);
  }
  const { adapter } = found;
  const name = `webgpu: ${adapterName(adapter)}`;
  const software = isSoftware(adapter);
  if (asked === "webgpu") return { kind: "webgpu", software, name, reason: "WebGPU was asked for." };
  if (software) return cpu(`the only WebGPU adapter is a software one (${adapterName(adapter)}), which the CPU outruns.`);
  return { kind: "webgpu", software, name, reason: "a WebGPU adapter with all that is needed was found." };
}

async function findAdapter(gpu: GpuLike | undefined): Promise<{ adapter: AdapterLike } | { missing: string }> {
  if (gpu === undefined) return { missing: "this browser (or this insecure page) offers no WebGPU." };
  let adapter: AdapterLike | null;
  try {
    adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (error) {
    return { missing: `asking for a WebGPU adapter failed: ${String(error)}.` };
  }
  if (adapter === null) return { missing: "WebGPU found no adapter." };
  if (!adapter.features.has("timestamp-query")) return { missing: `the WebGPU adapter (${adapterName(adapter)}) lacks timestamp-query.` };
  return { adapter };
}

function isSoftware(adapter: AdapterLike): boolean {
  return (adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter ?? false) || SOFTWARE_NAMES.test(adapterName(adapter));
}

function adapterName(adapter: AdapterLike): string {
  const { vendor, architecture, device, description } = adapter.info ?? {};
  return description || [vendor, architecture, device].filter(Boolean).join(" ") || "unnamed adapter";
}

/** The CPU, after the GPU that was chosen did not start. */
export function cpuInstead(problem: string): DeviceChoice {
  return cpu(`the WebGPU adapter could not be used: ${problem}`);
}

function cpu(reason: string): DeviceChoice {
  return { kind: "cpu", software: false, name: "cpu", reason };
}

function unavailable(reason: string): ErrorBody {
  return errorBody("device_unavailable", `WebGPU was asked for but is not available: ${reason}`);
}
