import { Cinder, CompletionError } from "cinderlm";
import type {
  CachedFile,
  CacheUsage,
  CompletionChunkChoice,
  CompletionParams,
  DeviceInfo,
  DeviceKind,
  LoadProgress,
  MemoryStats,
  ModelInfo,
  RequestReport,
} from "cinderlm";
import type { ChosenModel } from "./models.js";
import type { RawParams } from "./params.js";
import { problemOf, type Problem } from "./problems.js";
import type { Store } from "./store.js";

/** What the page knows. Views draw it; only the session and the composition in main.ts change it. */
export interface AppState {
  device: DeviceKind;
  deviceInfo: DeviceInfo | undefined;
  deviceProblem: Problem | undefined;
  model: ChosenModel | undefined;
  /** Set while a model is in memory. */
  loaded: ModelInfo | undefined;
  /** `loading` while a model's file is read, for a request or ahead of one. */
  phase: "idle" | "loading" | "running";
  progress: LoadProgress | undefined;
  /** Why the last load or request failed. */
  problem: Problem | undefined;
  /** How the last request ended. */
  outcome: "none" | "done" | "stopped" | "failed";
  report: RequestReport | undefined;
  memory: MemoryStats | undefined;
  files: readonly CachedFile[];
  usage: CacheUsage | undefined;
}

/** The state of a page that has just been opened. */
export function freshState(): AppState {
  return {
    device: "auto",
    deviceInfo: undefined,
    deviceProblem: undefined,
    model: undefined,
    loaded: undefined,
    phase: "idle",
    progress: undefined,
    problem: undefined,
    outcome: "none",
    report: undefined,
    memory: undefined,
    files: [],
    usage: undefined,
  };
}

/** Takes the parts of a completion as they come. */
export type ChoiceSink = (choices: readonly CompletionChunkChoice[]) => void;

/** The runtime behind the page: one {@link Cinder} at a time, one model in it, one load or request at a time. */
export class Session {
  readonly #store: Store<AppState>;
  #cinder: Cinder;
  #abort: AbortController | undefined;
  /** What goes on once the model is there. */
  #goal: "loading" | "running" = "loading";

  constructor(store: Store<AppState>) {
    this.#store = store;
    this.#cinder = this.#open(store.state.device);
  }

  /** Starts on another device. What runs is stopped, and the model has to be loaded again. */
  async useDevice(device: DeviceKind): Promise<void> {
    this.stop();
    await this.#cinder.dispose();
    this.#store.set({ device, loaded: undefined, memory: undefined });
    this.#cinder = this.#open(device);
    await this.probe();
  }

  /** Finds out which device runs, and why. */
  async probe(): Promise<void> {
    const cinder = this.#cinder;
    this.#store.set({ deviceInfo: undefined, deviceProblem: undefined });
    try {
      const deviceInfo = await cinder.device();
      if (cinder === this.#cinder) this.#store.set({ deviceInfo });
    } catch (error) {
      if (cinder === this.#cinder) this.#store.set({ deviceProblem: problemOf(error) });
    }
  }

  /** Chooses the model of the requests to come; the one before it leaves memory. */
  async choose(model: ChosenModel): Promise<void> {
    const { loaded } = this.#store.state;
    this.stop();
    if (loaded !== undefined) await this.#cinder.unload(loaded.id);
    this.#store.set({ model, loaded: undefined, problem: undefined });
    this.#register(this.#cinder);
  }

  /** Loads the chosen model ahead of a request. */
  async load(): Promise<void> {
    const { model } = this.#store.state;
    if (model === undefined) return;
    await this.#perform("loading", async (signal) => {
      await this.#cinder.load(model.id, { signal });
    });
  }

  /** Completes. Loads the model first if need be; a request that is wrong in itself is refused before that. */
  async run(params: RawParams, sink: ChoiceSink): Promise<void> {
    await this.#perform("running", async (signal) => {
      // The package checks every field, and says better than a type could what is wrong with one.
      const answer = await this.#cinder.complete(params as unknown as CompletionParams, { signal });
      if (!(Symbol.asyncIterator in answer)) return sink(answer.choices);
      for await (const chunk of answer) sink(chunk.choices);
    });
  }

  /** Stops the load or the request that is under way. */
  stop(): void {
    this.#abort?.abort();
  }

  /** Looks up what is stored on this device. */
  async refreshStorage(): Promise<void> {
    const [files, usage] = await Promise.all([this.#cinder.cache.list(), this.#cinder.cache.usage()]);
    this.#store.set({ files, usage });
  }

  /** Deletes a stored file. */
  async deleteFile(id: string): Promise<void> {
    await this.#cinder.cache.delete(id);
    await this.refreshStorage();
  }

  /** Asks the browser to keep what is stored. */
  async persist(): Promise<boolean> {
    const isGranted = await this.#cinder.cache.persist();
    await this.refreshStorage();
    return isGranted;
  }

  /** Runs one thing at a time, and turns its end, whatever it is, into state. */
  async #perform(phase: "loading" | "running", work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    if (this.#abort !== undefined) return;
    const abort = new AbortController();
    const cinder = this.#cinder;
    this.#abort = abort;
    this.#goal = phase;
    this.#store.set({ phase, progress: undefined, problem: undefined, outcome: "none", report: undefined });
    const isRequest = phase === "running";
    try {
      await work(abort.signal);
      if (isRequest) this.#store.set({ outcome: "done" });
    } catch (error) {
      if (abort.signal.aborted) this.#store.set(isRequest ? { outcome: "stopped" } : {});
      else this.#store.set({ problem: problemOf(error), ...(isRequest ? { outcome: "failed" as const } : {}) });
    } finally {
      this.#abort = undefined;
      this.#store.set({ phase: "idle", progress: undefined });
    }
    if (cinder === this.#cinder) await this.#lookAround(cinder);
  }

  /** What is in memory and in storage after something ran. The runtime may just have died, which the problem tells already. */
  async #lookAround(cinder: Cinder): Promise<void> {
    this.#store.set({ loaded: cinder.models().find(({ loaded }) => loaded) });
    await this.refreshStorage();
    try {
      this.#store.set({ memory: this.#store.state.loaded === undefined ? undefined : await cinder.memory() });
    } catch (error) {
      if (!(error instanceof CompletionError)) throw error;
      this.#store.set({ memory: undefined });
    }
  }

  #open(device: DeviceKind): Cinder {
    const cinder: Cinder = new Cinder({
      device,
      workerUrl: new URL("worker.js", document.baseURI),
      onProgress: (progress) => {
        if (cinder === this.#cinder) this.#onProgress(progress);
      },
      onUsage: (report) => this.#store.set({ report }),
    });
    this.#register(cinder);
    return cinder;
  }

  #register(cinder: Cinder): void {
    const { model } = this.#store.state;
    if (model === undefined) return;
    cinder.register("file" in model.source ? { id: model.id, file: model.source.file } : { id: model.id, url: model.source.address });
  }

  #onProgress(progress: LoadProgress): void {
    if (this.#abort === undefined || this.#abort.signal.aborted) return;
    if (progress.phase !== "ready") this.#store.set({ phase: "loading", progress });
    else this.#store.set({ phase: this.#goal, progress: undefined, loaded: this.#cinder.models().find(({ loaded }) => loaded) });
  }
}
