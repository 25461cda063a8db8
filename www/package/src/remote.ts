import { EventSourceParserStream } from "eventsource-parser/stream";
import { abortReason } from "./abort.js";
import { nPrompts, type RequestEnd } from "./accounts.js";
import { STREAM_WINDOW } from "./connection.js";
import { completionError, CompletionError, ERROR_CODES, errorBody, type ErrorCode } from "./errors.js";
import { CompletionStream } from "./stream.js";
import type { Completion, CompletionChunk, CompletionChunkChoice, CompletionParams, Logprobs, RemoteOptions, RemoteRun, Usage } from "./types.js";

/** Characters of one event: far more than any chunk has, and a bound for a server that never ends one. */
const MAX_EVENT_CHARS = 2 ** 24;
/** Bytes of a whole answer, and of an error. */
const MAX_ANSWER_BYTES = 2 ** 26;
const MAX_ERROR_BYTES = 2 ** 16;
/** Characters of an answer that is quoted in an error. */
const MAX_QUOTED_CHARS = 200;
/** Events after all choices have ended that are borne with: one has the usage. */
const MAX_LATE_EVENTS = 4;

type JsonObject = Record<string, unknown>;

/** How a request that went to the server ended. */
export type RemoteEnd = (end: RequestEnd) => void;

/** A request under way. */
interface Call {
  params: CompletionParams;
  /** Aborted with what the caller is told: by the caller, or when the remote is closed. */
  stop: AbortController;
  clock: Clock;
  /** Forgets the call and the caller's signal. */
  forget(): void;
  /** To be told how it ended; only the first time counts. */
  ended: RemoteEnd;
}

/** Hands requests on to an OpenAI-compatible server. */
export class Remote {
  readonly #url: string;
  /** The address as errors show it: what a query holds may be secret. */
  readonly #name: string;
  readonly #apiKey: string | undefined;
  readonly #calls = new Set<AbortController>();
  #closed: CompletionError | undefined;

  /** @throws TypeError for options that are wrong in themselves. */
  constructor({ baseURL, apiKey }: RemoteOptions) {
    const url = new URL(baseURL, globalThis.location?.href);
    if (url.protocol !== "https:" && url.protocol !== "http:") throw new TypeError(`remote.baseURL: expected an http or https address, got ${url.protocol}.`);
    if (url.username !== "" || url.password !== "") throw new TypeError("remote.baseURL: expected an address without a user name or password; use apiKey.");
    if (apiKey !== undefined && (typeof apiKey !== "string" || apiKey === "")) throw new TypeError("remote.apiKey: expected a text that is not empty.");
    if (apiKey !== undefined && url.protocol === "http:" && !isLoopback(url.hostname)) {
      throw new TypeError("remote.apiKey: a key is sent over https only, except to this machine.");
    }
    url.hash = "";
    url.pathname = `${url.pathname.replace(/\/+$/, "")}/completions`;
    this.#url = url.href;
    this.#name = url.origin + url.pathname;
    this.#apiKey = apiKey;
  }

  /** Ends every request that runs with an error, and those that come later. */
  close(error: CompletionError): void {
    this.#closed = error;
    for (const stop of this.#calls) stop.abort(error);
  }

  /**
   * Completes a prompt. `ended` is called once.
   *
   * @throws CompletionError `remote_failed`, or what the server answers where that is an error of the contract.
   */
  async complete(params: CompletionParams, signal: AbortSignal | undefined, ended: RemoteEnd): Promise<Completion> {
    const call = this.#begin(params, signal, ended);
    try {
      const response = await this.#post(call);
      const answer = this.#object(await this.#text(response, MAX_ANSWER_BYTES));
      const course = new Course(params, call.clock, (what) => this.#failure(what));
      const completion = course.whole(answer);
      call.ended({ ran_on: "remote", outcome: "completed", usage: completion.usage, timings: call.clock.timings() });
      return completion;
    } catch (error) {
      throw this.#ended(error, call, null);
    } finally {
      call.forget();
    }
  }

  /** Streams a completion; resolves when the server has begun to answer. `ended` is called once. */
  async stream(params: CompletionParams, signal: AbortSignal | undefined, ended: RemoteEnd): Promise<CompletionStream> {
    const call = this.#begin(params, signal, ended);
    try {
      const response = await this.#post(call);
      if (response.body === null || !/^text\/event-stream\b/i.test(response.headers.get("content-type") ?? "")) {
        await response.body?.cancel();
        throw this.#failure("answered without an event stream");
      }
      return this.#pump(response.body, call);
    } catch (error) {
      call.forget();
      throw this.#ended(error, call, null);
    }
  }

  #begin(params: CompletionParams, signal: AbortSignal | undefined, ended: RemoteEnd): Call {
    const stop = new AbortController();
    const follow = (): void => stop.abort(abortReason(signal));
    if (this.#closed !== undefined) stop.abort(this.#closed);
    if (signal?.aborted) follow();
    signal?.addEventListener("abort", follow, { once: true });
    this.#calls.add(stop);
    const forget = (): void => {
      signal?.removeEventListener("abort", follow);
      this.#calls.delete(stop);
    };
    let isEnded = false;
    const endedOnce: RemoteEnd = (end) => {
      if (!isEnded) ended(end);
      isEnded = true;
    };
    return { params, stop, clock: new Clock(), forget, ended: endedOnce };
  }

  /** Reads the server's events as fast as the consumer takes them. */
  #pump(body: ReadableStream<Uint8Array>, call: Call): CompletionStream {
    const { signal } = call.stop;
    let nUnread = 0;
    let wake = (): void => undefined;
    const stream = new CompletionStream({
      taken: () => {
        nUnread -= 1;
        wake();
      },
      left: () => call.stop.abort(abortReason()),
      ended: call.forget,
    });
    const course = new Course(call.params, call.clock, (what) => this.#failure(what));
    signal.addEventListener("abort", () => {
      wake();
      stream.abort(this.#ended(signal.reason, call, course.usage));
    });
    const push = (chunk: CompletionChunk): void => {
      nUnread += 1;
      stream.push(chunk);
    };
    const events = body
      .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
      .pipeThrough(new EventSourceParserStream({ maxBufferSize: MAX_EVENT_CHARS }));
    const run = async (): Promise<void> => {
      const reader = events.getReader();
      try {
        for (;;) {
          while (nUnread >= STREAM_WINDOW && !signal.aborted) await new Promise<void>((resolve) => (wake = resolve));
          signal.throwIfAborted();
          const { done, value } = await reader.read();
          signal.throwIfAborted();
          if (done || value.data === "[DONE]") break;
          push(course.take(this.#event(value.data)));
        }
        const last = course.last();
        if (last !== undefined) push(last);
        call.ended({ ran_on: "remote", outcome: "completed", usage: course.usage, timings: call.clock.timings() });
        stream.finish();
      } catch (error) {
        call.forget();
        const own = this.#ended(error, call, course.usage);
        if (!signal.aborted) stream.fail(own);
      } finally {
        reader.cancel().catch(() => undefined); // It has ended, or failed as told above.
      }
    };
    void run();
    return stream;
  }

  async #post({ params, stop: { signal } }: Call): Promise<Response> {
    const headers: Record<string, string> = { "content-type": "application/json", accept: params.stream === true ? "text/event-stream" : "application/json" };
    if (this.#apiKey !== undefined) headers["authorization"] = `Bearer ${this.#apiKey}`;
    const body = toJson(params);
    let response: Response;
    try {
      // A redirect would take the prompt, and perhaps the key, to whom nobody named.
      response = await fetch(this.#url, { method: "POST", headers, body, signal, redirect: "error", credentials: "omit" });
    } catch (error) {
      throw this.#failure(`cannot be reached: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (!response.ok) throw await this.#refusal(response);
    return response;
  }

  /** The text of an answer of at most so many bytes. */
  async #text(response: Response, maxBytes: number): Promise<string> {
    const reader = response.body?.getReader();
    const decoder = new TextDecoder();
    let [text, nBytes] = ["", 0];
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true };
      if (done || value === undefined) return text + decoder.decode();
      nBytes += value.byteLength;
      if (nBytes > maxBytes) {
        await reader?.cancel();
        throw this.#failure(`answered more than ${maxBytes} bytes`);
      }
      text += decoder.decode(value, { stream: true });
    }
  }

  #event(data: string): JsonObject {
    const event = this.#object(data);
    const error = event["error"];
    if (error !== undefined && error !== null) throw this.#failure(`failed: ${quoted(isObject(error) ? String(error["message"]) : JSON.stringify(error))}`);
    return event;
  }

  #object(text: string): JsonObject {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      throw this.#failure(`answered what is no JSON: ${quoted(text)}`);
    }
    if (!isObject(value)) throw this.#failure(`answered no object: ${quoted(text)}`);
    return value;
  }

  /** What an answer with another status than 200 means. */
  async #refusal(response: Response): Promise<CompletionError> {
    const text = await this.#text(response, MAX_ERROR_BYTES).catch(() => "");
    let error: JsonObject = {};
    try {
      const body: unknown = JSON.parse(text);
      if (isObject(body) && isObject(body["error"])) error = body["error"];
    } catch {
      // Quoted as it is.
    }
    const said = typeof error["message"] === "string" ? error["message"] : text;
    const message = `The server at ${this.#name} answered ${response.status}: ${quoted(said) || response.statusText}.`;
    const param = typeof error["param"] === "string" ? error["param"] : null;
    const retryAfter = Number(response.headers.get("retry-after") ?? Number.NaN);
    return new CompletionError({ ...errorBody(refusalCode(response.status, error["code"]), message, param), ...(retryAfter > 0 ? { retry_after: retryAfter } : {}) });
  }

  #failure(what: string): CompletionError {
    return completionError("remote_failed", `The server at ${this.#name} ${what}.`);
  }

  /** Reports the end of a request that did not succeed; gives what its caller is told. */
  #ended(error: unknown, { stop: { signal }, clock, ended }: Call, usage: Usage | null): unknown {
    const cause: unknown = signal.aborted ? signal.reason : error;
    const isOwn = cause instanceof CompletionError || signal.aborted;
    const own = isOwn ? cause : this.#failure(`failed: ${error instanceof Error ? error.message : String(error)}`);
    const outcome = signal.aborted && !(cause instanceof CompletionError) ? "aborted" : "failed";
    ended({ ran_on: "remote", outcome, error: own, usage, timings: clock.timings() });
    return own;
  }
}

/** The contract's code for a refusal: the server's own if it goes with the status, or what the status says. */
function refusalCode(status: number, code: unknown): ErrorCode {
  const usual: Partial<Record<number, ErrorCode>> = { 400: "unsupported_parameter", 422: "unsupported_parameter", 401: "invalid_api_key", 403: "invalid_api_key", 404: "model_not_found", 429: "queue_full" };
  const known = ERROR_CODES.find((one) => one === code);
  return known !== undefined && errorBody(known, "").status === status ? known : (usual[status] ?? "remote_failed");
}

/** Times of one request. */
class Clock {
  readonly #start = performance.now();
  #firstToken: number | null = null;

  /** A token has come. */
  token(): void {
    this.#firstToken ??= performance.now() - this.#start;
  }

  timings(): RemoteRun["timings"] {
    return { first_token_millis: this.#firstToken, total_millis: performance.now() - this.#start };
  }

  run(): RemoteRun {
    return { ran_on: "remote", device: null, timings: this.timings() };
  }
}

/**
 * Reads a server's answer, or its events one after another, as strictly as if it were hostile: what the caller gets has the types that it
 * promises. Where a stream ran is told on its last chunk, and one that breaks off is told from one that ends.
 */
class Course {
  readonly #clock: Clock;
  readonly #failure: (what: string) => CompletionError;
  readonly #hasUsage: boolean;
  readonly #nChoices: number;
  readonly #ended = new Set<number>();
  #nLate = 0;
  #latest: CompletionChunk | undefined;
  #isTold = false;
  usage: Usage | null = null;

  constructor(params: CompletionParams, clock: Clock, failure: (what: string) => CompletionError) {
    this.#clock = clock;
    this.#failure = failure;
    this.#hasUsage = params.stream_options?.include_usage === true;
    this.#nChoices = nPrompts(params) * Number(params.n ?? 1);
  }

  /** A whole answer. */
  whole(answer: JsonObject): Completion {
    if (!Array.isArray(answer["choices"])) throw this.#failure("answered without choices");
    const chunk = this.#chunk(answer);
    if (this.#ended.size !== this.#nChoices) throw this.#failure(`answered ${this.#ended.size} of ${this.#nChoices} choices`);
    const usage = readUsage(answer);
    if (usage === undefined) throw this.#failure("answered without usage");
    chunk.choices.sort((a, b) => a.index - b.index);
    return { ...chunk, usage, cinderlm: this.#clock.run() } as Completion;
  }

  /** The next event. */
  take(event: JsonObject): CompletionChunk {
    if (this.#isComplete && ++this.#nLate > MAX_LATE_EVENTS) throw this.#failure("goes on after the end");
    const chunk = this.#chunk(event);
    this.usage = readUsage(event) ?? this.usage;
    if (this.#hasUsage) chunk.usage = readUsage(event) ?? null;
    const isLast = this.#hasUsage ? chunk.choices.length === 0 && this.usage !== null : this.#isComplete;
    if (isLast && !this.#isTold) {
      this.#isTold = true;
      chunk.cinderlm = this.#clock.run();
    }
    this.#latest = chunk;
    return chunk;
  }

  /** After the last event: a chunk that says where it ran, if none has. */
  last(): CompletionChunk | undefined {
    if (!this.#isComplete) throw this.#failure("ended its stream before the completion was whole");
    if (this.#isTold || this.#latest === undefined) return undefined;
    return { ...this.#latest, choices: [], ...(this.#hasUsage ? { usage: this.usage } : {}), cinderlm: this.#clock.run() };
  }

  get #isComplete(): boolean {
    return this.#ended.size === this.#nChoices;
  }

  /** The fields of the contract, whichever the server left out. */
  #chunk(event: JsonObject): CompletionChunk {
    const choices = event["choices"] ?? [];
    if (!Array.isArray(choices)) throw this.#failure("answered choices that are no list");
    return {
      id: typeof event["id"] === "string" ? event["id"] : "",
      object: "text_completion",
      created: isCount(event["created"]) ? event["created"] : 0,
      model: typeof event["model"] === "string" ? event["model"] : "",
      system_fingerprint: typeof event["system_fingerprint"] === "string" ? event["system_fingerprint"] : "",
      choices: choices.map((choice: unknown) => this.#choice(choice)),
    };
  }

  #choice(choice: unknown): CompletionChunkChoice {
    const { index, text, logprobs = null, finish_reason = null } = isObject(choice) ? choice : {};
    if (!isCount(index) || index >= this.#nChoices) throw this.#failure(`answered a choice with index ${String(index)}, of ${this.#nChoices}`);
    if (typeof text !== "string") throw this.#failure("answered a choice without text");
    if (finish_reason !== null && finish_reason !== "stop" && finish_reason !== "length") {
      throw this.#failure(`answered a choice that ended with ${quoted(JSON.stringify(finish_reason))}`);
    }
    if (logprobs !== null && !isLogprobs(logprobs)) throw this.#failure("answered logprobs that are no four lists of one length");
    if (this.#ended.has(index)) throw this.#failure(`answered choice ${index} after its end`);
    if (text !== "") this.#clock.token();
    if (finish_reason !== null) this.#ended.add(index);
    return { index, text, logprobs, finish_reason };
  }
}

function isLogprobs(value: unknown): value is Logprobs {
  if (!isObject(value)) return false;
  const { tokens, token_logprobs, top_logprobs, text_offset } = value;
  if (!Array.isArray(tokens) || !tokens.every((token) => typeof token === "string")) return false;
  const isNumber = (one: unknown): boolean => typeof one === "number";
  const ofLength = (list: unknown, check: (one: unknown) => boolean): boolean => Array.isArray(list) && list.length === tokens.length && list.every(check);
  return (
    ofLength(token_logprobs, (one) => one === null || isNumber(one)) &&
    ofLength(text_offset, isNumber) &&
    (top_logprobs === null || top_logprobs === undefined || ofLength(top_logprobs, (one) => one === null || (isObject(one) && Object.values(one).every(isNumber))))
  );
}

function readUsage({ usage }: JsonObject): Usage | undefined {
  if (!isObject(usage)) return undefined;
  const { prompt_tokens, completion_tokens = 0 } = usage;
  if (!isCount(prompt_tokens) || !isCount(completion_tokens)) return undefined;
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** JSON, in which a `BigInt` is the integer that it is. Only `seed` may be one that no number holds. */
function toJson({ seed, ...others }: CompletionParams): string {
  const json = JSON.stringify(typeof seed === "bigint" ? others : { ...others, seed }, (_, value: unknown) => (typeof value === "bigint" ? Number(value) : value));
  return typeof seed === "bigint" ? `${json.slice(0, -1)},"seed":${seed}}` : json;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname.endsWith(".localhost") || hostname === "[::1]" || /^127(?:\.\d{1,3}){3}$/.test(hostname);
}

function quoted(text: string): string {
  const trimmed = text.trim();
  return trimmed.length > MAX_QUOTED_CHARS ? `${trimmed.slice(0, MAX_QUOTED_CHARS)}…` : trimmed;
}
