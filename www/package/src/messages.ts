import type { ErrorBody } from "./errors.js";
import type { ThreadsStarted, ThreadStart } from "./threads.js";
import type { Completion, CompletionChunk, CompletionParams, DeviceInfo, DeviceKind, LoadProgress, MemoryStats, ModelInfo, ModelStats, Timings, Usage } from "./types.js";

/** A {@link ModelSource} in a form that crosses the worker boundary. */
export interface WireModel {
  id: string;
  /** Counts registrations: the same id with another number is another model. */
  version: number;
  /** One file, or the parts that it was split into, in order. */
  parts: WirePart[];
  contextLength?: number;
  /** Bearer token for the addresses of its parts. */
  token?: string;
}

/** One file of a model: exactly one of `url` and `file` is given. */
export interface WirePart {
  url?: string;
  file?: Blob;
  /** Lower-case hexadecimal. */
  sha256?: string;
}

/** Where a worker keeps downloads: nowhere, in the origin private file system, or with the page's own backend, at the other end of a port. */
export type WireStorage = "none" | "origin-private" | MessagePort;

/** Where the modules are that are not beside the worker. */
export interface ModuleUrls {
  webgpu?: string;
  cpu?: string;
  cpuThreads?: string;
}

/** How many choices and calls a model takes at a time, and what it keeps of them. */
export interface BatchLimits {
  maxBatch?: number;
  maxQueue?: number;
  kvCacheBytes?: number;
}

/** From page to worker. Every request carries an `id` that its answers repeat. */
export type Request =
  | { type: "start"; id: number; device: DeviceKind; limits: BatchLimits; storage: WireStorage; urls: ModuleUrls; threads?: number; calibrate?: boolean }
  | { type: "load"; id: number; model: WireModel }
  | { type: "complete"; id: number; model: WireModel; params: CompletionParams; window: number; cacheScope: string }
  | { type: "tokenize"; id: number; model: WireModel; text: string }
  | { type: "detokenize"; id: number; model: WireModel; ids: number[] }
  | { type: "unload"; id: number; model: string }
  | { type: "memory"; id: number }
  | { type: "stats"; id: number }
  /** The consumer took `count` chunks: as many more may be sent. */
  | { type: "credit"; id: number; count: number }
  /** What came of the threads that the worker asked for. */
  | ({ type: "threads"; id: number } & ThreadsStarted)
  | { type: "cancel"; id: number };

/** What an answer of each kind of request carries. */
export interface Results {
  start: DeviceInfo;
  load: ModelInfo;
  complete: Completion | undefined;
  tokenize: number[];
  detokenize: string;
  unload: undefined;
  memory: MemoryStats;
  stats: Record<string, ModelStats>;
}

/** The requests that get exactly one `result` or `error`. */
export type Call = Extract<Request, { type: keyof Results }>;

/** What a completion has used, however it ended. */
export interface LocalReport {
  usage: Usage;
  timings: Timings;
}

/** From worker to page. */
export type Reply =
  | { type: "progress"; id: number; progress: LoadProgress }
  | { type: "chunk"; id: number; chunk: CompletionChunk }
  /** The worker runs, and holds this lock until it ends. */
  | { type: "alive"; lock: string }
  | { type: "loaded"; info: ModelInfo }
  /** Something went wrong without which the worker goes on. */
  | { type: "warning"; message: string }
  /** The worker wants so many threads. */
  | { type: "threads"; count: number; start: ThreadStart }
  | { type: "result"; id: number; value: unknown; report?: LocalReport }
  | { type: "error"; id: number; error: ErrorBody; report?: LocalReport }
  /** The call ended because it was cancelled. */
  | { type: "cancelled"; id: number; report?: LocalReport }
  /** The worker can do nothing more: every call fails with this, and the page starts another. */
  | { type: "fatal"; error: ErrorBody };
