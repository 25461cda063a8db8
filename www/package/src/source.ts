import { Download, message } from "./download.js";
import { errorBody, isErrorBody, type ErrorBody } from "./errors.js";
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
  if (model.file !== undefined) {
    const { size } = model.file;
    return new StreamSource({ stream: model.file.stream(), name: "the given file", size }, signal, (bytes) => onBytes(bytes, size));
  }
  const download = new Download(model.url ?? "", model.token, signal);
  const { stream } = await download.open(0);
  const { length } = download;
  // A length that cannot be trusted serves to show progress only.
  const size = download.isExact ? length : undefined;
  return new StreamSource({ stream, name: download.url, size, download }, signal, (bytes) => onBytes(bytes, length !== undefined && bytes <= length ? length : undefined));
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

interface Origin {
  stream: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** For people. */
  name: string;
  size: number | undefined;
  /** Opens the file again where reading it broke off. */
  download?: Download;
}

class StreamSource implements ModelFile {
  readonly size: number | undefined;
  failure: ErrorBody | undefined;
  readonly #name: string;
  readonly #download: Download | undefined;
  readonly #signal: AbortSignal;
  readonly #onBytes: (bytes: number) => void;
  #reader: ChunkReader;
  #bytes = 0;
  /** Bytes to pass over: the server began anew. */
  #toSkip = 0;

  constructor({ stream, name, size, download }: Origin, signal: AbortSignal, onBytes: (bytes: number) => void) {
    this.#reader = new ChunkReader(stream);
    this.size = size;
    this.#name = name;
    this.#download = download;
    this.#signal = signal;
    this.#onBytes = onBytes;
  }

  async next(): Promise<Uint8Array | undefined> {
    for (;;) {
      this.#signal.throwIfAborted();
      let value: Uint8Array | undefined;
      try {
        value = await this.#reader.read();
        this.#signal.throwIfAborted();
        if (value === undefined) this.#checkEnd();
      } catch (error) {
        await this.#reopen(error);
        continue;
      }
      if (value === undefined) return undefined;
      const own = value.subarray(Math.min(this.#toSkip, value.byteLength));
      this.#toSkip -= value.byteLength - own.byteLength;
      if (own.byteLength === 0) continue;
      this.#download?.progressed();
      this.#bytes += own.byteLength;
      this.#onBytes(this.#bytes);
      return own;
    }
  }

  async close(): Promise<void> {
    await this.#reader.cancel().catch(() => undefined); // It may have failed before, which `failure` tells.
  }

  /** Goes on where reading broke off, if the file is on a server that still has it. */
  async #reopen(cause: unknown): Promise<void> {
    this.#signal.throwIfAborted();
    await this.close();
    const broken = errorBody("download_failed", `Reading ${this.#name} failed after ${this.#bytes} bytes: ${message(cause)}.`);
    try {
      if (this.#download === undefined) throw broken;
      await this.#download.pause(broken);
      const { stream, offset } = await this.#download.open(this.#bytes);
      this.#reader = new ChunkReader(stream);
      this.#toSkip = this.#bytes - offset;
    } catch (error) {
      this.#signal.throwIfAborted();
      this.failure = isErrorBody(error) ? error : broken;
      throw error;
    }
  }

  #checkEnd(): void {
    if (this.size !== undefined && this.#bytes < this.size) {
      throw new Error(`the stream ended, ${this.size} bytes were announced`);
    }
  }
}
