import { message, type Validator } from "./download.js";
import { tryLock } from "./locks.js";
import { appendState, DATA_SUFFIX, dropFile, lockName, LOG_SUFFIX, type StorageBackend, type StorageNotice, type StoredState } from "./storage.js";

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
  readonly #release: () => void;
  #isUsed = false;

  constructor(backend: StorageBackend, id: string, stored: Stored, release: () => void) {
    this.#backend = backend;
    this.#id = id;
    this.#stored = stored;
    this.#release = release;
  }

  write(): Promise<void> {
    return Promise.resolve(); // There is nothing new in it.
  }

  end(): Promise<void> {
    this.#isUsed = true;
    return Promise.resolve();
  }

  async close(): Promise<void> {
    this.#release();
    if (!this.#isUsed) return;
    this.#isUsed = false;
    await this.#alone(async () => {
      await appendState(this.#backend, this.#id, this.#stored.logEnd, { usedMillis: Date.now() });
      await this.#backend.close(this.#id + LOG_SUFFIX);
    });
  }

  async drop(): Promise<void> {
    this.#isUsed = false;
    this.#release();
    await this.#alone(() => dropFile(this.#backend, this.#id));
  }

  /** Does something that needs the file alone, unless another tab reads it: that one does it in its turn. */
  async #alone(run: () => Promise<unknown>): Promise<void> {
    const release = await tryLock(lockName(this.#id));
    try {
      if (release !== undefined) await run();
    } finally {
      release?.();
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
  release(): void;
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
  /** Whether it stores what comes. */
  #isOn = true;
  #isWhole = false;

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
    await this.#trying(() => this.#settle({ isComplete: true, sha256, total: this.#bytes, usedMillis: Date.now() }));
    this.#isWhole = this.#isOn;
    this.#isOn = false;
  }

  async close(): Promise<void> {
    if (this.#bytes > this.#checkpoint) await this.#trying(() => this.#settle({}));
    this.#isOn = false;
    // What was written has been flushed, or else its failure told.
    for (const suffix of [DATA_SUFFIX, LOG_SUFFIX]) await this.#backend.close(this.#start.id + suffix).catch(() => undefined);
    this.#owner.release();
  }

  async drop(): Promise<void> {
    // If it was given up it is gone already, and another tab may have begun it.
    const isOwn = this.#isOn || this.#isWhole;
    this.#isOn = false;
    this.#isWhole = false;
    try {
      if (isOwn) await dropFile(this.#backend, this.#start.id);
    } finally {
      this.#owner.release();
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
    if (!this.#isOn) return;
    try {
      await run();
    } catch (error) {
      await this.#giveUp(this.#notice(error));
    }
  }

  /** A file that cannot be stored whole is not stored at all, and nobody needs to wait for it. */
  async #giveUp(notice: StorageNotice): Promise<void> {
    this.#isOn = false;
    this.#owner.onNotice(notice);
    await dropFile(this.#backend, this.#start.id).catch(() => undefined); // The notice has told of the failure already.
    this.#owner.release();
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
