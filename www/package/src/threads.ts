/** What a thread's worker is given first: the module, and the memory that all its instances share. */
export interface ThreadStart {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
}

/** What came of starting threads: how many serve, and what is wrong with the others. */
export interface ThreadsStarted {
  started: number;
  problems: string[];
}

/** What a thread's worker says when it has an instance. */
export const READY = "ready";
/** What it is told then. It hears nothing more afterwards. */
export const SERVE = "serve";

/** How long a thread's worker may take to start. */
const START_MILLIS = 10_000;

/** Why this worker cannot have threads; undefined if it can. */
export function threadsProblem(): string | undefined {
  if (!globalThis.crossOriginIsolated || typeof SharedArrayBuffer === "undefined") return "the page is not cross-origin isolated";
  // Without it wasm-bindgen would make a worker of a blob, which a strict policy forbids.
  if (!("waitAsync" in Atomics)) return "this browser lacks Atomics.waitAsync";
  return undefined;
}

/** The threads that a machine has by default: as many as its cores, of which more than a few wait for memory and for each other. */
export function defaultThreads(): number {
  return Math.min(navigator.hardwareConcurrency || 1, 8);
}

/**
 * The workers that share the CPU's work with the one that runs the module.
 *
 * The page makes them and not that worker: in Firefox 153, making a worker within a worker hangs for good every now and then.
 */
export class Threads {
  readonly #create: () => Worker;
  readonly #onFailure: (detail: string) => void;
  readonly #workers = new Set<Worker>();

  /** `onFailure` hears of threads that fail after they have started. */
  constructor(create: () => Worker, onFailure: (detail: string) => void) {
    this.#create = create;
    this.#onFailure = onFailure;
  }

  /** Starts `count` workers; those that fail or are late are ended. */
  async start(count: number, start: ThreadStart): Promise<ThreadsStarted> {
    const settled = await Promise.allSettled(Array.from({ length: count }, () => this.#start(start)));
    const problems = settled.flatMap((one) => (one.status === "rejected" ? [one.reason instanceof Error ? one.reason.message : String(one.reason)] : []));
    for (const worker of this.#workers) worker.postMessage(SERVE);
    return { started: this.#workers.size, problems };
  }

  /** Ends all. */
  close(): void {
    for (const worker of this.#workers) worker.terminate();
    this.#workers.clear();
  }

  async #start(start: ThreadStart): Promise<void> {
    const worker = this.#create();
    this.#workers.add(worker);
    return new Promise((resolve, reject) => {
      let isReady = false;
      const giveUp = (problem: string): void => {
        clearTimeout(timer);
        if (isReady) return this.#onFailure(problem);
        this.#workers.delete(worker);
        worker.terminate();
        reject(new Error(problem));
      };
      const timer = setTimeout(() => giveUp(`it did not start within ${START_MILLIS / 1000} seconds`), START_MILLIS);
      worker.onerror = (event) => {
        event.preventDefault();
        giveUp(event.message || "thread.js could not be loaded");
      };
      worker.onmessage = () => {
        isReady = true;
        clearTimeout(timer);
        resolve();
      };
      worker.postMessage(start);
    });
  }
}
