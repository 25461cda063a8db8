import { Connection, STREAM_WINDOW, type CallHooks, type WorkerLike } from "./connection.js";
import { abortReason, orAborted } from "./abort.js";
import { Accounts, type OpenAccount } from "./accounts.js";
import { modelAddress, partAddresses } from "./address.js";
import { ModelCache } from "./cache.js";
import { completionError, CompletionError, type ErrorCode } from "./errors.js";
import { answerFetch } from "./fetch.js";
import type { BatchLimits, ModuleUrls, WireModel, WirePart, WireStorage } from "./messages.js";
import { Remote } from "./remote.js";
import { snapshot } from "./snapshot.js";
import type { StorageBackend } from "./storage.js";
import { serveStorage } from "./storage-port.js";
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
  ModelStats,
  StreamingCompletionParams,
  Usage,
  WholeCompletionParams,
} from "./types.js";
import { Threads } from "./threads.js";
import { validate } from "./validate.js";

const SILENT: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

/** Failures after which a server may do what this device cannot. */
const FALLS_BACK: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "device_unavailable",
  "out_of_memory",
  "download_failed",
  "unsupported_model",
  "storage_full",
]);

/** What a request has used that never began. */
const NOTHING: Usage = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 };

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
  /** The files of models that are kept on this device. */
  readonly cache: ModelCache;
  readonly #options: CinderOptions;
  readonly #logger: Logger;
  readonly #models = new Map<string, WireModel>();
  readonly #infos = new Map<string, ModelInfo>();
  /** The call whose progress events the instance's own listener gets, for each model that is loading. */
  readonly #reporters = new Map<string, object>();
  readonly #accounts: Accounts;
  readonly #remote: Remote | undefined;
  #nRegistered = 0;
  #running: Running | undefined;
  #disposed = false;

  constructor(options: CinderOptions = {}) {
    this.#options = options;
    this.#logger = options.logger ?? SILENT;
    if (options.device !== undefined && !["auto", "webgpu", "cpu"].includes(options.device)) {
      throw new TypeError(`device: expected "auto", "webgpu" or "cpu", got ${JSON.stringify(options.device)}.`);
    }
    checkBackend(options.cache);
    this.cache = new ModelCache(typeof options.cache === "object" ? options.cache : undefined);
    checkCount("maxBatch", options.maxBatch, 1, 256);
    checkCount("maxQueue", options.maxQueue, 0, 2 ** 32 - 1);
    checkCount("threads", options.threads, 1, 64);
    if (options.calibrate !== undefined && typeof options.calibrate !== "boolean") throw new TypeError(`calibrate: expected true or false, got ${kindOf(options.calibrate)}.`);
    checkUrls(options.wasmUrls);
    checkCount("kvCacheBytes", options.kvCacheBytes, 0, Number.MAX_SAFE_INTEGER);
    if (options.apiKeys?.some((key) => typeof key !== "string" || key === "")) throw new TypeError("apiKeys: expected texts that are not empty.");
    const { limits, remote } = options;
    checkCount("limits.perUser.concurrent", limits?.perUser?.concurrent, 1, Number.MAX_SAFE_INTEGER);
    checkCount("limits.perUser.tokensPerMinute", limits?.perUser?.tokensPerMinute, 1, Number.MAX_SAFE_INTEGER);
    this.#accounts = new Accounts(limits, options.onUsage, this.#logger);
    if (remote?.use !== undefined && !["never", "fallback", "always"].includes(remote.use)) {
      throw new TypeError(`remote.use: expected "never", "fallback" or "always", got ${JSON.stringify(remote.use)}.`);
    }
    this.#remote = remote === undefined || (remote.use ?? "never") === "never" ? undefined : new Remote(remote);
    for (const model of options.models ?? []) this.register(model);
  }

  /**
   * Adds a model, or replaces one that is not loaded. Nothing is downloaded yet. Calls that wait for the replaced one to load are rejected
   * with `model_not_found` once the new one is asked for.
   */
  register(model: ModelSource): void {
    if (typeof model.id !== "string" || model.id === "") throw new TypeError("A model needs an id.");
    if (this.#infos.get(model.id)?.loaded) throw new TypeError(`Model "${model.id}" is loaded: unload it first.`);
    this.#models.set(model.id, wireModel(model, ++this.#nRegistered, this.#options.token));
    this.#infos.set(model.id, { id: model.id, loaded: false });
  }

  /** The registered models, and what is known of them. */
  models(): ModelInfo[] {
    return [...this.#infos.values()].map((info) => ({ ...info }));
  }

  /** Which device runs, and why. Starts the runtime if need be. */
  async device(): Promise<DeviceInfo> {
    return this.#start().started;
  }

  /** Loads a model. Optional: `complete()` loads what it needs. */
  async load(model: string, options: LoadOptions = {}): Promise<ModelInfo> {
    const wire = this.#find(model);
    const connection = await this.#connect(options.signal);
    return this.#reported(options, (hooks) => connection.call<"load">({ type: "load", model: wire }, hooks));
  }

  /** Frees a model's memory. Calls that still run on it are rejected with `model_not_found`. */
  async unload(model: string): Promise<void> {
    this.#find(model);
    if (this.#running === undefined && !this.#disposed) return;
    const connection = await this.#connect();
    await connection.call<"unload">({ type: "unload", model });
    this.#infos.set(model, { id: model, loaded: false });
  }

  /** Completes a prompt: whole, or as a stream of chunks with `stream: true`. */
  complete(params: StreamingCompletionParams, options?: CallOptions): Promise<CompletionStream>;
  complete(params: WholeCompletionParams, options?: CallOptions): Promise<Completion>;
  complete(params: CompletionParams, options?: CallOptions): Promise<Completion | AsyncIterableIterator<CompletionChunk>>;
  async complete(params: CompletionParams, options: CallOptions = {}): Promise<Completion | CompletionStream> {
    const own: unknown = snapshot(params);
    validate(own);
    if (this.#disposed) throw disposed();
    const { signal, cacheScope, caller } = options;
    checkSignal(signal);
    if (cacheScope !== undefined && typeof cacheScope !== "string") throw new TypeError(`cacheScope: expected a string, got ${kindOf(cacheScope)}.`);
    // Rust's strings have none: two such scopes would become one.
    if (cacheScope !== undefined && /\p{Surrogate}/u.test(cacheScope)) throw new TypeError("cacheScope: expected whole characters, got half of a surrogate pair.");
    if (signal?.aborted) throw abortReason(signal);
    const isRemote = this.#remote !== undefined && (this.#options.remote?.use === "always" || !this.#models.has(own.model));
    const model = isRemote ? undefined : this.#find(own.model);
    const account = this.#accounts.open(own, caller);
    return model === undefined ? this.#completeThere(own, options, account) : this.#completeHere(model, own, options, account);
  }

  async #completeHere(model: WireModel, params: CompletionParams, options: CallOptions, account: OpenAccount): Promise<Completion | CompletionStream> {
    const { signal } = options;
    /** What the worker has to tell of its end, from when it is known that no server takes the request over. */
    let told: (() => void) | undefined;
    let isSettled = false;
    const onEnd: CallHooks["onEnd"] = (outcome, report, error) => {
      const usage = report === null ? NOTHING : (report?.usage ?? null);
      told = () => account.close({ ran_on: "local", outcome, error, usage, timings: report?.timings ?? null });
      if (isSettled) told();
    };
    let isSent = false;
    try {
      const connection = await this.#connect(signal);
      const request = { type: "complete", model, params, window: STREAM_WINDOW, cacheScope: scopeOf(options) } as const;
      isSent = true;
      return await this.#reported<Completion | CompletionStream>(options, (hooks) => {
        const all = { ...hooks, onEnd, onLeave: account.release };
        return params.stream === true ? connection.stream(request, all) : connection.complete(request, all);
      });
    } catch (error) {
      if (this.#remote !== undefined && error instanceof CompletionError && FALLS_BACK.has(error.code)) {
        told = undefined; // It has not ended.
        this.#logger.warn(`cinderlm hands a request to the remote server: ${error.message}`);
        return this.#completeThere(params, options, account);
      }
      if (!isSent) account.close({ ran_on: "local", outcome: signal?.aborted ? "aborted" : "failed", error, usage: NOTHING, timings: null });
      throw error;
    } finally {
      isSettled = true;
      told?.();
    }
  }

  async #completeThere(params: CompletionParams, { signal }: CallOptions, account: OpenAccount): Promise<Completion | CompletionStream> {
    const remote = this.#remote as Remote;
    return params.stream === true ? remote.stream(params, signal, account.close) : remote.complete(params, signal, account.close);
  }

  /**
   * A `fetch` that an OpenAI-compatible client can be given: it answers `POST …/v1/completions` (JSON, or server-sent events with `stream`),
   * `GET …/v1/models` and `GET …/v1/models/{id}`, whatever the host, with the status codes and error bodies of a server. It needs no `this`.
   */
  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> =>
    answerFetch(this, this.#options.apiKeys, new Request(input, init));

  /** The token ids of a text, special tokens recognised, nothing added. */
  async tokenize(model: string, text: string, options: CallOptions = {}): Promise<number[]> {
    const wire = this.#find(model);
    if (typeof text !== "string") throw completionError("invalid_type", `text: expected a string, got ${kindOf(text)}.`, "text");
    const connection = await this.#connect(options.signal);
    return this.#reported(options, (hooks) => connection.call<"tokenize">({ type: "tokenize", model: wire, text }, hooks));
  }

  /** The text of token ids, special tokens included. */
  async detokenize(model: string, ids: readonly number[], options: CallOptions = {}): Promise<string> {
    const wire = this.#find(model);
    const own = tokenIds(ids);
    const connection = await this.#connect(options.signal);
    return this.#reported(options, (hooks) => connection.call<"detokenize">({ type: "detokenize", model: wire, ids: own }, hooks));
  }

  /** Memory that the runtime holds now. */
  async memory(): Promise<MemoryStats> {
    const connection = await this.#connect();
    return connection.call<"memory">({ type: "memory" });
  }

  /** What each loaded model holds, what it has kept of earlier calls and what that was good for, and what its steps cost the GPU, by id. */
  async stats(): Promise<Record<string, ModelStats>> {
    const connection = await this.#connect();
    return connection.call<"stats">({ type: "stats" });
  }

  /** Ends the worker and frees everything. Calls that still run are rejected, and so are later ones. */
  dispose(): Promise<void> {
    this.#disposed = true;
    this.#running?.connection.close(disposed());
    this.#remote?.close(disposed());
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

  /** Makes the worker of a thread, beside the other one. */
  protected createThread(): Worker {
    const url = this.#options.workerUrl;
    return url === undefined
      ? new Worker(new URL("./thread.js", import.meta.url), { type: "module", name: "cinderlm thread" })
      : new Worker(new URL("thread.js", absolute(url)), { type: "module", name: "cinderlm thread" });
  }

  #find(id: unknown): WireModel {
    if (typeof id !== "string") throw completionError("invalid_type", `model: expected a string, got ${kindOf(id)}.`, "model");
    const model = this.#models.get(id);
    if (model === undefined) {
      const known = [...this.#models.keys()].map((name) => JSON.stringify(name)).join(", ");
      throw completionError("model_not_found", `Model ${JSON.stringify(id)} is not registered; registered: ${known || "none"}.`, "model");
    }
    return model;
  }

  async #connect(signal?: AbortSignal): Promise<Connection> {
    checkSignal(signal);
    if (signal?.aborted) throw abortReason(signal);
    const { connection, started } = this.#start();
    await orAborted(started, signal);
    return connection;
  }

  #start(): Running {
    if (this.#disposed) throw disposed();
    if (this.#running !== undefined) return this.#running;
    const { storage, port } = wireStorage(this.#options.cache);
    const failed = (detail: string): void => connection.close(completionError("internal", `A thread of the CPU failed: ${detail}.`));
    const threadWorkers = new Threads(() => this.createThread(), failed);
    const connection: Connection = new Connection(this.#makeWorker(), {
      alive: (lock) => watchWorker(connection, lock),
      warned: (message) => this.#logger.warn(`cinderlm: ${message}`),
      threads: (count, start) => threadWorkers.start(count, start),
      loaded: (info) => {
        this.#infos.set(info.id, info);
        if (info.notStored !== undefined) this.#logger.warn(`cinderlm loaded ${info.id}: ${info.notStored.message}`);
      },
      closed: (error) => {
        threadWorkers.close();
        port?.close();
        this.#forget(connection, error);
      },
    });
    const { threads, calibrate, device = "auto" } = this.#options;
    const limits = batchLimits(this.#options);
    const urls = moduleUrls(this.#options.wasmUrls);
    const started = connection.start({ type: "start", device, limits, storage, urls, ...(threads === undefined ? {} : { threads }), ...(calibrate === undefined ? {} : { calibrate }) });
    this.#running = { connection, started };
    started.then(
      (device) => this.#logger.info(`cinderlm runs on ${device.name}: ${device.reason}`),
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

  #makeWorker(): WorkerLike {
    try {
      return this.createWorker();
    } catch (error) {
      throw completionError("internal", `The worker could not be started: ${String(error)}.`);
    }
  }

  /** Runs a call, whose progress its own listener hears, and the instance's unless another call tells it of the same load. */
  async #reported<T>(options: LoadOptions, run: (hooks: CallHooks) => Promise<T>): Promise<T> {
    const call = {};
    const onProgress = (progress: LoadProgress): void => {
      options.onProgress?.(progress);
      if (!this.#reporters.has(progress.model)) this.#reporters.set(progress.model, call);
      if (this.#reporters.get(progress.model) === call) this.#options.onProgress?.(progress);
    };
    try {
      return await run({ signal: options.signal, onProgress });
    } finally {
      for (const [model, reporter] of this.#reporters) if (reporter === call) this.#reporters.delete(model);
    }
  }
}

function disposed(): CompletionError {
  return completionError("internal", "This Cinder was disposed.");
}

function checkSignal(signal: unknown): void {
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw new TypeError(`signal: expected an AbortSignal, got ${kindOf(signal)}.`);
}

/** A scope of the page's and a caller's are never the same. */
function scopeOf({ cacheScope = "", caller }: CallOptions): string {
  return caller === undefined ? `page ${cacheScope}` : `caller ${caller}`;
}

function kindOf(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "an array" : typeof value;
}

function tokenIds(ids: unknown): number[] {
  if (!Array.isArray(ids) && !ArrayBuffer.isView(ids)) throw completionError("invalid_type", `ids: expected an array of token ids, got ${kindOf(ids)}.`, "ids");
  return Array.from(ids as ArrayLike<unknown>, (id, index) => {
    if (typeof id !== "number") throw completionError("invalid_type", `ids[${index}]: expected a token id, got ${kindOf(id)}.`, `ids[${index}]`);
    return id;
  });
}

/**
 * Closes the connection when its worker is gone. A worker that the browser ended says nothing, but the lock it held falls free.
 */
function watchWorker(connection: Connection, lock: string): void {
  navigator.locks
    .request(lock, { mode: "shared" }, () => connection.close(completionError("internal", "The worker was ended by the browser.")))
    .catch(() => undefined); // The page is going away.
}

function batchLimits({ maxBatch, maxQueue, kvCacheBytes }: CinderOptions): BatchLimits {
  const limits: BatchLimits = {};
  if (maxBatch !== undefined) limits.maxBatch = maxBatch;
  if (maxQueue !== undefined) limits.maxQueue = maxQueue;
  if (kvCacheBytes !== undefined) limits.kvCacheBytes = kvCacheBytes;
  return limits;
}

function checkCount(name: string, value: number | undefined, min: number, max: number): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= min && value <= max)) return;
  throw new TypeError(`${name}: expected an integer from ${min} to ${max}, got ${String(value)}.`);
}

const MODULES = ["webgpu", "cpu", "cpuThreads"] as const satisfies (keyof ModuleUrls)[];

function checkUrls(urls: unknown): void {
  if (urls === undefined) return;
  if (typeof urls !== "object" || urls === null || urls instanceof URL) throw new TypeError(`wasmUrls: expected an object of addresses, got ${kindOf(urls)}.`);
  const unknown = Object.keys(urls).find((name) => !(MODULES as readonly string[]).includes(name));
  if (unknown !== undefined) throw new TypeError(`wasmUrls: expected ${MODULES.join(", ")}, got ${unknown}.`);
  for (const [name, url] of Object.entries(urls)) {
    if (url !== undefined && typeof url !== "string" && !(url instanceof URL)) throw new TypeError(`wasmUrls.${name}: expected an address, got ${kindOf(url)}.`);
  }
}

function moduleUrls(urls: CinderOptions["wasmUrls"] = {}): ModuleUrls {
  const absoluteUrls: ModuleUrls = {};
  for (const name of MODULES) if (urls[name] !== undefined) absoluteUrls[name] = absolute(urls[name]);
  return absoluteUrls;
}

function absolute(url: string | URL): string {
  return new URL(url, globalThis.location?.href).href;
}

/** The page's own backend answers over a port, for a worker cannot be given it. */
function wireStorage(cache: CinderOptions["cache"] = true): { storage: WireStorage; port?: MessagePort } {
  if (typeof cache === "boolean") return { storage: cache ? "origin-private" : "none" };
  const { port1, port2 } = new MessageChannel();
  serveStorage(cache, port1);
  return { storage: port2, port: port1 };
}

function checkBackend(cache: unknown): void {
  if (cache === undefined || typeof cache === "boolean") return;
  const methods = ["list", "read", "write", "flush", "close", "delete"] as const satisfies (keyof StorageBackend)[];
  const missing = methods.find((method) => typeof (cache as Partial<StorageBackend> | null)?.[method] !== "function");
  if (missing !== undefined) throw new TypeError(`cache: expected true, false or a StorageBackend, which has a method ${missing}.`);
}

function wireModel(model: ModelSource, version: number, token: string | undefined): WireModel {
  const { id, contextLength } = model;
  if ((model.url === undefined) === (model.file === undefined)) throw new TypeError(`Model "${id}": give either url or file.`);
  const parts = model.url === undefined ? givenParts(id, model.file) : remoteParts(id, model.url);
  const hashes = partHashes(id, model.sha256, parts.length);
  if (contextLength !== undefined && !(Number.isSafeInteger(contextLength) && contextLength > 0)) {
    throw new TypeError(`Model "${id}": contextLength must be a positive integer.`);
  }
  const wire: WireModel = { id, version, parts: parts.map((part, i) => (hashes === undefined ? part : { ...part, sha256: hashes[i] as string })) };
  if (contextLength !== undefined) wire.contextLength = contextLength;
  if (token !== undefined && model.url !== undefined) wire.token = token;
  return wire;
}

function remoteParts(id: string, url: unknown): WirePart[] {
  if (!(url instanceof URL) && (typeof url !== "string" || url === "")) throw new TypeError(`Model "${id}": url must be an address.`);
  return partAddresses(modelAddress(url)).map((address) => ({ url: address }));
}

function givenParts(id: string, file: unknown): WirePart[] {
  const files: unknown[] = Array.isArray(file) ? file : [file];
  if (files.length === 0) throw new TypeError(`Model "${id}": file must not be empty.`);
  return files.map((part) => {
    if (!(part instanceof Blob)) throw new TypeError(`Model "${id}": file must be a File or a Blob, or an array of these.`);
    return { file: part };
  });
}

function partHashes(id: string, sha256: unknown, nParts: number): string[] | undefined {
  if (sha256 === undefined) return undefined;
  const hashes: unknown[] = Array.isArray(sha256) ? sha256 : [sha256];
  if (hashes.length !== nParts) throw new TypeError(`Model "${id}": sha256 must have ${nParts}, one for each part, not ${hashes.length}.`);
  return hashes.map((hash) => {
    if (typeof hash !== "string" || !/^[0-9a-f]{64}$/i.test(hash)) throw new TypeError(`Model "${id}": sha256 must be 64 hexadecimal digits.`);
    return hash.toLowerCase();
  });
}
