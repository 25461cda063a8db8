import { abortReason } from "./abort.js";
import { completionError, CompletionError, type ErrorBody } from "./errors.js";
import type { Call, LocalReport, Reply, Request, Results } from "./messages.js";
import { CompletionStream } from "./stream.js";
import type { ThreadsStarted, ThreadStart } from "./threads.js";
import type { Completion, CompletionChunk, LoadProgress, ModelInfo } from "./types.js";

/** The part of `Worker` that a connection uses. */
export interface WorkerLike {
  postMessage(message: Request, transfer: Transferable[]): void;
  terminate(): void;
  addEventListener(type: "message", listener: (event: MessageEvent<Reply>) => void): void;
  addEventListener(type: "error" | "messageerror", listener: (event: Event) => void): void;
}

/** What a call may listen to and stop. */
export interface CallHooks {
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: LoadProgress) => void) | undefined;
  /**
   * Hears how a completion ended, once: after an abort too, when the worker has stopped it. The report is null if it never began, and undefined
   * if the worker is gone; the error is what the call failed with.
   */
  onEnd?: ((outcome: CallOutcome, report: LocalReport | null | undefined, error?: unknown) => void) | undefined;
  /** Hears that the caller has left, before the worker has stopped. */
  onLeave?: (() => void) | undefined;
}

/** How a call ended. */
export type CallOutcome = "completed" | "aborted" | "failed";

/** What the owner of a connection hears. */
export interface ConnectionEvents {
  loaded(info: ModelInfo): void;
  /** Something went wrong without which the worker goes on. */
  warned(message: string): void;
  /** The worker wants threads. */
  threads(count: number, start: ThreadStart): Promise<ThreadsStarted>;
  /** The worker runs, and holds a lock of this name as long as it does. */
  alive(lock: string): void;
  /** The worker is gone and every call was rejected; the connection is of no more use. */
  closed(error: CompletionError): void;
}

interface Pending {
  progress(progress: LoadProgress): void;
  chunk(chunk: CompletionChunk): void;
  result(value: unknown): void;
  fail(error: unknown): void;
}

type WithoutId<T> = T extends { id: number } ? Omit<T, "id"> : never;

/** Chunks that may wait unread between worker and consumer before generation pauses. */
export const STREAM_WINDOW = 32;

/** Calls to one worker: numbers them, pairs answers with them, and fails them all when the worker dies. */
export class Connection {
  readonly #worker: WorkerLike;
  readonly #events: ConnectionEvents;
  readonly #pending = new Map<number, Pending>();
  /** Those who hear of the end of a call, aborted ones included. */
  readonly #onEnd = new Map<number, NonNullable<CallHooks["onEnd"]>>();
  /** Those of which the caller has left. */
  readonly #left = new Set<number>();
  #nextId = 1;
  #closed: CompletionError | undefined;

  constructor(worker: WorkerLike, events: ConnectionEvents) {
    this.#worker = worker;
    this.#events = events;
    worker.addEventListener("message", (event) => this.#receive(event.data));
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      const detail = (event as ErrorEvent).message;
      this.close(completionError("internal", `The worker failed${detail ? `: ${detail}` : " to start: check workerUrl"}.`));
    });
    worker.addEventListener("messageerror", () => this.close(completionError("internal", "A message from the worker could not be read.")));
  }

  /** Starts the worker's runtime. */
  start(request: WithoutId<Extract<Call, { type: "start" }>>): Promise<Results["start"]> {
    const transfer = typeof request.storage === "string" ? [] : [request.storage];
    return this.#once(request, {}, transfer) as Promise<Results["start"]>;
  }

  /** Sends a request that is answered once. */
  call<T extends Exclude<Call["type"], "complete" | "start">>(request: WithoutId<Extract<Call, { type: T }>>, hooks: CallHooks = {}): Promise<Results[T]> {
    return this.#once(request as WithoutId<Call>, hooks) as Promise<Results[T]>;
  }

  /** Asks for a whole completion. */
  complete(request: WithoutId<Extract<Request, { type: "complete" }>>, hooks: CallHooks): Promise<Completion> {
    return this.#once(request, hooks) as Promise<Completion>;
  }

  /** Asks for a streamed completion; resolves when it has begun. */
  stream(request: WithoutId<Extract<Request, { type: "complete" }>>, hooks: CallHooks): Promise<CompletionStream> {
    return new Promise((resolve, reject) => {
      const { signal } = hooks;
      let forget = (): void => undefined;
      const stream = new CompletionStream({
        taken: () => this.#post({ type: "credit", id, count: 1 }),
        left: () => {
          forget();
          this.#leave(id, hooks);
        },
        ended: () => forget(),
      });
      const id = this.#begin(request, hooks, {
        progress: (progress) => hooks.onProgress?.(progress),
        chunk: (chunk) => {
          stream.push(chunk);
          resolve(stream);
        },
        result: () => {
          this.#pending.delete(id); // The signal is still heard: chunks may wait for their consumer.
          stream.finish();
          resolve(stream);
        },
        fail: (error) => {
          forget();
          reject(error); // Without effect once the stream was handed out.
          stream.fail(error);
        },
      });
      const abort = (): void => {
        forget();
        this.#leave(id, hooks);
        const reason = abortReason(signal);
        reject(reason);
        stream.abort(reason);
      };
      forget = this.#watch(id, signal, abort);
    });
  }

  /** Ends the worker; every call that still runs fails with `error`. */
  close(error: CompletionError): void {
    if (this.#closed !== undefined) return;
    this.#closed = error;
    this.#worker.terminate();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const call of pending) call.fail(error);
    for (const id of [...this.#onEnd.keys()]) {
      if (this.#left.has(id)) this.#end(id, "aborted", undefined);
      else this.#end(id, "failed", undefined, error);
    }
    this.#events.closed(error);
  }

  #once(request: WithoutId<Call>, hooks: CallHooks, transfer: Transferable[] = []): Promise<unknown> {
    return new Promise((resolve, reject) => {
      let forget = (): void => undefined;
      const settle = (finish: () => void): void => {
        forget();
        finish();
      };
      const id = this.#begin(request, hooks, {
        progress: (progress) => hooks.onProgress?.(progress),
        chunk: () => undefined,
        result: (value) => settle(() => resolve(value)),
        fail: (error) => settle(() => reject(error)),
      }, transfer);
      forget = this.#watch(id, hooks.signal, () => {
        forget();
        this.#leave(id, hooks);
        reject(abortReason(hooks.signal));
      });
    });
  }

  #begin(request: WithoutId<Call>, hooks: CallHooks, pending: Pending, transfer: Transferable[] = []): number {
    const id = this.#nextId++;
    if (hooks.onEnd !== undefined) this.#onEnd.set(id, hooks.onEnd);
    try {
      if (this.#closed !== undefined) throw this.#closed;
      this.#worker.postMessage({ ...request, id } as Call, transfer); // First: a value that cannot be cloned throws here.
    } catch (error) {
      this.#end(id, "failed", null, error);
      throw error;
    }
    this.#pending.set(id, pending);
    return id;
  }

  #leave(id: number, hooks: CallHooks): void {
    this.#post({ type: "cancel", id });
    if (this.#onEnd.has(id)) this.#left.add(id);
    hooks.onLeave?.();
  }

  #end(id: number, outcome: CallOutcome, report: LocalReport | null | undefined, error?: unknown): void {
    const onEnd = this.#onEnd.get(id);
    this.#onEnd.delete(id);
    this.#left.delete(id);
    onEnd?.(outcome, report, error);
  }

  /** Returns what forgets the call and its signal. */
  #watch(id: number, signal: AbortSignal | undefined, abort: () => void): () => void {
    signal?.addEventListener("abort", abort, { once: true });
    return () => {
      this.#pending.delete(id);
      signal?.removeEventListener("abort", abort);
    };
  }

  #post(request: Request): void {
    if (this.#closed === undefined) this.#worker.postMessage(request, []);
  }

  #receive(reply: Reply): void {
    if (reply.type === "fatal") {
      this.close(new CompletionError(reply.error));
      return;
    }
    if (reply.type === "alive") {
      this.#events.alive(reply.lock);
      return;
    }
    if (reply.type === "warning") {
      this.#events.warned(reply.message);
      return;
    }
    if (reply.type === "threads") {
      void this.#events.threads(reply.count, reply.start).then((started) => this.#post({ type: "threads", id: 0, ...started }));
      return;
    }
    if (reply.type === "loaded") {
      this.#events.loaded(reply.info);
      return;
    }
    const pending = this.#pending.get(reply.id); // None for a call that was aborted meanwhile.
    switch (reply.type) {
      case "progress":
        pending?.progress(reply.progress);
        break;
      case "chunk":
        pending?.chunk(reply.chunk);
        break;
      case "result":
        pending?.result(reply.value);
        this.#end(reply.id, "completed", reply.report ?? null);
        break;
      case "error": {
        const error = new CompletionError(reply.error satisfies ErrorBody);
        pending?.fail(error);
        this.#end(reply.id, "failed", reply.report ?? null, error);
        break;
      }
      case "cancelled":
        pending?.fail(abortReason());
        this.#end(reply.id, "aborted", reply.report ?? null);
        break;
    }
  }
}
