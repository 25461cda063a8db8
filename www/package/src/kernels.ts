import { tryLock } from "./locks.js";
import type { StorageBackend } from "./storage.js";

/** The one file; what it holds says which adapter and version it serves for. */
const NAME = "kernels.json";

/**
 * Keeps the kernel parameters that a calibration finds beside the files of models.
 *
 * They are worth two seconds, so nothing waits for storage that is busy, and nothing fails with it.
 */
export class StoredKernels {
  readonly #storage: StorageBackend | undefined;
  readonly #onWarning: (message: string) => void;
  readonly kept: unknown;

  private constructor(storage: StorageBackend | undefined, onWarning: (message: string) => void, kept: unknown) {
    this.#storage = storage;
    this.#onWarning = onWarning;
    this.kept = kept;
  }

  /** Reads what was kept. Without storage nothing is. */
  static async open(storage: StorageBackend | undefined, onWarning: (message: string) => void): Promise<StoredKernels> {
    let kept: unknown;
    try {
      const file = await storage?.read(NAME);
      kept = file === undefined ? undefined : JSON.parse(await file.text());
    } catch (error) {
      onWarning(`What an earlier calibration found could not be read: ${String(error)}`);
    }
    return new StoredKernels(storage, onWarning, kept);
  }

  /** Keeps `record` in place of what was kept; or leaves it to another tab that does so. Never rejects. */
  async keep(record: unknown): Promise<void> {
    const storage = this.#storage;
    if (storage === undefined) return;
    try {
      const release = await tryLock("cinderlm-kernels");
      if (release === undefined) return;
      try {
        await storage.write(NAME, 0, new TextEncoder().encode(JSON.stringify(record)));
        await storage.flush(NAME);
      } finally {
        await storage.close(NAME);
        await release();
      }
    } catch (error) {
      this.#onWarning(`What a calibration found is not kept: ${String(error)}`);
    }
  }
}
