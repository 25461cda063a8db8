/** Bytes asked for at a time. */
const CHUNK_BYTES = 1 << 18;

/**
 * Reads a stream into one buffer, over and over: chunks of a stream's own making wait for the garbage collector, until a whole file of
 * them has piled up.
 */
export class ChunkReader {
  readonly #reader: ReadableStreamBYOBReader | ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  #buffer = new ArrayBuffer(CHUNK_BYTES);

  constructor(stream: ReadableStream<Uint8Array<ArrayBuffer>>) {
    this.#reader = bytesReader(stream) ?? stream.getReader();
  }

  /** The next bytes, which hold until the next call; undefined at the end. */
  async read(): Promise<Uint8Array<ArrayBuffer> | undefined> {
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
