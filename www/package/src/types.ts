import type { GpuWork } from "./gpu-meter.js";
import type { StorageBackend, StorageNotice } from "./storage.js";

/** Types of the completion contract. Rust's `cinderlm-protocol` is the authority; these mirror it. */

/** A model's prompt: text, several texts, token ids, or several lists of token ids. */
export type Prompt = string | string[] | number[] | number[][];

/** Fields of a completion request. Unknown fields are rejected by name. */
export interface CompletionParams {
  /** Id of a registered model. It is loaded first when it is not in memory yet. */
  model: string;
  /** What to continue. Default: the model's own start of a document. */
  prompt?: Prompt | null;
  /** Text that follows the completion; only for models with fill-in-the-middle tokens. */
  suffix?: string | null;
  /** Tokens to generate at most. Default 16; 0 only together with `echo`. */
  max_tokens?: number | null;
  /** Choices per prompt, 1 to 128. Default 1. */
  n?: number | null;
  /** Generate this many (at most 20) and return the `n` likeliest. Not with `stream` when greater than `n`. */
  best_of?: number | null;
  /** Put the prompt's text before the completion. */
  echo?: boolean | null;
  /** Report log-probabilities of the sampled token and of this many likeliest ones, 0 to 5. */
  logprobs?: number | null;
  /** 0 (greedy) to 2. Default 1. */
  temperature?: number | null;
  /** Nucleus sampling: the smallest set of tokens with this mass, 0 to 1. Default 1. */
  top_p?: number | null;
  /** Per earlier occurrence in this choice, -2 to 2. */
  frequency_penalty?: number | null;
  /** Once for tokens that occurred in this choice, -2 to 2. */
  presence_penalty?: number | null;
  /** Token id to bias, -100 (ban) to 100 (force). */
  logit_bias?: Record<string, number> | null;
  /** Makes sampling repeatable. A safe integer or a 64-bit BigInt. */
  seed?: number | bigint | null;
  /** Up to four strings that end the completion; they are never part of its text. */
  stop?: string | string[] | null;
  /** Stream chunks instead of returning one completion. */
  stream?: boolean | null;
  /** Only with `stream`. */
  stream_options?: StreamOptions | null;
  /** Name of the end user, handed on to hooks. */
  user?: string | null;
}

/** Options of a streamed completion. */
export interface StreamOptions {
  /** Close the stream with a chunk that has no choices and the totals in `usage`. */
  include_usage?: boolean | null;
  /** Accepted for compatibility; text that never leaves the process needs no padding. */
  include_obfuscation?: boolean | null;
}

/** A request that asks for a stream. */
export interface StreamingCompletionParams extends CompletionParams {
  stream: true;
}

/** A request that asks for one whole completion. */
export interface WholeCompletionParams extends CompletionParams {
  stream?: false | null;
}

/** Why a choice ended: the model or a stop string (`stop`), or `max_tokens` (`length`). */
export type FinishReason = "stop" | "length";

/** Log-probabilities, natural logarithm, in four arrays of one length. */
export interface Logprobs {
  /** Text of each token; `bytes:\xe2\x80` where it is no valid UTF-8 by itself. */
  tokens: string[];
  /** Null for the first token of an echoed prompt; -9999 stands for minus infinity. */
  token_logprobs: (number | null)[];
  /** The likeliest tokens and the sampled one, best first; null with `logprobs: 0`. */
  top_logprobs: (Record<string, number> | null)[] | null;
  /** Where each token starts, in UTF-16 code units of prompt + text. */
  text_offset: number[];
}

/** One of the answers to a prompt. */
export interface CompletionChoice {
  /** Prompt index times `n`, plus the number of the choice. */
  index: number;
  text: string;
  logprobs: Logprobs | null;
  finish_reason: FinishReason;
}

/** A part of a choice, as it streams. */
export interface CompletionChunkChoice {
  index: number;
  text: string;
  logprobs: Logprobs | null;
  /** Null until the choice ends. */
  finish_reason: FinishReason | null;
}

/** Token counts of a request. */
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** Where and how fast a completion ran. */
export type CinderInfo = LocalRun | RemoteRun;

/** A completion that was made in this browser. */
export interface LocalRun {
  ran_on: "local";
  device: "webgpu" | "cpu";
  timings: Timings;
}

/** A completion that was handed to a server, see {@link CinderOptions.remote}. */
export interface RemoteRun {
  ran_on: "remote";
  device: null;
  timings: RemoteTimings;
}

/** How long a server took, in milliseconds, the way there and back included. */
export interface RemoteTimings {
  /** Until the first text of a stream; null for a whole completion. */
  first_token_millis: number | null;
  total_millis: number;
}

/** How long the parts of a request took, in milliseconds. */
export interface Timings {
  /** Waiting for its turn. */
  queue_millis: number;
  /** Loading the model, where this request had to wait for that. */
  load_millis: number;
  /** Feeding the prompts. */
  prompt_millis: number;
  /** From the request's start to its first token; null when none was generated. */
  first_token_millis: number | null;
  /** Generating. */
  decode_millis: number;
  /** Generated tokens per second of `decode_millis`; null when there was nothing to measure. */
  tokens_per_second: number | null;
}

/** A whole completion. */
export interface Completion {
  id: string;
  object: "text_completion";
  /** Unix time, seconds. */
  created: number;
  model: string;
  /** Changes with all that may change the output for the same seed. Empty where a server does not tell. */
  system_fingerprint: string;
  choices: CompletionChoice[];
  usage: Usage;
  cinderlm: CinderInfo;
}

/** A streamed part of a completion. */
export interface CompletionChunk {
  id: string;
  object: "text_completion";
  created: number;
  model: string;
  system_fingerprint: string;
  choices: CompletionChunkChoice[];
  /** Present with `include_usage`: null, and the totals on the last chunk. */
  usage?: Usage | null;
  /** On the last chunk. */
  cinderlm?: CinderInfo;
}

/** The device to run on: `auto` takes WebGPU where a real adapter offers it, and the CPU elsewhere. */
export type DeviceKind = "auto" | "webgpu" | "cpu";

/** A model that requests may name. Exactly one of `url` and `file` is given. */
export interface ModelSource {
  /** The name that requests use. */
  id: string;
  /**
   * Where the GGUF file is: an address, relative ones resolved against the page, or `hf:owner/repo/file.gguf@revision` for one on the
   * Hugging Face hub (without a revision, `main`). Of a split model, the address of the first part (`…-00001-of-00003.gguf`): the others are
   * looked for beside it.
   */
  url?: string | URL;
  /** The GGUF file itself, or the parts of a split one, in order. */
  file?: Blob | readonly Blob[];
  /**
   * Hexadecimal SHA-256 of the file, or of each part of a split one, in order; a file that differs is refused with `integrity_mismatch`, after
   * it was downloaded once more.
   */
  sha256?: string | readonly string[];
  /** Use at most this many tokens of context. */
  contextLength?: number;
}

/** What is known of a registered model. */
export interface ModelInfo {
  id: string;
  loaded: boolean;
  /** Set once loaded. */
  architecture?: string;
  contextLength?: number;
  vocabularySize?: number;
  /** Bytes of its file, or of all its parts. */
  fileBytes?: number;
  /** Hexadecimal SHA-256 of its file, or of each of its parts. */
  sha256?: string[];
  /** Why its file is not kept, if it should have been. */
  notStored?: StorageNotice;
  /** What its kernels were compiled for. Set once loaded on WebGPU. */
  kernels?: KernelInfo;
}

/** The parameters of a model's kernels, and whether they are those of the adapter's class, of an earlier calibration that was kept, or of one now. */
export interface KernelInfo {
  origin: "default" | "kept" | "calibrated";
  parameters: Record<string, number>;
}

/** Where the bytes of a model come from: the network, what is stored on this device, or a given file. */
export type LoadPhase = "download" | "cache" | "file";

/** Progress of loading a model. */
export interface LoadProgress {
  model: string;
  /** `ready` once, at the end. */
  phase: LoadPhase | "ready";
  /** Bytes of the model that have been read; of one that another tab downloads, those that it has. */
  bytes: number;
  /** Bytes in all, where the source tells. */
  total?: number;
  /** Bytes per second of late, once something can be told. */
  rate?: number;
  /** Seconds that the rest takes at this rate. */
  secondsLeft?: number;
}

/** Which device runs, and why it was chosen. */
export interface DeviceInfo {
  kind: "webgpu" | "cpu";
  /** The adapter's name, or `cpu`. */
  name: string;
  /** Why this one, and on the CPU why on so many threads: sentences for people. */
  reason: string;
  /** Threads that share the CPU's work; 1 on WebGPU. */
  threads: number;
}

/** Memory that the runtime holds, in bytes. */
export interface MemoryStats {
  /** Size of the WebAssembly memory; it never shrinks. */
  wasmBytes: number;
  /** Size of all live WebGPU buffers. */
  gpuBytes: number;
}

/** Steps of one kind that a model has run, and what they cost the GPU; all zero on the CPU. */
export interface StepStats {
  steps: number;
  /** Tokens that were fed in them. */
  tokens: number;
  /** All of them together. */
  total: GpuWork;
  /** The last one that cost anything: a step that is begun while the one before it runs counts there. */
  last: GpuWork;
}

/** What a model holds of calls, running and earlier, what that was good for, and what its steps cost. */
export interface ModelStats {
  /** Prompts that began as an earlier call did. */
  hits: number;
  /** Tokens of theirs that did not have to be read. */
  savedTokens: number;
  keptTokens: number;
  /** Bytes of the keys and values of these. */
  keptBytes: number;
  /** Bytes of all keys and values that the model holds, those of running calls included; null while a step uses them. */
  kvBytes: number | null;
  /** Steps of one token for each choice. */
  decode: StepStats;
  /** Steps with pieces of prompts. */
  prefill: StepStats;
}

/** A server that requests may be handed to. */
export interface RemoteOptions {
  /** Address of an OpenAI-compatible API, `/v1` included: `/completions` is appended to its path. */
  baseURL: string | URL;
  /** Sent to that address only, as a bearer token; over https, or to this machine. */
  apiKey?: string;
  /**
   * `never` (the default): not at all. `fallback`: requests for models that are not registered here, and those whose model this device cannot
   * hold, get or read. `always`: every request.
   */
  use?: "never" | "fallback" | "always";
}

/**
 * What the requests of one user may have. Requests without a `user` count as one user's; those that {@link Cinder.fetch} takes with one of
 * `apiKeys` count by the key, for clients choose their `user` themselves.
 */
export interface UserLimits {
  /** Requests at a time. */
  concurrent?: number;
  /**
   * Tokens of the prompts and completions of the last minute. Running requests count with the most that they may generate. A user who has
   * used nothing may ask for more.
   */
  tokensPerMinute?: number;
}

/** Past a limit a request is refused with `user_limit` (429), which says when to try again. */
export interface Limits {
  perUser?: UserLimits;
}

/** What a request has used. */
export interface RequestReport {
  /** The request's `user`. */
  user: string | null;
  model: string;
  ran_on: "local" | "remote";
  outcome: "completed" | "aborted" | "failed";
  /** The code of the {@link CompletionError} that it failed with, if it did. */
  error_code: string | null;
  /** Counted up to an abort or failure too; null where a server did not say, or the worker died with it. */
  usage: Usage | null;
  /** When it began: Unix time, milliseconds. */
  created_millis: number;
  /** From then to its end, the time its consumer took included. */
  duration_millis: number;
  timings: Timings | RemoteTimings | null;
}

/** Receives what the library has to say; `console` is one. */
export interface Logger {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

/** Where the modules of the kinds of device are. */
export interface WasmUrls {
  /** `cinderlm-webgpu.wasm`. */
  webgpu?: string | URL;
  /** `cinderlm-cpu.wasm`. */
  cpu?: string | URL;
  /** `cinderlm-cpu-threads.wasm`, for the CPU in pages that are cross-origin isolated. It needs `thread.js` beside `worker.js`. */
  cpuThreads?: string | URL;
}

/** Options of a {@link Cinder}. */
export interface CinderOptions {
  /** Default `auto`. */
  device?: DeviceKind;
  /** Models that requests may name. */
  models?: ModelSource[];
  /**
   * Bearer token for downloading weights. Sent with `https:` (or same-origin) model addresses only; the browser drops it on a
   * redirect to another origin. Never logged, never stored.
   */
  token?: string;
  /**
   * Keeps the files of models on this device, so that each is downloaded once, and a download that was cut off goes on where it was. Default
   * `true`, which is in the origin private file system; `false` keeps nothing; a {@link StorageBackend} keeps them where it likes. Files that are given, and those
   * that their server marks as `no-store`, are not kept. A stored file is used as it is, without asking the server whether it has another.
   */
  cache?: boolean | StorageBackend;
  /** Keys of which {@link Cinder.fetch} asks one as a bearer token; without them it answers everybody. */
  apiKeys?: string[];
  /** Called while models load: once for each event, however many calls wait for the model. */
  onProgress?: (progress: LoadProgress) => void;
  /** Default: silent. */
  logger?: Logger;
  /** Choices that a model generates at a time, over all calls; the others wait. 1 to 256, default 16. */
  maxBatch?: number;
  /** A server for what this device cannot do. Default: none; nothing leaves the machine. Every completion says where it ran. */
  remote?: RemoteOptions;
  /** What each `user` may have. Default: no limits. */
  limits?: Limits;
  /** Called once for each request that was taken on, when it has ended, however it ended. */
  onUsage?: (report: RequestReport) => void;
  /** Calls that may wait for a model; one more is refused with `queue_full`. Default 64. */
  maxQueue?: number;
  /**
   * Bytes of keys and values that each model holds. A choice waits until there is room for its prompt and `max_tokens`; one that is alone
   * may have more. Up to half of them are kept of earlier calls: a prompt that begins as one of those did is read from where they part, so
   * an editor that sends a growing text pays for the new part only. Default 256 MiB; 0 keeps nothing and runs one choice at a time.
   */
  kvCacheBytes?: number;
  /** Where `worker.js` is, when it is not beside `index.js`. */
  workerUrl?: string | URL;
  /** Where the modules are, when they are not beside `worker.js`. One is downloaded, that of the device that runs. */
  wasmUrls?: WasmUrls;
  /**
   * Threads that share the CPU's work, where the page is cross-origin isolated; elsewhere there is one. 1 to 64. Default: as many as the
   * machine has cores, up to 8. They change no result.
   */
  threads?: number;
  /**
   * Whether the first model that is loaded on WebGPU has variants of the kernel parameters tried, which takes up to two seconds once; what was fastest
   * is kept beside the models' files, for this adapter and version. Default: on a real GPU, where there is a place to keep it. A calibration
   * changes logits by rounding, and with them `system_fingerprint`.
   */
  calibrate?: boolean;
}

/** Options of one call. */
export interface CallOptions {
  /**
   * Names those who share what is kept of earlier calls. How fast a prompt is read tells whether one like it was read before, so callers
   * that must not learn of each other need scopes of their own. Default: one for the {@link Cinder}; {@link Cinder.fetch} gives each of
   * `apiKeys` its own.
   */
  cacheScope?: string;
  /** The key that a caller brought: limits count by it, and it has a scope of its own. @internal */
  caller?: string;
  /** Aborting it stops the work within one token and rejects with `AbortError`, whose `cause` is the signal's reason if that is another. */
  signal?: AbortSignal;
}

/** Options of {@link Cinder.load}. */
export interface LoadOptions extends Pick<CallOptions, "signal"> {
  onProgress?: (progress: LoadProgress) => void;
}
