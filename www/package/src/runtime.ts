import initCpu, * as cpu from "../generated/cpu/cpu.js";
import initCpuThreads, * as cpuThreads from "../generated/cpu-threads/cpu-threads.js";
import initWebgpu, * as webgpu from "../generated/webgpu/webgpu.js";
import type { KernelKeeper } from "../generated/webgpu/webgpu.js";
import type { DeviceChoice } from "./device.js";
import { errorBody, isErrorBody } from "./errors.js";
import { GpuMeter } from "./gpu-meter.js";
import { joinSubmissions } from "./gpu-submissions.js";
import type { BatchLimits, ModuleUrls } from "./messages.js";
import { threadsProblem, type ThreadsStarted, type ThreadStart } from "./threads.js";
import type { DeviceInfo } from "./types.js";

/** What the worker uses of a module. Each kind of device has a module of its own, so that only what runs is downloaded. */
export type Runtime = Pick<
  typeof cpu,
  "initialize" | "load" | "unload" | "validate" | "complete" | "tokenize" | "detokenize" | "memoryStats" | "stats" | "panicMessage"
>;

export interface RuntimeOptions {
  urls: ModuleUrls;
  limits: BatchLimits;
  /** Threads that the CPU may have. */
  threads: number;
  /** The module is there, though it may not have its device yet. */
  onModule: (module: Runtime) => void;
  /** Who keeps what a calibration of kernels finds; undefined where none is to be made. */
  openKernels: (choice: DeviceChoice) => Promise<KernelKeeper | undefined>;
  /** Something went wrong without which it goes on. */
  onWarning: (message: string) => void;
  /** Has the page start threads. */
  startThreads: (count: number, start: ThreadStart) => Promise<ThreadsStarted>;
}

export interface Started {
  runtime: Runtime;
  device: DeviceInfo;
}

/** Loads the module of the chosen device and starts it. */
export function startRuntime(choice: DeviceChoice, options: RuntimeOptions): Promise<Started> {
  return choice.kind === "webgpu" ? startWebgpu(choice, options) : startCpu(choice, options);
}

async function startWebgpu(choice: DeviceChoice, { urls, limits, onModule, openKernels }: RuntimeOptions): Promise<Started> {
  const [kernels] = await Promise.all([
    openKernels(choice),
    instantiate(initWebgpu({ module_or_path: fetch(urls.webgpu ?? new URL("./cinderlm-webgpu.wasm", import.meta.url)) })),
  ]);
  onModule(webgpu);
  const meter = new GpuMeter();
  joinSubmissions(); // After the meter, which counts what is submitted in the end.
  webgpu.watchDevice(() => meter.take());
  await webgpu.initialize("webgpu", choice.software, choice.name, limits, kernels);
  return { runtime: webgpu, device: { kind: "webgpu", name: choice.name, reason: choice.reason, threads: 1 } };
}

async function startCpu(choice: DeviceChoice, options: RuntimeOptions): Promise<Started> {
  let problem = options.threads > 1 ? threadsProblem() : "no more were asked for";
  if (problem === undefined) {
    let threads: number | undefined;
    try {
      threads = await startThreads(options);
    } catch (error) {
      problem = isErrorBody(error) ? error.message : String(error);
      options.onWarning(`The CPU runs on one thread: ${problem}`);
    }
    if (threads !== undefined) return finish(cpuThreads, choice, options, threads, `${choice.reason} It has ${threads} threads.`);
  }
  await instantiate(initCpu({ module_or_path: fetch(options.urls.cpu ?? new URL("./cinderlm-cpu.wasm", import.meta.url)) }));
  return finish(cpu, choice, options, 1, `${choice.reason} It has one thread: ${problem?.replace(/\.$/, "")}.`);
}

/** Loads the module with threads and starts these; resolves to how many there are with this one. */
async function startThreads(options: RuntimeOptions): Promise<number> {
  const module = await instantiate(compile(options.urls.cpuThreads ?? new URL("./cinderlm-cpu-threads.wasm", import.meta.url)));
  const { memory } = await instantiate(initCpuThreads({ module_or_path: module }));
  const { started, problems } = await options.startThreads(options.threads - 1, { module, memory });
  if (started === 0) throw errorBody("internal", `no thread could be started: ${problems[0] ?? "unknown"}`);
  const threads = started + 1;
  if (problems.length > 0) options.onWarning(`The CPU runs on ${threads} threads and not on ${options.threads}: ${problems[0]}`);
  return threads;
}

async function finish(runtime: Runtime, { name }: DeviceChoice, { limits, onModule }: RuntimeOptions, threads: number, reason: string): Promise<Started> {
  onModule(runtime);
  await runtime.initialize("cpu", false, name, limits, undefined);
  return { runtime, device: { kind: "cpu", name, reason, threads } };
}

/** Compiles a module while it downloads, or after that where its server calls it something else than `application/wasm`. */
async function compile(url: string | URL): Promise<WebAssembly.Module> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${response.url} answered with ${response.status}`);
  const isStreamed = response.headers.get("Content-Type")?.startsWith("application/wasm");
  return isStreamed ? WebAssembly.compileStreaming(response) : WebAssembly.compile(await response.arrayBuffer());
}

async function instantiate<T>(loading: Promise<T>): Promise<T> {
  try {
    return await loading;
  } catch (error) {
    throw errorBody("internal", `The WebAssembly module could not be loaded: ${String(error)}.`);
  }
}
