import { tryLock } from "./locks.js";
import { OriginPrivateStorage } from "./opfs.js";
import { DATA_SUFFIX, dropFile, lockName, LOG_SUFFIX, readState, type CachedFile, type CacheUsage, type StorageBackend } from "./storage.js";

/** The files of models that are kept on this device, see {@link CinderOptions.cache}. */
export class ModelCache {
  readonly #backend: StorageBackend | undefined;
  #opening: Promise<StorageBackend | undefined> | undefined;

  /** @internal */
  constructor(backend?: StorageBackend) {
    this.#backend = backend;
  }

  /** The files that are kept, whole and in part, those used last first. Empty where there is no storage. */
  async list(): Promise<CachedFile[]> {
    const backend = await this.#open();
    if (backend === undefined) return [];
    const entries = await backend.list();
    const sizes = new Map(entries.map(({ name, bytes }) => [name, bytes]));
    const ids = entries.filter(({ name }) => name.endsWith(LOG_SUFFIX)).map(({ name }) => name.slice(0, -LOG_SUFFIX.length));
    const files = await Promise.all(ids.map((id) => describe(backend, id, sizes.get(id + DATA_SUFFIX) ?? 0)));
    return files.filter((file) => file !== undefined).sort((a, b) => b.usedMillis - a.usedMillis);
  }

  /**
   * Deletes a file; a model that was loaded from it stays loaded. Without effect if there is none of this id.
   *
   * @throws DOMException `NoModificationAllowedError` while it is being downloaded or read, by whatever tab.
   */
  async delete(id: string): Promise<void> {
    const backend = await this.#open();
    if (backend === undefined) return;
    const release = await tryLock(lockName(id));
    if (release === undefined) throw new DOMException("The file is being downloaded or read.", "NoModificationAllowedError");
    try {
      await dropFile(backend, id);
    } finally {
      await release();
    }
  }

  /** How much is kept, and how much may be. */
  async usage(): Promise<CacheUsage> {
    const backend = await this.#open();
    const entries = (await backend?.list()) ?? [];
    const { usage, quota } = (await backend?.estimate?.()) ?? {};
    return {
      bytes: entries.reduce((sum, { bytes }) => sum + bytes, 0),
      ...(usage === undefined ? {} : { used: usage }),
      ...(quota === undefined ? {} : { quota }),
      isPersisted: (await globalThis.navigator?.storage?.persisted?.()) ?? false,
    };
  }

  /** Asks the browser to keep what this origin stores until the user clears it. Resolves to whether it will. */
  async persist(): Promise<boolean> {
    return (await globalThis.navigator?.storage?.persist?.()) ?? false;
  }

  #open(): Promise<StorageBackend | undefined> {
    this.#opening ??= this.#backend === undefined ? OriginPrivateStorage.open() : Promise.resolve(this.#backend);
    return this.#opening;
  }
}

async function describe(backend: StorageBackend, id: string, bytes: number): Promise<CachedFile | undefined> {
  const stored = await readState(backend, id);
  if (stored === undefined) return undefined;
  const { url, total, isComplete, sha256, usedMillis } = stored.state;
  return { id, url, bytes, isComplete, usedMillis, ...(total === undefined ? {} : { total }), ...(sha256 === undefined ? {} : { sha256 }) };
}
