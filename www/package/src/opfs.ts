import type { StorageBackend, StorageEntry } from "./storage.js";

const FOLDER = "cinderlm";

/** The origin private file system. Pages can list, read and delete; writing takes a worker, where every browser has synchronous handles. */
export class OriginPrivateStorage implements StorageBackend {
  readonly #folder: FileSystemDirectoryHandle;
  readonly #open = new Map<string, Promise<FileSystemSyncAccessHandle>>();

  private constructor(folder: FileSystemDirectoryHandle) {
    this.#folder = folder;
  }

  /** Undefined where there is none or the browser denies it, as in some private windows. */
  static async open(): Promise<OriginPrivateStorage | undefined> {
    try {
      const root = await navigator.storage.getDirectory();
      return new OriginPrivateStorage(await root.getDirectoryHandle(FOLDER, { create: true }));
    } catch {
      return undefined;
    }
  }

  async list(): Promise<StorageEntry[]> {
    const entries: StorageEntry[] = [];
    for await (const [name, handle] of this.#folder.entries()) {
      if (handle.kind !== "file") continue;
      const file = await unlessGone((handle as FileSystemFileHandle).getFile());
      if (file !== undefined) entries.push({ name, bytes: file.size });
    }
    return entries;
  }

  async read(name: string): Promise<Blob | undefined> {
    const handle = await unlessGone(this.#folder.getFileHandle(name));
    return handle && unlessGone(handle.getFile());
  }

  async write(name: string, offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const handle = await this.#handle(name);
    handle.truncate(offset);
    let done = 0;
    while (done < bytes.length) {
      const written = handle.write(bytes.subarray(done), { at: offset + done });
      // Without room, browsers write what fits and say nothing; Chromium 156 then gives an error's code as a count, 2 ** 32 - 8.
      if (written === 0 || written > bytes.length - done) throw new DOMException("The file system took no more bytes.", "QuotaExceededError");
      done += written;
    }
  }

  async flush(name: string): Promise<void> {
    (await this.#open.get(name))?.flush();
  }

  /**
   * Handles stay open until a load ends: in Chromium 156, opening one anew right after it was closed never settles now and then, in one of ten
   * downloads that did so every few megabytes.
   */
  async close(name: string): Promise<void> {
    const opening = this.#open.get(name);
    this.#open.delete(name);
    (await opening)?.close();
  }

  async delete(name: string): Promise<void> {
    await this.close(name);
    await unlessGone(this.#folder.removeEntry(name));
  }

  estimate(): Promise<{ usage?: number; quota?: number }> {
    return navigator.storage.estimate();
  }

  #handle(name: string): Promise<FileSystemSyncAccessHandle> {
    const open = this.#open.get(name) ?? this.#folder.getFileHandle(name, { create: true }).then((handle) => handle.createSyncAccessHandle());
    this.#open.set(name, open);
    open.catch(() => this.#open.delete(name)); // Whoever writes is told.
    return open;
  }
}

async function unlessGone<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
    throw error;
  }
}
