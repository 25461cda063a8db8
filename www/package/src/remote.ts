import { EventSourceParserStream } from "eventsource-parser/stream";
import { abortReason } from "./abort.js";
import { nPrompts, type RequestEnd } from "./accounts.js";
import { STREAM_WINDOW } from "./connection.js";
import { completionError, CompletionError, ERROR_CODES, errorBody, type ErrorBody, type ErrorCode } from "./errors.js";
import { CompletionStream } from "./stream.js";
import type { Completion, CompletionChunk, CompletionChunkChoice, CompletionParams, RemoteOptions, RemoteRun, Usage } from "./types.js";

/** Characters of one event: far more than any chunk has, and a bound for a server that never ends one. */
const MAX_EVENT_CHARS = 2 ** 24;
/** Characters of an answer that is quoted in an error. */
const MAX_QUOTED_CHARS = 200;

type JsonObject = Record<string, unknown>;

/** How a request that went to the server ended. */
export type RemoteEnd = (end: RequestEnd) => void;

/** Hands requests on to an OpenAI-compatible server. */
export class Remote {
  readonly #url: string;
  readonly #apiKey: string | undefined;

  /** @throws TypeError for options that are wrong in themselves. */
  constructor({ baseURL, apiKey }: RemoteOptions) {
    const url = new URL(`${String(baseURL).replace(/\/+$/, "")}/completions`, globalThis.location?.href);
    if (url.protocol !== "https:" && url.protocol !== "http:") throw new TypeError(`remote.baseURL: expected an http or https address, got ${String(baseURL)}.`);
    if (apiKey !== undefined && (typeof apiKey !== "string" || apiKey === "")) throw new TypeError("remote.apiKey: expected a text that is not empty.");
    if (apiKey !== undefined && url.protocol === "http:" && !isLoopback(url.hostname)) {
      throw new TypeError("remote.apiKey: a key is sent over https only, except to this machine.");
    }
    this.#url = url.href;
    this.#apiKey = apiKey;
  }

  /**
   * Completes a prompt. `ended` is called once.
   *
   * @throws CompletionError `remote_failed`, or what the server answers where that is an error of the contract.
   */
  async complete(params: CompletionParams, signal: AbortSignal | undefined, ended: RemoteEnd): Promise<Completion> {
    const clock = new Clock();
    try {
      const response = await this.#post(params, signal);
      const answer = await this.#json(response);
      if (!Array.isArray(answer["choices"])) throw this.#failure("answered without choices");
      const [nFound, nAsked] = [answer["choices"].length, nChoices(params)];
      if (nFound !== nAsked) throw this.#failure(`answered ${nFound} of ${nAsked} choices`);
      const usage = readUsage(answer);
      if (usage === undefined) throw this.#failure("answered without usage");
      const cinderlm = clock.run();
      ended({ ran_on: "remote", outcome: "completed", usage, timings: cinderlm.timings });
      return { ...readChunk(answer), usage, cinderlm } as Completion;
    } catch (error) {
      throw this.#ended(error, signal, clock, null, ended);
    }
  }

  /** Streams a completion; resolves when the server has begun to answer. `ended` is called once. */
  async stream(params: CompletionParams, signal: AbortSignal | undefined, ended: RemoteEnd): Promise<CompletionStream> {
    const clock = new Clock();
    const leave = new AbortController();
    const follow = (): void => leave.abort(abortReason(signal));
    signal?.addEventListener("abort", follow, { once: true });
    const unfollow = (): void => signal?.removeEventListener("abort", follow);
    try {
      const response = await this.#post(params, anyOf(signal, leave.signal));
      if (response.body === null || !/^text\/event-stream\b/i.test(response.headers.get("content-type") ?? "")) {
        throw this.#failure("answered without an event stream");
      }
      return this.#pump(response.body, params, leave, unfollow, clock, ended);
    } catch (error) {
      unfollow();
      throw this.#ended(error, signal, clock, null, ended);
    }
  }

  /** Reads the server's events as fast as the consumer takes them. */
  #pump(
    body: ReadableStream<Uint8Array>,
    params: CompletionParams,
    leave: AbortController,
    unfollow: () => void,
    clock: Clock,
    ended: RemoteEnd,
  ): CompletionStream {
    let nUnread = 0;
    let wake = (): void => undefined;
    const stream = new CompletionStream({
      taken: () => {
        nUnread -= 1;
        wake();
      },
      left: () => leave.abort(abortReason()),
      ended: unfollow,
    });
    const { signal } = leave;
    signal.addEventListener("abort", () => {
      wake();
      stream.abort(signal.reason);
    });
    const course = new Course(params, clock);
    const push = (chunk: CompletionChunk): void => {
      nUnread += 1;
      stream.push(chunk);
    };
    const events = body
      .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
      .pipeThrough(new EventSourceParserStream({ maxBufferSize: MAX_EVENT_CHARS, onError: "terminate" }));
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
        if (!course.isComplete) throw this.#failure("ended its stream before the completion was whole");
        const last = course.last();
        if (last !== undefined) push(last);
        ended({ ran_on: "remote", outcome: "completed", usage: course.usage, timings: clock.timings() });
        stream.finish();
      } catch (error) {
        const own = this.#ended(error, signal, clock, course.usage, ended);
        unfollow();
        if (!signal.aborted) stream.fail(own);
      } finally {
        reader.cancel().catch(() => undefined); // It has ended, or failed as told above.
      }
    };
    void run();
    return stream;
  }

  async #post(params: CompletionParams, signal: AbortSignal | undefined): Promise<Response> {
    const headers: Record<string, string> = { "content-type": "application/json", accept: params.stream === true ? "text/event-stream" : "application/json" };
    if (this.#apiKey !== undefined) headers["authorization"] = `Bearer ${this.#apiKey}`;
    let response: Response;
    try {
      // A redirect would take the prompt, and perhaps the key, to whom nobody named.
      response = await fetch(this.#url, { method: "POST", headers, body: toJson(params), signal: signal ?? null, redirect: "error", credentials: "omit" });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw this.#failure(`cannot be reached: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (!response.ok) throw await this.#refusal(response);
    return response;
  }

  async #json(response: Response): Promise<JsonObject> {
    const text = await response.text();
    return this.#object(text);
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
    const text = await response.text().catch(() => "");
    let error: JsonObject = {};
    try {
      const body: unknown = JSON.parse(text);
      if (isObject(body) && isObject(body["error"])) error = body["error"];
    } catch {
      // Quoted as it is.
    }
    const said = typeof error["message"] === "string" ? error["message"] : text;
    const message = `The server at ${this.#url} answered ${response.status}: ${quoted(said) || response.statusText}.`;
    const param = typeof error["param"] === "string" ? error["param"] : null;
    const retryAfter = Number(response.headers.get("retry-after") ?? Number.NaN);
    return new CompletionError({ ...this.#family(response.status, error["code"]), param, message, ...(retryAfter > 0 ? { retry_after: retryAfter } : {}) });
  }

  #family(status: number, code: unknown): Omit<ErrorBody, "message" | "param"> {
    const type = status === 401 || status === 403 ? "authentication_error" : status === 429 ? "rate_limit_error" : "invalid_request_error";
    if (status >= 500) return errorBody("remote_failed", "");
    const known = ERROR_CODES.includes(code as ErrorCode) ? (code as ErrorCode) : undefined;
    const usual: Partial<Record<number, ErrorCode>> = { 401: "invalid_api_key", 403: "invalid_api_key", 404: "model_not_found", 429: "queue_full" };
    return { status, type, code: known ?? usual[status] ?? "remote_failed" };
  }

  #failure(what: string): CompletionError {
    return completionError("remote_failed", `The server at ${this.#url} ${what}.`);
  }

  /** Reports the end of a request that did not succeed; gives what its caller is told. */
  #ended(error: unknown, signal: AbortSignal | undefined, clock: Clock, usage: Usage | null, ended: RemoteEnd): unknown {
    const own = signal?.aborted ? abortReason(signal) : error instanceof CompletionError ? error : this.#failure(`failed: ${String(error)}`);
    ended({ ran_on: "remote", outcome: signal?.aborted ? "aborted" : "failed", error: own, usage, timings: clock.timings() });
    return own;
  }
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

/** How far a stream has come: where it ran is told on its last chunk, and a stream that breaks off is told from one that ends. */
class Course {
  readonly #clock: Clock;
  readonly #hasUsage: boolean;
  readonly #unfinished: Set<number>;
  #latest: CompletionChunk | undefined;
  #isTold = false;
  usage: Usage | null = null;

  constructor(params: CompletionParams, clock: Clock) {
    this.#clock = clock;
    this.#hasUsage = params.stream_options?.include_usage === true;
    this.#unfinished = new Set(Array.from({ length: nChoices(params) }, (_, index) => index));
  }

  /** Whether every choice has ended. */
  get isComplete(): boolean {
    return this.#unfinished.size === 0;
  }

  take(event: JsonObject): CompletionChunk {
    const chunk = readChunk(event);
    this.usage = readUsage(event) ?? this.usage;
    for (const { index, text, finish_reason } of chunk.choices) {
      if (text !== "") this.#clock.token();
      if (finish_reason !== null) this.#unfinished.delete(index);
    }
    if (this.#hasUsage) chunk.usage = readUsage(event) ?? null;
    const isLast = this.#hasUsage ? chunk.choices.length === 0 && this.usage !== null : this.isComplete;
    if (isLast && !this.#isTold) {
      this.#isTold = true;
      chunk.cinderlm = this.#clock.run();
    }
    this.#latest = chunk;
    return chunk;
  }

  /** A chunk that says where it ran, if none has. */
  last(): CompletionChunk | undefined {
    if (this.#isTold || this.#latest === undefined) return undefined;
    return { ...this.#latest, choices: [], ...(this.#hasUsage ? { usage: this.usage } : {}), cinderlm: this.#clock.run() };
  }
}

/** A server's answer or event with the fields of the contract, whichever it left out. */
function readChunk(event: JsonObject): CompletionChunk {
  const choices = Array.isArray(event["choices"]) ? event["choices"].filter(isObject) : [];
  return {
    id: typeof event["id"] === "string" ? event["id"] : "",
    object: "text_completion",
    created: typeof event["created"] === "number" ? event["created"] : 0,
    model: typeof event["model"] === "string" ? event["model"] : "",
    system_fingerprint: typeof event["system_fingerprint"] === "string" ? event["system_fingerprint"] : "",
    choices: choices.map((choice, position) => ({
      index: typeof choice["index"] === "number" ? choice["index"] : position,
      text: typeof choice["text"] === "string" ? choice["text"] : "",
      logprobs: (choice["logprobs"] ?? null) as CompletionChunkChoice["logprobs"],
      finish_reason: (choice["finish_reason"] ?? null) as CompletionChunkChoice["finish_reason"],
    })),
  };
}

function readUsage({ usage }: JsonObject): Usage | undefined {
  if (!isObject(usage) || typeof usage["prompt_tokens"] !== "number") return undefined;
  const { prompt_tokens, completion_tokens = 0, total_tokens } = usage as Partial<Usage> & { prompt_tokens: number };
  return { prompt_tokens, completion_tokens, total_tokens: total_tokens ?? prompt_tokens + completion_tokens };
}

/** JSON, in which a `BigInt` is the integer that it is. */
function toJson({ seed, ...others }: CompletionParams): string {
  const json = JSON.stringify(typeof seed === "bigint" ? others : { ...others, seed });
  return typeof seed === "bigint" ? `${json.slice(0, -1)},"seed":${seed}}` : json;
}

/** Choices that a request asks for. */
function nChoices(params: CompletionParams): number {
  return nPrompts(params) * Number(params.n ?? 1);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname.endsWith(".localhost") || hostname === "[::1]" || /^127\./.test(hostname);
}

function anyOf(first: AbortSignal | undefined, second: AbortSignal): AbortSignal {
  return first?.aborted ? first : second; // The second follows the first.
}

function quoted(text: string): string {
  const trimmed = text.trim();
  return trimmed.length > MAX_QUOTED_CHARS ? `${trimmed.slice(0, MAX_QUOTED_CHARS)}…` : trimmed;
}
