import { type Release, tryLock } from "./locks.js";
import type { StorageBackend } from "./storage.js";

/** The one file; what it holds says which adapter and version it serves for. */
const NAME = "kernels.json";
/** How long storage may take to read it: the device waits for that. */
const READ_MILLIS = 1000;

/**
 * Keeps the kernel parameters that a calibration finds beside the files of models.
 *
 * They are worth two seconds, so nothing fails where storage does.
 */
export class StoredKernels {
  readonly #storage: StorageBackend | undefined;
  readonly #isForced: boolean;
  readonly #onWarning: (message: string) => void;
  readonly kept: unknown;
  /** Of the lock that this tab has while it calibrates: two that did so at once would spoil each other's timings. */
  #release: Release | undefined;

  private constructor(storage: StorageBackend | undefined, isForced: boolean, onWarning: (message: string) => void, kept: unknown) {
    this.#storage = storage;
    this.#isForced = isForced;
    this.#onWarning = onWarning;
    this.kept = kept;
  }

  /**
   * Reads what was kept. Without storage, or with one that does not answer in time, nothing is. With `isForced` a calibration is worth its time all the
   * same.
   */
  static async open(storage: StorageBackend | undefined, isForced: boolean, onWarning: (message: string) => void): Promise<StoredKernels> {
    try {
      const text = await inTime(storage?.read(NAME).then((file) => file?.text()));
      return new StoredKernels(storage, isForced, onWarning, text === undefined ? undefined : JSON.parse(text));
    } catch (error) {
      onWarning(`What an earlier calibration found could not be read: ${String(error)}`);
      return new StoredKernels(error instanceof Late ? undefined : storage, isForced, onWarning, undefined);
    }
  }

  /**
   * Keeps `record` in place of what was kept, unless another tab calibrates just now; from then on until {@link end} no other keeps any. Resolves to whether a
   * calibration is worth its time; never rejects.
   */
  async keep(record: unknown): Promise<boolean> {
    return (await this.#write(record)) || this.#isForced;
  }

  /** Says that no more will be kept. */
  end(): void {
    void this.#release?.();
    this.#release = undefined;
  }

  /** Resolves to whether it is kept. */
  async #write(record: unknown): Promise<boolean> {
    if (this.#storage === undefined) return false;
    try {
      this.#release ??= await tryLock("cinderlm-kernels");
      if (this.#release === undefined) return false;
      await write(this.#storage, new TextEncoder().encode(JSON.stringify(record)));
      return true;
    } catch (error) {
      this.#onWarning(`What a calibration found is not kept: ${String(error)}`);
      return false;
    }
  }
}

class Late extends Error {
  constructor() {
    super(`storage took more than ${READ_MILLIS} ms`);
  }
}

/** @throws {Late} */
async function inTime<T>(reading: Promise<T> | undefined): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Late()), READ_MILLIS);
  });
  try {
    return await Promise.race([reading, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function write(storage: StorageBackend, bytes: Uint8Array): Promise<void> {
  try {
    await storage.write(NAME, 0, bytes);
    await storage.flush(NAME);
  } finally {
    await storage.close(NAME);
  }
}
