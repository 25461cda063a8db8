/// <reference lib="webworker" />
import { chooseDevice, cpuInstead, type DeviceChoice, type GpuLike } from "./device.js";
import { errorBody, isErrorBody, type ErrorBody } from "./errors.js";
import { StoredKernels } from "./kernels.js";
import { ModelLoader } from "./loader.js";
import type { LocalReport, Reply, Request, WireModel, WireStorage } from "./messages.js";
import { withModelFiles } from "./model-files.js";
import { OriginPrivateStorage } from "./opfs.js";
import { startRuntime, type Runtime, type Started } from "./runtime.js";
import type { StorageBackend, StorageNotice } from "./storage.js";
import { PortStorage } from "./storage-port.js";
import { defaultThreads, type ThreadsStarted, type ThreadStart } from "./threads.js";
import type { Completion, CompletionChunk, DeviceInfo, LoadProgress, MemoryStats, ModelInfo } from "./types.js";

type CompleteRequest = Extract<Request, { type: "complete" }>;

/** A call that runs. */
interface Running {
  abort: AbortController;
  /** Lets a stream go on. */
  widen?: (count: number) => void;
  /** What a completion has used, once it has ended. */
  report?: LocalReport;
}

const running = new Map<number, Running>();
/** The calls that have a completion of each model under way. */
const completing = new Map<string, Set<AbortController>>();
let failed = false;
/** The module that runs, or is starting. The page waits for that before it asks for anything else. */
let wasm: Runtime;

const loader = new ModelLoader({
  load: loadModel,
  unload(id) {
    // A call whose consumer rests would hold the model's memory until it is read on.
    const gone = errorBody("model_not_found", `Model ${JSON.stringify(id)} was unloaded while the request ran.`, "model");
    for (const abort of completing.get(id) ?? []) abort.abort(gone);
    wasm.unload(id);
  },
  loaded: (info) => send({ type: "loaded", info }),
});

/** Where downloads are kept; undefined where they are not. */
let storage: StorageBackend | undefined;
let isStorageDenied = false;

async function openStorage(wire: WireStorage): Promise<void> {
  storage = wire === "none" ? undefined : wire === "origin-private" ? await OriginPrivateStorage.open() : new PortStorage(wire);
  isStorageDenied = storage === undefined && wire !== "none";
}

async function loadModel(model: WireModel, signal: AbortSignal, onProgress: (progress: LoadProgress) => void): Promise<ModelInfo> {
  let notStored: StorageNotice | undefined;
  if (isStorageDenied && model.parts.some(({ url }) => url !== undefined)) {
    notStored = { code: "storage_unavailable", message: "The file is not kept: the browser gives no storage." };
  }
  const onNotice = (notice: StorageNotice): void => void (notStored = notice);
  const options = model.contextLength === undefined ? {} : { contextLength: model.contextLength };
  const report = await withModelFiles(model, { storage, signal, onProgress, onNotice }, (files) => wasm.load(model.id, files, options));
  const info = report as Omit<ModelInfo, "id" | "loaded">;
  return { id: model.id, loaded: true, ...info, ...(notStored === undefined ? {} : { notStored }) };
}

function send(reply: Reply): void {
  if (!failed || reply.type === "fatal") postMessage(reply);
}

/** The runtime cannot go on: the page is told once and starts another worker. */
function fatal(error: ErrorBody): void {
  if (failed) return;
  failed = true;
  send({ type: "fatal", error });
}

/** Something failed that nothing recovers from, a panic of the runtime above all. */
async function stopped(detail: string): Promise<void> {
  await lossOrDelay();
  fatal(errorBody("internal", `The runtime stopped: ${panicMessage() ?? detail}.`));
}

function panicMessage(): string | undefined {
  try {
    return wasm.panicMessage();
  } catch {
    return undefined; // No module is there yet, or it is no longer fit to be asked.
  }
}

async function fail(id: number, error: unknown, call: Running): Promise<void> {
  const { signal } = call.abort;
  if (error instanceof WebAssembly.RuntimeError) return stopped(error.message);
  if (isErrorBody(error) && error.code === "internal") await lossOrDelay();
  if (signal.aborted && !isErrorBody(signal.reason)) {
    send({ type: "cancelled", id, ...reportOf(call) });
  } else if (isErrorBody(error)) {
    if (error.code === "device_lost") fatal(error);
    else send({ type: "error", id, error, ...reportOf(call) });
  } else {
    const body = errorBody("internal", error instanceof Error ? `${error.name}: ${error.message}` : String(error));
    send({ type: "error", id, error: body, ...reportOf(call) });
  }
}

function reportOf({ report }: Running): { report?: LocalReport } {
  return report === undefined ? {} : { report };
}

async function start(request: Extract<Request, { type: "start" }>): Promise<DeviceInfo> {
  const lock = await holdLock();
  if (lock !== undefined) send({ type: "alive", lock }); // First: from here on the page notices this worker's end.
  watchDevices();
  await openStorage(request.storage);
  const started = await startOn(request);
  return started.device;
}

/** Starts the module of the device that suits. Where that was ours to choose, the CPU takes the place of a GPU that does not start. */
async function startOn({ device, urls, limits, calibrate, threads = defaultThreads() }: Extract<Request, { type: "start" }>): Promise<Started> {
  const choice = await chooseDevice(device, (navigator as { gpu?: GpuLike }).gpu);
  const onWarning = (message: string): void => send({ type: "warning", message });
  const onModule = (module: Runtime): void => void (wasm = module);
  // In software nothing is gained that a visitor would wait for, and what cannot be kept would be waited for at every visit.
  const calibrates = ({ software }: DeviceChoice): boolean => calibrate ?? (!software && storage !== undefined);
  const openKernels = async (choice: DeviceChoice): Promise<StoredKernels | undefined> => (calibrates(choice) ? StoredKernels.open(storage, calibrate === true, onWarning) : undefined);
  const options = { urls, limits, threads, onModule, onWarning, openKernels, startThreads };
  try {
    return await startRuntime(choice, options);
  } catch (error) {
    if (device !== "auto" || choice.kind === "cpu" || !isErrorBody(error) || error.code !== "device_unavailable") throw error;
    onWarning(error.message);
    return startRuntime(cpuInstead(error.message), options);
  }
}

/** Who waits for threads. */
let threadsStarted: ((started: ThreadsStarted) => void) | undefined;

function startThreads(count: number, start: ThreadStart): Promise<ThreadsStarted> {
  return new Promise((resolve) => {
    threadsStarted = resolve;
    send({ type: "threads", count, start });
  });
}

/** Holds a lock as long as this worker lives, so that the page notices its end. Resolves to the lock's name. */
function holdLock(): Promise<string | undefined> {
  if (navigator.locks === undefined) return Promise.resolve(undefined);
  const name = `cinderlm-worker-${crypto.randomUUID()}`;
  return new Promise((resolve) => {
    navigator.locks
      .request(name, () => {
        resolve(name);
        return new Promise(() => undefined);
      })
      .catch(() => resolve(undefined));
  });
}

/** The losses of the devices that the runtime made. */
const losses: Promise<unknown>[] = [];
/** How long after a failure of the device the news of its loss may come. */
const LOSS_DELAY_MILLIS = 200;

/**
 * Waits for a device's loss, or a moment: browsers fail what a lost device was doing before they say that it is lost, and the page is to
 * hear of the cause.
 */
async function lossOrDelay(): Promise<void> {
  if (losses.length === 0) return;
  const delay = new Promise((resolve) => setTimeout(resolve, LOSS_DELAY_MILLIS));
  await Promise.race([...losses, delay]);
}

/** Hears of the loss of any device that the runtime makes. */
function watchDevices(): void {
  const adapter = globalThis.GPUAdapter?.prototype;
  if (adapter === undefined) return;
  const requestDevice = adapter.requestDevice;
  adapter.requestDevice = async function (this: GPUAdapter, descriptor?: GPUDeviceDescriptor): Promise<GPUDevice> {
    const device = await requestDevice.call(this, descriptor);
    losses.push(device.lost.then((info) => fatal(errorBody("device_lost", `The GPU device was lost (${info.reason}): ${info.message}`))));
    return device;
  };
}

async function complete(request: CompleteRequest, call: Running): Promise<Completion | undefined> {
  const { id, params, window, cacheScope } = request;
  const { abort } = call;
  const { signal } = abort;
  wasm.validate(params); // Before a download: a wrong request needs none.
  const loadMillis = await loadTimed(request, signal);
  const iterator = wasm.complete(params, { window, cacheScope });
  call.widen = (count) => iterator.widen(count);
  const others = completing.get(request.model.id) ?? new Set();
  completing.set(request.model.id, others.add(abort));
  const stop = (): void => void iterator.return();
  signal.addEventListener("abort", stop, { once: true });
  try {
    signal.throwIfAborted();
    for (;;) {
      const { done, value } = (await iterator.next()) as IteratorResult<CompletionChunk | Completion, undefined>;
      signal.throwIfAborted();
      if (done) return undefined;
      if (value.cinderlm?.ran_on === "local") value.cinderlm.timings.load_millis = loadMillis;
      if (params.stream !== true) return value as Completion;
      send({ type: "chunk", id, chunk: value as CompletionChunk });
    }
  } finally {
    signal.removeEventListener("abort", stop);
    others.delete(abort);
    stop();
    delete call.widen;
    call.report = iterator.report() as LocalReport;
    call.report.timings.load_millis = loadMillis;
    iterator.free();
  }
}

/** Tells the page how the load that call `id` waits for goes. */
function progressOf(id: number): (progress: LoadProgress) => void {
  return (progress) => send({ type: "progress", id, progress });
}

/** Loads the model unless it is there; resolves to the milliseconds that this took. */
async function loadTimed(request: CompleteRequest, signal: AbortSignal): Promise<number> {
  if (loader.isReady(request.model.id)) return 0;
  const start = performance.now();
  await loader.load(request.model, signal, progressOf(request.id));
  return performance.now() - start;
}

async function answer(request: Exclude<Request, { type: "credit" | "cancel" | "threads" }>, call: Running): Promise<unknown> {
  const { signal } = call.abort;
  const progress = progressOf(request.id);
  switch (request.type) {
    case "start":
      return start(request);
    case "load":
      return loader.load(request.model, signal, progress);
    case "complete":
      return complete(request, call);
    case "tokenize":
      await loader.load(request.model, signal, progress);
      return Array.from(wasm.tokenize(request.model.id, request.text));
    case "detokenize":
      await loader.load(request.model, signal, progress);
      return wasm.detokenize(request.model.id, request.ids);
    case "unload":
      return loader.unload(request.model);
    case "memory":
      return wasm.memoryStats() as MemoryStats;
    case "stats":
      return wasm.stats();
  }
}

async function handle(request: Request): Promise<void> {
  const { id } = request;
  if (request.type === "cancel") {
    running.get(id)?.abort.abort();
    return;
  }
  if (request.type === "threads") {
    threadsStarted?.(request);
    return;
  }
  if (request.type === "credit") {
    running.get(id)?.widen?.(request.count);
    return;
  }
  const call: Running = { abort: new AbortController() };
  running.set(id, call);
  try {
    const value = await answer(request, call);
    send({ type: "result", id, value, ...reportOf(call) });
  } catch (error) {
    await fail(id, error, call);
  } finally {
    running.delete(id);
  }
}

addEventListener("message", (event: MessageEvent<Request>) => void handle(event.data));
addEventListener("error", (event) => {
  event.preventDefault();
  void stopped(event.message);
});
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  void stopped(String(event.reason));
});
