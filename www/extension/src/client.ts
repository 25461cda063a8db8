/**
 * cinderlm for pages and extensions: text completions by the extension that the user has installed.
 *
 * A page calls `connect({ key })` and an extension `connect({ key, extensionId })`, with a key that the user made for it in cinderlm's
 * panel. `complete()` takes the fields of the completion API, and streams through an async iterator.
 */
import type { Completion, CompletionChunk, CompletionParams, ErrorBody, ErrorCode, ErrorType, StreamingCompletionParams, WholeCompletionParams } from "cinderlm";
import { packParams } from "./call.js";
import { failure } from "./errors.js";
import { PORT, type Answer, type CallReply, type CallRequest, type ExternalMessage } from "./messages.js";

export type { Completion, CompletionChunk, CompletionParams };

/** How long the extension may take to say that it is there. It says so at once; only its absence takes this long. */
const HELLO_MILLIS = 2000;

/** Why a request failed, in the terms of the completion API: the package's own, without the package, which callers have no need of. */
export class CompletionError extends Error {
  override readonly name = "CompletionError";
  /** The HTTP status that a server would answer. */
  readonly status: number;
  readonly type: ErrorType;
  readonly code: ErrorCode;
  /** The request field that was wrong, or null. */
  readonly param: string | null;
  /** Seconds to wait before another try, where that helps. */
  readonly retry_after: number | undefined;

  constructor(body: ErrorBody) {
    super(body.message);
    this.status = body.status;
    this.type = body.type;
    this.code = body.code;
    this.param = body.param;
    this.retry_after = body.retry_after ?? undefined;
  }
}

/** Who calls. */
export interface ConnectOptions {
  /** The key that the user made in cinderlm's panel for this page's origin or this extension. */
  key?: string;
  /** In an extension: cinderlm's id, as the browser's page of extensions shows it. */
  extensionId?: string;
}

/** Options of one call. */
export interface CallOptions {
  /** Aborting it stops the model and rejects with the signal's reason. */
  signal?: AbortSignal;
}

type Optional<T> = Omit<T, "model"> & { model?: string };

/** Completes texts. Without `model`, by the one that the user has chosen. */
export interface Connection {
  complete(params: Optional<StreamingCompletionParams>, options?: CallOptions): Promise<AsyncIterableIterator<CompletionChunk>>;
  complete(params: Optional<WholeCompletionParams>, options?: CallOptions): Promise<Completion>;
}

/** One call's way to the extension, whatever it goes through. */
interface Line {
  send(message: CallRequest): void;
  hangUp(): void;
}

interface Ears {
  reply(message: CallReply): void;
  broken(): void;
}

/** Connects to the extension. Nothing is sent before the first call. */
export function connect({ key, extensionId }: ConnectOptions = {}): Connection {
  const open = (ears: Ears): Promise<Line> => (extensionId === undefined ? openInPage(ears) : openToExtension(extensionId, key, ears));
  const complete = async (params: Optional<CompletionParams>, { signal }: CallOptions = {}): Promise<unknown> => {
    signal?.throwIfAborted();
    const call = new Call(signal);
    const line = await open(call);
    return call.start(line, { type: "complete", ...packParams({ ...params }), ...(key === undefined ? {} : { key }) });
  };
  return { complete } as Connection;
}

/** One call, from its request to its end; where it streams, the iterator of its chunks. */
class Call implements Ears, AsyncIterableIterator<CompletionChunk, undefined> {
  readonly #signal: AbortSignal | undefined;
  readonly #chunks: CompletionChunk[] = [];
  #line: Line | undefined;
  #end: { error?: unknown } | undefined;
  /** Wakes whoever waits for the next thing to happen. */
  #wake = (): void => undefined;
  #isStream = false;
  #completion: Completion | undefined;

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
  }

  async start(line: Line, request: CallRequest): Promise<Completion | AsyncIterableIterator<CompletionChunk>> {
    this.#line = line;
    this.#signal?.addEventListener("abort", this.#aborted, { once: true });
    if (this.#signal?.aborted) this.#aborted();
    else line.send(request);
    while (!this.#isStream && this.#completion === undefined && this.#end === undefined) await this.#happening();
    if (this.#isStream) return this;
    this.#finish();
    if (this.#completion !== undefined) return this.#completion;
    throw this.#end?.error;
  }

  reply(message: CallReply): void {
    if (message.type === "completion") this.#completion = message.completion;
    else if (message.type === "stream") this.#isStream = true;
    else if (message.type === "chunk") this.#chunks.push(message.chunk);
    else if (message.type === "end") this.#end ??= {};
    else this.#end ??= { error: new CompletionError(message.error) };
    this.#wake();
  }

  broken(): void {
    this.#end ??= { error: new CompletionError(failure("internal", "The engine was ended before the completion was.")) };
    this.#wake();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<CompletionChunk, undefined>> {
    while (this.#chunks.length === 0 && this.#end === undefined) await this.#happening();
    const value = this.#chunks.shift();
    if (value !== undefined) {
      this.#line?.send({ type: "taken", count: 1 });
      return { done: false, value };
    }
    const end = this.#end;
    this.#end = {}; // A failure is told once; after that the iterator is simply done.
    this.#finish();
    if (end !== undefined && "error" in end) throw end.error;
    return { done: true, value: undefined };
  }

  /** The loop was left: the model stops. */
  return(): Promise<IteratorResult<CompletionChunk, undefined>> {
    this.#chunks.length = 0;
    this.#end = {};
    this.#finish();
    this.#wake();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Waits for the next reply. Several who wait are all woken. */
  #happening(): Promise<void> {
    return new Promise((resolve) => {
      const wake = this.#wake;
      this.#wake = () => {
        this.#wake = () => undefined;
        wake();
        resolve();
      };
    });
  }

  readonly #aborted = (): void => {
    this.#chunks.length = 0;
    this.#end = { error: this.#signal?.reason };
    this.#finish();
    this.#wake();
  };

  #finish(): void {
    this.#signal?.removeEventListener("abort", this.#aborted);
    this.#line?.hangUp();
    this.#line = undefined;
  }
}

/** In a page, through the bridge that the extension has in pages that the user allowed. */
function openInPage(ears: Ears): Promise<Line> {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve, reject) => {
    const missing = (): void => {
      port1.close();
      const reason = `it is not installed, or the user has not allowed ${location.origin} (pages that were open then need a reload)`;
      reject(new CompletionError(failure("not_found", `No answer from cinderlm: ${reason}.`)));
    };
    const timer = setTimeout(missing, HELLO_MILLIS);
    port1.onmessage = ({ data }: MessageEvent<CallReply | { type: "hello" }>) => {
      if (data.type !== "hello") return ears.reply(data);
      clearTimeout(timer);
      resolve({
        send: (message) => port1.postMessage(message),
        hangUp: () => {
          port1.postMessage("leave");
          port1.close();
        },
      });
    };
    window.postMessage("cinderlm.connect", location.origin, [port2]);
  });
}

/** From another extension. */
async function openToExtension(extensionId: string, key: string | undefined, ears: Ears): Promise<Line> {
  const hello: ExternalMessage = { type: "cinderlm.wake", ...(key === undefined ? {} : { key }) };
  const answer = await chrome.runtime.sendMessage<ExternalMessage, Answer>(extensionId, hello).catch(() => {
    throw new CompletionError(failure("not_found", "cinderlm is not installed, or is switched off."));
  });
  if (!answer.ok) throw new CompletionError(answer.error);
  const port = chrome.runtime.connect(extensionId, { name: PORT.call });
  port.onMessage.addListener((message: CallReply) => ears.reply(message));
  port.onDisconnect.addListener(() => ears.broken());
  return { send: (message) => port.postMessage(message), hangUp: () => port.disconnect() };
}
