import { tryLock } from "./locks.js";
import type { StorageBackend } from "./storage.js";

/** The one file; what it holds says which adapter and version it serves for. */
const NAME = "kernels.json";

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

  private constructor(storage: StorageBackend | undefined, isForced: boolean, onWarning: (message: string) => void, kept: unknown) {
    this.#storage = storage;
    this.#isForced = isForced;
    this.#onWarning = onWarning;
    this.kept = kept;
  }

  /** Reads what was kept. Without storage nothing is. With `isForced` a calibration is worth its time all the same. */
  static async open(storage: StorageBackend | undefined, isForced: boolean, onWarning: (message: string) => void): Promise<StoredKernels> {
    let kept: unknown;
    try {
      const file = await storage?.read(NAME);
      kept = file === undefined ? undefined : JSON.parse(await file.text());
    } catch (error) {
      onWarning(`What an earlier calibration found could not be read: ${String(error)}`);
    }
    return new StoredKernels(storage, isForced, onWarning, kept);
  }

  /** Keeps `record` in place of what was kept, unless another tab does so just now. Resolves to whether a calibration is worth its time; never rejects. */
  async keep(record: unknown): Promise<boolean> {
    return (await this.#write(record)) || this.#isForced;
  }

  /** Resolves to whether it is kept. */
  async #write(record: unknown): Promise<boolean> {
    const storage = this.#storage;
    if (storage === undefined) return false;
    try {
      const release = await tryLock("cinderlm-kernels");
      if (release === undefined) return false;
      try {
        await write(storage, new TextEncoder().encode(JSON.stringify(record)));
      } finally {
        await release();
      }
      return true;
    } catch (error) {
      this.#onWarning(`What a calibration found is not kept: ${String(error)}`);
      return false;
    }
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
