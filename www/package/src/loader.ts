import { abortReason, orAborted } from "./abort.js";
import { errorBody, type ErrorBody } from "./errors.js";
import type { WireModel } from "./messages.js";
import type { LoadProgress, ModelInfo } from "./types.js";

/** What the loader leaves to its owner. */
export interface LoaderHost {
  load(model: WireModel, signal: AbortSignal, onProgress: (progress: LoadProgress) => void): Promise<ModelInfo>;
  unload(id: string): void;
  loaded(info: ModelInfo): void;
}

interface Load {
  model: WireModel;
  promise: Promise<ModelInfo>;
  abort: AbortController;
  listeners: Set<(progress: LoadProgress) => void>;
}

/** Loads each model once, however many calls wait for it; a load stops when the last of them gave up. */
export class ModelLoader {
  readonly #host: LoaderHost;
  readonly #ready = new Map<string, { info: ModelInfo; version: number }>();
  readonly #loading = new Map<string, Load>();
  /** Loads that were stopped and have not ended: the module hears of it between two readings, and then not before its kernels are calibrated. */
  readonly #ending = new Map<string, Promise<unknown>>();

  constructor(host: LoaderHost) {
    this.#host = host;
  }

  /** Whether the model is in memory. */
  isReady(id: string): boolean {
    return this.#ready.has(id);
  }

  /** Resolves when the model is in memory. */
  async load(model: WireModel, signal: AbortSignal, onProgress: (progress: LoadProgress) => void): Promise<ModelInfo> {
    signal.throwIfAborted();
    const ready = this.#ready.get(model.id);
    if (ready?.version === model.version) return ready.info;
    if (ready !== undefined) this.unload(model.id);
    const earlier = this.#loading.get(model.id);
    if (earlier !== undefined && earlier.model.version !== model.version) this.#stop(model.id, earlier, gone(model.id, "registered anew"));
    const load = this.#loading.get(model.id) ?? this.#begin(model);
    const listener = (progress: LoadProgress): void => onProgress(progress); // Its own object: two calls may share a function.
    load.listeners.add(listener);
    try {
      return await orAborted(load.promise, signal);
    } finally {
      load.listeners.delete(listener);
      if (load.listeners.size === 0) this.#stop(model.id, load, abortReason());
    }
  }

  /** Frees a model, or stops loading it. */
  unload(id: string): void {
    const load = this.#loading.get(id);
    if (load !== undefined) this.#stop(id, load, gone(id, "unloaded"));
    if (this.#ready.delete(id)) this.#host.unload(id);
  }

  #begin(model: WireModel): Load {
    const abort = new AbortController();
    const listeners: Load["listeners"] = new Set();
    const tell = (progress: LoadProgress): void => {
      for (const listener of listeners) listener(progress);
    };
    const load: Load = { model, abort, listeners, promise: this.#run(model, abort, tell) };
    this.#loading.set(model.id, load);
    load.promise
      .catch(() => undefined) // Those who wait are told.
      .finally(() => {
        if (this.#loading.get(model.id) === load) this.#loading.delete(model.id);
      });
    return load;
  }

  async #run(model: WireModel, abort: AbortController, tell: (progress: LoadProgress) => void): Promise<ModelInfo> {
    const ending = this.#ending.get(model.id);
    if (ending !== undefined) {
      await ending; // It would take this one's place in the module.
      abort.signal.throwIfAborted();
    }
    const info = await this.#host.load(model, abort.signal, tell);
    if (abort.signal.aborted) {
      this.#host.unload(model.id); // What takes its place waits for this.
      abort.signal.throwIfAborted();
    }
    this.#ready.set(model.id, { info, version: model.version });
    this.#host.loaded(info);
    tell({ model: model.id, phase: "ready", bytes: info.fileBytes ?? 0, ...(info.fileBytes === undefined ? {} : { total: info.fileBytes }) });
    return info;
  }

  #stop(id: string, load: Load, reason: unknown): void {
    if (this.#loading.get(id) !== load) return;
    this.#loading.delete(id);
    load.abort.abort(reason);
    const ending = Promise.allSettled([this.#ending.get(id), load.promise]).then(() => {
      if (this.#ending.get(id) === ending) this.#ending.delete(id);
    });
    this.#ending.set(id, ending);
  }
}

function gone(id: string, what: string): ErrorBody {
  return errorBody("model_not_found", `Model ${JSON.stringify(id)} was ${what} while it was loaded.`, "model");
}
