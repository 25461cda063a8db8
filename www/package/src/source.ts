import { ChunkReader } from "./chunks.js";
import { ChangedFile, message, type Download } from "./download.js";
import { errorBody, isErrorBody, type ErrorBody } from "./errors.js";
import type { LoadPhase } from "./types.js";

/** What reading a file tells. */
export interface ReadEvents {
  onBytes(phase: LoadPhase, bytes: number, total: number | undefined): void;
}

/** What a stream is of. */
export interface Origin {
  stream: ReadableStream<Uint8Array<ArrayBuffer>>;
  phase: LoadPhase;
  /** For people. */
  name: string;
  /** Bytes of the whole file, where that can be relied on. */
  size: number | undefined;
  /** Bytes of the whole file, to show how far it has come, where that is not `size`. */
  total?: number | undefined;
  /** Bytes of the file that come from elsewhere, before the first that is wanted of this stream. */
  start?: number;
  /** Bytes at the stream's start to pass over. */
  toSkip?: number;
  /** Opens the file again where reading it broke off. */
  download?: Download;
}

/** Reads one stream, and the next where that broke off. */
export class StreamSource {
  failure: ErrorBody | ChangedFile | undefined;
  readonly #origin: Origin;
  readonly #signal: AbortSignal;
  readonly #events: ReadEvents;
  #reader: ChunkReader;
  #bytes: number;
  #toSkip: number;

  constructor(origin: Origin, signal: AbortSignal, events: ReadEvents) {
    this.#origin = origin;
    this.#reader = new ChunkReader(origin.stream);
    this.#signal = signal;
    this.#events = events;
    this.#bytes = origin.start ?? 0;
    this.#toSkip = origin.toSkip ?? 0;
  }

  /** Bytes of the whole file, where that can be relied on. */
  get size(): number | undefined {
    return this.#origin.size;
  }

  /** Where its bytes are from. */
  get phase(): LoadPhase {
    return this.#origin.phase;
  }

  /** The next bytes, or undefined at the end. They hold until `next` is called again. */
  async next(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    for (;;) {
      this.#signal.throwIfAborted();
      let value: Uint8Array<ArrayBuffer> | undefined;
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
      const { phase, size, total = size, download } = this.#origin;
      download?.progressed();
      this.#bytes += own.byteLength;
      this.#events.onBytes(phase, this.#bytes, total !== undefined && this.#bytes <= total ? total : undefined);
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
    const { name, download } = this.#origin;
    const broken = errorBody("download_failed", `Reading ${name} failed after ${this.#bytes} bytes: ${message(cause)}.`);
    try {
      if (download === undefined) throw broken;
      await download.pause(broken);
      const { stream, offset } = await download.open(this.#bytes);
      this.#reader = new ChunkReader(stream);
      this.#toSkip = this.#bytes - offset;
    } catch (error) {
      this.#signal.throwIfAborted();
      this.failure = isErrorBody(error) || error instanceof ChangedFile ? error : broken;
      throw error;
    }
  }

  #checkEnd(): void {
    const { size } = this.#origin;
    if (size !== undefined && this.#bytes < size) throw new Error(`the stream ended, ${size} bytes were announced`);
  }
}

/** Opens a download at `start` or before. */
export async function openDownload(download: Download, start: number, signal: AbortSignal, events: ReadEvents): Promise<StreamSource> {
  const { stream, offset } = await download.open(start);
  const { total } = download.validator;
  // A length that cannot be trusted serves to show progress only.
  const size = download.isExact ? total : undefined;
  return new StreamSource({ stream, phase: "download", name: download.url, size, total, start, toSkip: start - offset, download }, signal, events);
}
