import { errorBody, type ErrorBody } from "./errors.js";
import type { WireModel } from "./messages.js";

/** A model file, read once from front to back. The runtime calls `next` until it has what it needs. */
export interface ForwardSource {
  /** Size of the file in bytes, where known. */
  readonly size: number | undefined;
  /** The next bytes, or undefined at the end. They hold until `next` is called again. */
  next(): Promise<Uint8Array | undefined>;
}

/** A source that remembers why it failed, in the contract's terms, and can be let go. */
export interface ModelFile extends ForwardSource {
  readonly failure: ErrorBody | undefined;
  close(): Promise<void>;
}

/** Opens a model's file. Rejects with an {@link ErrorBody} or with what `signal` was aborted for. */
export async function openModel(model: WireModel, signal: AbortSignal, onBytes: (bytes: number, total?: number) => void): Promise<ModelFile> {
  if (model.file !== undefined) return new StreamSource(model.file.stream(), model.file.size, "the given file", signal, onBytes);
  const url = model.url ?? "";
  const response = await request(url, model.token, signal);
  // A 204 or an unasked-for 206 is no whole file.
  if (response.status !== 200 || response.body === null) {
    await response.body?.cancel();
    throw errorBody("download_failed", `GET ${url} answered ${response.status} ${response.statusText}`.trimEnd() + "; expected 200.");
  }
  const length = contentLength(response);
  // Another origin may hide that its body is compressed; a length that cannot be trusted serves to show progress only.
  const size = response.type === "cors" ? undefined : length;
  return new StreamSource(response.body, size, url, signal, (bytes) => onBytes(bytes, length !== undefined && bytes <= length ? length : undefined));
}

async function request(url: string, token: string | undefined, signal: AbortSignal): Promise<Response> {
  const headers = token !== undefined && mayCarryToken(url) ? { authorization: `Bearer ${token}` } : {};
  try {
    return await fetch(url, { headers, signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw errorBody("download_failed", `GET ${url} failed: ${message(error)}.`);
  }
}

/** A token must not travel in the clear to another machine. */
function mayCarryToken(url: string): boolean {
  const { protocol, origin } = new URL(url);
  return protocol === "https:" || origin === globalThis.location?.origin;
}

/** The size of the decoded body as far as it shows; a compressed one has another length than its header says. */
function contentLength(response: Response): number | undefined {
  const length = response.headers.get("content-length");
  if (length === null || response.headers.has("content-encoding")) return undefined;
  const size = Number(length);
  return Number.isSafeInteger(size) ? size : undefined;
}

/** Bytes asked for at a time. */
const CHUNK_BYTES = 1 << 18;

/**
 * Reads a stream into one buffer, over and over: chunks of a stream's own making wait for the garbage collector, until a whole file of
 * them has piled up.
 */
class ChunkReader {
  readonly #reader: ReadableStreamBYOBReader | ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  #buffer = new ArrayBuffer(CHUNK_BYTES);

  constructor(stream: ReadableStream<Uint8Array<ArrayBuffer>>) {
    this.#reader = bytesReader(stream) ?? stream.getReader();
  }

  /** The next bytes, which hold until the next call; undefined at the end. */
  async read(): Promise<Uint8Array | undefined> {
    if (this.#reader instanceof ReadableStreamDefaultReader) return (await this.#reader.read()).value;
    const { done, value } = await this.#reader.read(new Uint8Array(this.#buffer));
    if (value !== undefined) this.#buffer = value.buffer;
    return done ? undefined : value;
  }

  async cancel(): Promise<void> {
    await this.#reader.cancel();
  }
}

/** Undefined where the browser's streams cannot fill a given buffer. */
function bytesReader(stream: ReadableStream<Uint8Array<ArrayBuffer>>): ReadableStreamBYOBReader | undefined {
  try {
    return stream.getReader({ mode: "byob" });
  } catch {
    return undefined;
  }
}

class StreamSource implements ModelFile {
  readonly size: number | undefined;
  failure: ErrorBody | undefined;
  readonly #reader: ChunkReader;
  readonly #name: string;
  readonly #signal: AbortSignal;
  readonly #onBytes: (bytes: number, total?: number) => void;
  #bytes = 0;

  constructor(
    stream: ReadableStream<Uint8Array<ArrayBuffer>>,
    size: number | undefined,
    name: string,
    signal: AbortSignal,
    onBytes: (bytes: number, total?: number) => void,
  ) {
    this.#reader = new ChunkReader(stream);
    this.size = size;
    this.#name = name;
    this.#signal = signal;
    this.#onBytes = onBytes;
  }

  async next(): Promise<Uint8Array | undefined> {
    this.#signal.throwIfAborted();
    try {
      const value = await this.#reader.read();
      this.#signal.throwIfAborted();
      if (value === undefined) {
        this.#checkEnd();
        return undefined;
      }
      this.#bytes += value.byteLength;
      this.#onBytes(this.#bytes, this.size);
      return value;
    } catch (error) {
      if (!this.#signal.aborted) {
        this.failure ??= errorBody("download_failed", `Reading ${this.#name} failed after ${this.#bytes} bytes: ${message(error)}.`);
      }
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#reader.cancel().catch(() => undefined); // It may have failed before, which `failure` tells.
  }

  #checkEnd(): void {
    if (this.size !== undefined && this.#bytes < this.size) {
      throw new Error(`the stream ended, ${this.size} bytes were announced`);
    }
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
