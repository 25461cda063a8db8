import type { StorageBackend, StorageEntry } from "./storage.js";

/** The methods of a backend, as messages. */
type Call = { id: number; method: "list" | "read" | "write" | "flush" | "close" | "delete" | "estimate"; parameters: unknown[] };
type Answer = { id: number; value?: unknown; error?: { name: string; message: string } };

/** In the page: answers the calls that come over `port` with a backend of the page's own. */
export function serveStorage(backend: StorageBackend, port: MessagePort): void {
  port.onmessage = ({ data: { id, method, parameters } }: MessageEvent<Call>): void => {
    answer(backend, method, parameters)
      .then((value) => port.postMessage({ id, value } satisfies Answer))
      // A value that cannot be cloned fails here, too: whoever waits must hear of it.
      .catch((error: unknown) => {
        const { name, message } = error instanceof Error ? error : { name: "Error", message: String(error) };
        port.postMessage({ id, error: { name, message } } satisfies Answer);
      });
  };
}

async function answer(backend: StorageBackend, method: Call["method"], parameters: unknown[]): Promise<unknown> {
  const run = backend[method] as ((...parameters: unknown[]) => Promise<unknown>) | undefined;
  // What a method returns beyond its result would have to be cloneable for no use.
  const value = await run?.apply(backend, parameters);
  return method === "list" || method === "read" || method === "estimate" ? value : undefined;
}

/** In the worker: the page's backend at the other end of `port`. */
export class PortStorage implements StorageBackend {
  readonly #port: MessagePort;
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(error: unknown): void }>();
  #nextId = 1;

  constructor(port: MessagePort) {
    this.#port = port;
    port.onmessage = ({ data: { id, value, error } }: MessageEvent<Answer>): void => {
      const call = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) call?.resolve(value);
      else call?.reject(new DOMException(error.message, error.name));
    };
  }

  list(): Promise<StorageEntry[]> {
    return this.#call("list", []) as Promise<StorageEntry[]>;
  }

  read(name: string): Promise<Blob | undefined> {
    return this.#call("read", [name]) as Promise<Blob | undefined>;
  }

  async write(name: string, offset: number, bytes: Uint8Array): Promise<void> {
    const copy = bytes.slice(); // The caller's buffer stays its own.
    await this.#call("write", [name, offset, copy], [copy.buffer]);
  }

  async flush(name: string): Promise<void> {
    await this.#call("flush", [name]);
  }

  async close(name: string): Promise<void> {
    await this.#call("close", [name]);
  }

  async delete(name: string): Promise<void> {
    await this.#call("delete", [name]);
  }

  async estimate(): Promise<{ usage?: number; quota?: number }> {
    return ((await this.#call("estimate", [])) ?? {}) as { usage?: number; quota?: number };
  }

  #call(method: Call["method"], parameters: unknown[], transfer: Transferable[] = []): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      this.#waiting.set(id, { resolve, reject });
      this.#port.postMessage({ id, method, parameters } satisfies Call, transfer);
    });
  }
}
