import { message, type Validator } from "./download.js";
import { takeLock, tryLock, type Release } from "./locks.js";
import { appendState, DATA_SUFFIX, dropFile, lockName, LOG_SUFFIX, readState, type StorageBackend, type StorageNotice, type StoredState } from "./storage.js";

/** What is stored of a file. */
export interface Stored {
  data: Blob;
  state: StoredState;
  /** Where its log goes on. */
  logEnd: number;
}

/** What becomes, on this device, of a file that is read. */
export interface Keeper {
  /** Takes bytes that are not stored yet. */
  write(bytes: Uint8Array): Promise<void>;
  /** All was read, this is its hash, and it is as it should be. */
  end(sha256: string): Promise<void>;
  /** Reading ends, at the file's end or before. */
  close(): Promise<void>;
  /** Reading ends, and what is stored is of no use. */
  drop(): Promise<void>;
}

/** A file that is stored whole, under a lock that is shared. */
export class StoredCopy implements Keeper {
  readonly #backend: StorageBackend;
  readonly #id: string;
  readonly #stored: Stored;
  readonly #release: Release;
  readonly #signal: AbortSignal;
  #isUsed = false;

  constructor(backend: StorageBackend, id: string, stored: Stored, release: Release, signal: AbortSignal) {
    this.#backend = backend;
    this.#id = id;
    this.#stored = stored;
    this.#release = release;
    this.#signal = signal;
  }

  write(): Promise<void> {
    return Promise.resolve(); // There is nothing new in it.
  }

  end(): Promise<void> {
    this.#isUsed = true;
    return Promise.resolve();
  }

  async close(): Promise<void> {
    const isUsed = this.#isUsed;
    this.#isUsed = false;
    await this.#release();
    // When it was used is for people to see: a tab that reads it too notes it as well, and a disk that is full changes nothing.
    if (isUsed) await this.#noteUse().catch(() => undefined);
  }

  async drop(): Promise<void> {
    this.#isUsed = false;
    await this.#release();
    const release = await takeLock(lockName(this.#id), "exclusive", this.#signal);
    try {
      // Another tab may have found the same, and downloaded it anew.
      const now = await readState(this.#backend, this.#id);
      if (now?.state.usedMillis === this.#stored.state.usedMillis) await dropFile(this.#backend, this.#id);
    } finally {
      await release();
    }
  }

  async #noteUse(): Promise<void> {
    const release = await tryLock(lockName(this.#id));
    if (release === undefined) return;
    try {
      await appendState(this.#backend, this.#id, this.#stored.logEnd, { usedMillis: Date.now() });
    } finally {
      await this.#backend.close(this.#id + LOG_SUFFIX);
      await release();
    }
  }
}

/** Bytes after which what was written is made to last: a crash costs no more than these. */
const CHECKPOINT_BYTES = 8 << 20;

/** Where a recording starts. */
interface RecordingStart {
  id: string;
  url: string;
  /** Bytes that are stored already. */
  bytes: number;
  /** Where the file's log goes on; 0 for a new one. */
  logEnd: number;
  validator: Validator;
}

/** Whoever holds the lock that a recording needs, and hears why there is none. */
interface RecordingOwner {
  release: Release;
  onNotice(notice: StorageNotice): void;
}

/** Stores a file as it is read. Where that fails, reading goes on without, and the owner is told. */
export class Recorder implements Keeper {
  readonly #backend: StorageBackend;
  readonly #start: RecordingStart;
  readonly #owner: RecordingOwner;
  #bytes: number;
  #checkpoint: number;
  #logEnd: number;
  /** It stores what comes, has stored all, was given up, or has let go. */
  #phase: "on" | "whole" | "stopped" | "over" = "on";
  #isUseless = false;

  constructor(backend: StorageBackend, start: RecordingStart, owner: RecordingOwner) {
    this.#backend = backend;
    this.#start = start;
    this.#owner = owner;
    this.#bytes = start.bytes;
    this.#checkpoint = start.bytes;
    this.#logEnd = start.logEnd;
  }

  /** Begins, if the server lets the file be kept and there is room. */
  async begin(mayBeStored: boolean): Promise<void> {
    const { url, validator, logEnd } = this.#start;
    if (!mayBeStored) return this.#giveUp({ code: "no_store", message: `The file is not kept: the server forbids it with Cache-Control.` });
    await this.#trying(async () => {
      await this.#checkRoom();
      if (logEnd === 0) await this.#note({ url, etag: validator.etag, lastModified: validator.lastModified, ...totalOf(validator), usedMillis: Date.now() });
    });
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#trying(async () => {
      await this.#backend.write(this.#start.id + DATA_SUFFIX, this.#bytes, bytes);
      this.#bytes += bytes.length;
      if (this.#bytes - this.#checkpoint >= CHECKPOINT_BYTES) await this.#settle({});
    });
  }

  async end(sha256: string): Promise<void> {
    await this.#trying(async () => {
      await this.#settle({ isComplete: true, sha256, total: this.#bytes, usedMillis: Date.now() });
      this.#phase = "whole";
    });
  }

  async close(): Promise<void> {
    if (this.#bytes > this.#checkpoint) await this.#trying(() => this.#settle({}));
    await this.#leave(this.#isUseless);
  }

  async drop(): Promise<void> {
    await this.#leave(true);
  }

  /** Lets go of the file, once. */
  async #leave(isUseless: boolean): Promise<void> {
    if (this.#phase === "over") return;
    this.#phase = "over";
    const { id } = this.#start;
    try {
      // What was written has been flushed, or else its failure told.
      for (const suffix of [DATA_SUFFIX, LOG_SUFFIX]) await this.#backend.close(id + suffix).catch(() => undefined);
      if (isUseless) await dropFile(this.#backend, id);
    } finally {
      await this.#owner.release();
    }
  }

  /** Makes what was written last, and notes it. */
  async #settle(change: Partial<StoredState>): Promise<void> {
    await this.#backend.flush(this.#start.id + DATA_SUFFIX);
    await this.#note({ bytes: this.#bytes, ...change });
    this.#checkpoint = this.#bytes;
  }

  async #note(change: Partial<StoredState>): Promise<void> {
    this.#logEnd = await appendState(this.#backend, this.#start.id, this.#logEnd, change);
  }

  async #checkRoom(): Promise<void> {
    const { usage, quota } = (await this.#backend.estimate?.()) ?? {};
    const { total } = this.#start.validator;
    if (total === undefined || usage === undefined || quota === undefined) return;
    const needed = total - this.#bytes;
    const left = Math.max(0, quota - usage);
    if (needed > left) throw new DOMException(`${needed} more bytes are needed, and ${left} are left`, "QuotaExceededError");
  }

  async #trying(run: () => Promise<void>): Promise<void> {
    if (this.#phase !== "on") return;
    try {
      await run();
    } catch (error) {
      await this.#giveUp(this.#notice(error));
    }
  }

  /**
   * Stores no more. A file for which there is no room is dropped; after another failure it can be gone on with from where it was last made to
   * last. While the stored part may still have to be read it is held.
   */
  async #giveUp(notice: StorageNotice): Promise<void> {
    this.#owner.onNotice(notice);
    this.#isUseless = notice.code !== "storage_failed";
    this.#phase = "stopped";
    const isStoredRead = this.#start.bytes === 0 || this.#bytes > this.#start.bytes;
    if (isStoredRead) await this.#leave(this.#isUseless).catch(() => undefined); // The notice has told of a failure already.
  }

  #notice(error: unknown): StorageNotice {
    const why = message(error).replace(/\.$/, "");
    if (!(error instanceof DOMException && error.name === "QuotaExceededError")) return { code: "storage_failed", message: `The file is not kept: ${why}.` };
    const { total } = this.#start.validator;
    return { code: "storage_full", message: `The file is not kept, for it takes ${total ?? `more than ${this.#bytes}`} bytes: ${why}.` };
  }
}

function totalOf({ total }: Validator): { total?: number } {
  return total === undefined ? {} : { total };
}
