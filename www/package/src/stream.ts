import type { CompletionChunk } from "./types.js";

/** What a stream asks of its producer. */
export interface StreamControl {
  /** The consumer took a chunk. */
  taken(): void;
  /** The consumer left before the end. */
  left(): void;
  /** The consumer has all that there is, or will get no more. */
  ended(): void;
}

interface Waiter {
  resolve(result: IteratorResult<CompletionChunk, undefined>): void;
  reject(reason: unknown): void;
}

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };

/**
 * The chunks of a streamed completion, as an async iterator that is used once.
 *
 * Leaving the loop stops the generation. A failure, an abort included, rejects the iteration.
 */
export class CompletionStream implements AsyncIterableIterator<CompletionChunk, undefined, undefined> {
  readonly #control: StreamControl;
  readonly #chunks: CompletionChunk[] = [];
  readonly #waiters: Waiter[] = [];
  #end: { error?: unknown } | undefined;
  #iterated = false;

  /** @internal */
  constructor(control: StreamControl) {
    this.#control = control;
  }

  [Symbol.asyncIterator](): this {
    if (this.#iterated) throw new TypeError("This completion stream was already iterated; make a new request.");
    this.#iterated = true;
    return this;
  }

  next(): Promise<IteratorResult<CompletionChunk, undefined>> {
    const chunk = this.#chunks.shift();
    if (chunk !== undefined) {
      this.#control.taken();
      return Promise.resolve({ done: false, value: chunk });
    }
    if (this.#end !== undefined) {
      const end = this.#end;
      this.#control.ended();
      this.#end = {}; // A failure is reported once; after that the iterator is simply done.
      return "error" in end ? Promise.reject(end.error) : Promise.resolve(DONE);
    }
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<CompletionChunk, undefined>> {
    this.#leave();
    return Promise.resolve(DONE);
  }

  throw(reason: unknown): Promise<IteratorResult<CompletionChunk, undefined>> {
    this.#leave();
    return Promise.reject(reason);
  }

  /** @internal A chunk arrived. */
  push(chunk: CompletionChunk): void {
    if (this.#end !== undefined) return;
    const waiter = this.#waiters.shift();
    if (waiter === undefined) {
      this.#chunks.push(chunk);
    } else {
      this.#control.taken();
      waiter.resolve({ done: false, value: chunk });
    }
  }

  /** @internal No more chunks come. Those that wait are still delivered. */
  finish(): void {
    this.#end ??= {};
    const waiters = this.#waiters.splice(0);
    if (waiters.length > 0) this.#control.ended();
    for (const waiter of waiters) waiter.resolve(DONE);
  }

  /** @internal The stream was aborted: chunks that nobody took yet are forgotten, even if they were the last. */
  abort(error: unknown): void {
    if (this.#end !== undefined && this.#chunks.length === 0) return;
    this.#chunks.length = 0;
    this.#end = undefined;
    this.fail(error);
  }

  /** @internal The stream broke. Chunks that wait are still delivered before the error. */
  fail(error: unknown): void {
    if (this.#end !== undefined) return;
    const waiter = this.#waiters.shift();
    this.#end = waiter === undefined ? { error } : {};
    waiter?.reject(error);
    for (const other of this.#waiters.splice(0)) other.resolve(DONE);
  }

  #leave(): void {
    this.#chunks.length = 0;
    const running = this.#end === undefined;
    this.finish();
    this.#end = {};
    this.#control.ended();
    if (running) this.#control.left();
  }
}
