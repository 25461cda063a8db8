import { Connection, STREAM_WINDOW, type WorkerLike } from "./connection.js";
import { abortReason, completionError, CompletionError } from "./errors.js";
import type { WireModel } from "./messages.js";
import type { CompletionStream } from "./stream.js";
import type {
  CallOptions,
  CinderOptions,
  Completion,
  CompletionChunk,
  CompletionParams,
  DeviceInfo,
  LoadOptions,
  LoadProgress,
  Logger,
  MemoryStats,
  ModelInfo,
  ModelSource,
  StreamingCompletionParams,
  WholeCompletionParams,
} from "./types.js";

const SILENT: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

interface Running {
  connection: Connection;
  started: Promise<DeviceInfo>;
}

/**
 * Text completions in this browser.
 *
 * Owns one worker, which holds the runtime, its device and the loaded models. The worker starts with the first call that needs it;
 * should it die or lose its device, the calls it ran reject and the next call starts another.
 */
export class Cinder {
  readonly #options: CinderOptions;
  readonly #logger: Logger;
  readonly #models = new Map<string, WireModel>();
  readonly #infos = new Map<string, ModelInfo>();
  #running: Running | undefined;
  #disposed = false;

  constructor(options: CinderOptions = {}) {
    this.#options = options;
    this.#logger = options.logger ?? SILENT;
    if (options.device !== undefined && !["auto", "webgpu", "cpu"].includes(options.device)) {
      throw new TypeError(`device: expected "auto", "webgpu" or "cpu", got ${JSON.stringify(options.device)}.`);
    }
    for (const model of options.models ?? []) this.register(model);
  }

  /** Adds a model, or replaces one that is not loaded. Nothing is downloaded yet. */
  register(model: ModelSource): void {
    if (typeof model.id !== "string" || model.id === "") throw new TypeError("A model needs an id.");
    if (this.#infos.get(model.id)?.loaded) throw new TypeError(`Model "${model.id}" is loaded: unload it first.`);
    this.#models.set(model.id, wireModel(model, this.#options.token));
    this.#infos.set(model.id, { id: model.id, loaded: false });
  }

  /** The registered models, and what is known of them. */
  models(): ModelInfo[] {
    return [...this.#infos.values()].map((info) => ({ ...info }));
  }

  /** Which device runs, and why. Starts the runtime if need be. */
  device(): Promise<DeviceInfo> {
    return this.#start().started;
  }

  /** Loads a model. Optional: `complete()` loads what it needs. */
  async load(model: string, options: LoadOptions = {}): Promise<ModelInfo> {
    const wire = this.#find(model);
    const connection = await this.#connect(options.signal);
    return connection.call<"load">({ type: "load", model: wire }, this.#hooks(options));
  }

  /** Frees a model's memory. Calls that still run on it are rejected with `model_not_found`. */
  async unload(model: string): Promise<void> {
    this.#find(model);
    if (this.#running === undefined) return;
    const connection = await this.#connect();
    await connection.call<"unload">({ type: "unload", model });
    this.#infos.set(model, { id: model, loaded: false });
  }

  /** Completes a prompt: whole, or as a stream of chunks with `stream: true`. */
  complete(params: StreamingCompletionParams, options?: CallOptions): Promise<CompletionStream>;
  complete(params: WholeCompletionParams, options?: CallOptions): Promise<Completion>;
  complete(params: CompletionParams, options?: CallOptions): Promise<Completion | AsyncIterableIterator<CompletionChunk>>;
  async complete(params: CompletionParams, options: CallOptions = {}): Promise<Completion | CompletionStream> {
    const model = this.#find((params as CompletionParams | undefined)?.model);
    const connection = await this.#connect(options.signal);
    const request = { type: "complete", model, params, window: STREAM_WINDOW } as const;
    try {
      return params.stream === true ? await connection.stream(request, this.#hooks(options)) : await connection.complete(request, this.#hooks(options));
    } catch (error) {
      throw error instanceof DOMException && error.name === "DataCloneError"
        ? completionError("invalid_type", `The request holds a value that is no JSON: ${error.message}`)
        : error;
    }
  }

  /** The token ids of a text, special tokens recognised, nothing added. */
  async tokenize(model: string, text: string, options: CallOptions = {}): Promise<number[]> {
    const wire = this.#find(model);
    const connection = await this.#connect(options.signal);
    return connection.call<"tokenize">({ type: "tokenize", model: wire, text }, this.#hooks(options));
  }

  /** The text of token ids, special tokens included. */
  async detokenize(model: string, ids: readonly number[], options: CallOptions = {}): Promise<string> {
    const wire = this.#find(model);
    const connection = await this.#connect(options.signal);
    return connection.call<"detokenize">({ type: "detokenize", model: wire, ids: [...ids] }, this.#hooks(options));
  }

  /** Memory that the runtime holds now. */
  async memory(): Promise<MemoryStats> {
    const connection = await this.#connect();
    return connection.call<"memory">({ type: "memory" });
  }

  /** Ends the worker and frees everything. Calls that still run are rejected, and so are later ones. */
  dispose(): Promise<void> {
    this.#disposed = true;
    this.#running?.connection.close(completionError("internal", "This Cinder was disposed."));
    return Promise.resolve();
  }

  /** Makes the worker; tests replace it. @internal */
  protected createWorker(): WorkerLike {
    const url = this.#options.workerUrl;
    // The second form is one that bundlers recognise, so it is written out whole.
    return url === undefined
      ? new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "cinderlm" })
      : new Worker(url, { type: "module", name: "cinderlm" });
  }

  #find(id: unknown): WireModel {
    if (typeof id !== "string") throw completionError("invalid_type", `model: expected a string, got ${id === null ? "null" : typeof id}.`, "model");
    const model = this.#models.get(id);
    if (model === undefined) {
      const known = [...this.#models.keys()].map((name) => JSON.stringify(name)).join(", ");
      throw completionError("model_not_found", `Model ${JSON.stringify(id)} is not registered; registered: ${known || "none"}.`, "model");
    }
    return model;
  }

  async #connect(signal?: AbortSignal): Promise<Connection> {
    if (signal?.aborted) throw abortReason(signal);
    const { connection, started } = this.#start();
    await started;
    if (signal?.aborted) throw abortReason(signal);
    return connection;
  }

  #start(): Running {
    if (this.#disposed) throw completionError("internal", "This Cinder was disposed.");
    if (this.#running !== undefined) return this.#running;
    const connection: Connection = new Connection(this.createWorker(), {
      loaded: (info) => void this.#infos.set(info.id, info),
      closed: (error) => this.#forget(connection, error),
    });
    const wasmUrl = this.#options.wasmUrl;
    const started = connection.call<"start">({
      type: "start",
      device: this.#options.device ?? "auto",
      ...(wasmUrl === undefined ? {} : { wasmUrl: absolute(wasmUrl) }),
    });
    this.#running = { connection, started };
    started.then(
      (device) => {
        this.#logger.info(`cinderlm runs on ${device.name}: ${device.reason}`);
        watchWorker(connection, device.lock);
      },
      (error: unknown) => connection.close(error instanceof CompletionError ? error : completionError("internal", String(error))),
    );
    return this.#running;
  }

  #forget(connection: Connection, error: CompletionError): void {
    if (this.#running?.connection !== connection) return;
    this.#running = undefined;
    for (const id of this.#infos.keys()) this.#infos.set(id, { id, loaded: false });
    if (!this.#disposed) this.#logger.warn(`cinderlm's worker ended: ${error.message}`);
  }

  #hooks(options: LoadOptions): { signal: AbortSignal | undefined; onProgress: (progress: LoadProgress) => void } {
    return {
      signal: options.signal,
      onProgress: (progress) => {
        options.onProgress?.(progress);
        this.#options.onProgress?.(progress);
      },
    };
  }
}

/**
 * Closes the connection when its worker is gone. A worker that the browser ended says nothing, but the lock it held falls free.
 */
function watchWorker(connection: Connection, lock: string | undefined): void {
  if (lock === undefined) return;
  navigator.locks
    .request(lock, { mode: "shared" }, () => connection.close(completionError("internal", "The worker was ended by the browser.")))
    .catch(() => undefined); // The page is going away.
}

function absolute(url: string | URL): string {
  return new URL(url, globalThis.location?.href).href;
}

function wireModel(model: ModelSource, token: string | undefined): WireModel {
  if ((model.url === undefined) === (model.file === undefined)) throw new TypeError(`Model "${model.id}": give either url or file.`);
  if (model.sha256 !== undefined && !/^[0-9a-f]{64}$/i.test(model.sha256)) {
    throw new TypeError(`Model "${model.id}": sha256 must be 64 hexadecimal digits.`);
  }
  if (model.contextLength !== undefined && !(Number.isSafeInteger(model.contextLength) && model.contextLength > 0)) {
    throw new TypeError(`Model "${model.id}": contextLength must be a positive integer.`);
  }
  const wire: WireModel = { id: model.id };
  if (model.url !== undefined) wire.url = absolute(model.url);
  if (model.file !== undefined) wire.file = model.file;
  if (model.sha256 !== undefined) wire.sha256 = model.sha256.toLowerCase();
  if (model.contextLength !== undefined) wire.contextLength = model.contextLength;
  if (token !== undefined && wire.url !== undefined) wire.token = token;
  return wire;
}
