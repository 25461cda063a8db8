import { ChangedFile, Download, message } from "./download.js";
import { errorBody, isErrorBody, type ErrorBody } from "./errors.js";
import { Recorder, StoredCopy, type Keeper, type Stored } from "./keepers.js";
import { takeLock, type Release } from "./locks.js";
import { announce, overhear } from "./overhear.js";
import { openDownload, StreamSource, type ReadEvents } from "./source.js";
import { DATA_SUFFIX, dropFile, fileId, lockName, readState, type StorageBackend, type StorageNotice } from "./storage.js";

/** A model file, read once from front to back. The runtime calls `next` until it has what it needs. */
export interface ForwardSource {
  /** Size of the file in bytes, where known. */
  readonly size: number | undefined;
  /** The next bytes, or undefined at the end. They hold until `next` is called again. */
  next(): Promise<Uint8Array | undefined>;
  /** All of it was read, and this is its hexadecimal SHA-256. Rejects if that is not what it should be. */
  end(sha256: string): Promise<void>;
}

/** A file to open: exactly one of `url` and `file` is given. */
export interface FileAddress {
  url?: string;
  file?: Blob;
  /** Lower-case hexadecimal. */
  sha256?: string;
  /** Bearer token for `url`. */
  token?: string;
}

/** What opening and reading a file take and tell. */
export interface OpenOptions {
  /** Where downloads are kept; undefined where they are not. */
  storage: StorageBackend | undefined;
  signal: AbortSignal;
  events: OpenEvents;
  /** What came last was wrong: past every cache. */
  isRetry?: boolean;
}

/** What opening and reading a file tell. */
export interface OpenEvents extends ReadEvents {
  onNotice(notice: StorageNotice): void;
}

/**
 * Opens a file: a given one, one that is stored, or a download, which goes on from what is stored of it and is stored as it comes.
 *
 * @throws ErrorBody; ChangedFile; or what the signal was aborted for.
 */
export async function openFile({ url, file, sha256, token }: FileAddress, options: OpenOptions): Promise<OpenFile> {
  const { storage, signal, events, isRetry = false } = options;
  if (file !== undefined) {
    const rest = new StreamSource({ stream: file.stream(), phase: "file", name: "the given file", size: file.size }, signal, events);
    return new OpenFile({ rest, name: "The given file", sha256 });
  }
  if (url === undefined) throw errorBody("internal", "A model has neither an address nor a file.");
  // Other addresses, `blob:` above all, are of one page's life.
  const id = storage !== undefined && /^https?:/i.test(url) ? await fileId(url) : undefined;
  if (storage !== undefined && id !== undefined) {
    try {
      return await new Opener({ storage, id, url, sha256, token }, options).open();
    } catch (error) {
      signal.throwIfAborted();
      if (isErrorBody(error) || error instanceof ChangedFile) throw error;
      events.onNotice({ code: "storage_failed", message: `The file is not kept: ${message(error).replace(/\.$/, "")}.` });
    }
  } else if (storage !== undefined) {
    events.onNotice({ code: "storage_unavailable", message: "The file is not kept: only files from http and https addresses are, and only in secure contexts." });
  }
  const download = new Download(url, { token, signal, isFresh: isRetry });
  return new OpenFile({ rest: await openDownload(download, 0, signal, events), name: url, sha256 });
}

/** Drops what is stored of a file, once nobody reads it. */
export async function forgetFile({ url }: FileAddress, { storage, signal }: Pick<OpenOptions, "storage" | "signal">): Promise<void> {
  const id = url === undefined ? undefined : await fileId(url);
  if (storage === undefined || id === undefined) return;
  const release = await takeLock(lockName(id), "exclusive", signal);
  try {
    await dropFile(storage, id);
  } finally {
    await release();
  }
}

/** What an open file is read from: first what is stored, then the rest. */
interface Parts {
  stored?: StreamSource | undefined;
  rest?: StreamSource | undefined;
  /** For people. */
  name: string;
  /** What it must hash to. */
  sha256: string | undefined;
}

/** A file that is being read. It remembers why it failed, in the contract's terms. */
export class OpenFile implements ForwardSource {
  readonly #parts: Parts;
  readonly #keeper: Keeper | undefined;
  #isStoredRead: boolean;
  #mismatch: ErrorBody | undefined;

  constructor(parts: Parts, keeper?: Keeper) {
    this.#parts = parts;
    this.#keeper = keeper;
    this.#isStoredRead = parts.stored === undefined;
  }

  get size(): number | undefined {
    return (this.#parts.rest ?? this.#parts.stored)?.size;
  }

  /** Why reading it failed, if it did. */
  get failure(): ErrorBody | ChangedFile | undefined {
    return this.#mismatch ?? this.#parts.stored?.failure ?? this.#parts.rest?.failure;
  }

  /** Whether other bytes may come if it is dropped and opened once more: some were stored, or it is known what they must be. */
  get mayImprove(): boolean {
    return this.#parts.rest?.phase !== "file" && (this.#parts.stored ?? this.#parts.sha256) !== undefined;
  }

  async next(): Promise<Uint8Array | undefined> {
    if (!this.#isStoredRead) {
      const bytes = await this.#parts.stored?.next();
      if (bytes !== undefined) return bytes;
      this.#isStoredRead = true;
    }
    const bytes = await this.#parts.rest?.next();
    if (bytes !== undefined) await this.#keeper?.write(bytes);
    return bytes;
  }

  async end(sha256: string): Promise<void> {
    const { name, sha256: expected } = this.#parts;
    if (expected !== undefined && expected !== sha256) {
      this.#mismatch = errorBody("integrity_mismatch", `${name}: its SHA-256 must be ${expected}, but is ${sha256}.`);
      throw this.#mismatch;
    }
    await this.#keeper?.end(sha256);
  }

  /** Lets it go; what was stored of it stays. */
  async close(): Promise<void> {
    await this.#closeStreams();
    await this.#keeper?.close();
  }

  /** Lets it go, and drops what was stored of it. */
  async drop(): Promise<void> {
    await this.#closeStreams();
    await this.#keeper?.drop();
  }

  async #closeStreams(): Promise<void> {
    await Promise.all([this.#parts.stored?.close(), this.#parts.rest?.close()]);
  }
}

/** A download that may be stored. */
interface Storable {
  storage: StorageBackend;
  id: string;
  url: string;
  sha256: string | undefined;
  token: string | undefined;
}

/** Opens a file that is stored, or is to be. */
class Opener {
  readonly #file: Storable;
  readonly #signal: AbortSignal;
  readonly #events: OpenEvents;

  constructor(file: Storable, { signal, events }: OpenOptions) {
    this.#file = file;
    this.#signal = signal;
    this.#events = events;
  }

  /** One tab downloads, and the others wait for it. */
  async open(): Promise<OpenFile> {
    const { id } = this.#file;
    const stopHearing = overhear(id, (bytes, total) => this.#events.onBytes("download", bytes, total));
    try {
      for (;;) {
        const opened = (await this.#locked("shared", (release) => this.#read(release))) ?? (await this.#locked("exclusive", (release) => this.#record(release)));
        if (opened !== undefined) return opened;
      }
    } finally {
      stopHearing();
    }
  }

  /** Opens under a lock, which is given back with the file, or at once if there is none. */
  async #locked(mode: LockMode, open: (release: Release) => Promise<OpenFile | undefined>): Promise<OpenFile | undefined> {
    const release = await takeLock(lockName(this.#file.id), mode, this.#signal);
    let opened: OpenFile | undefined;
    try {
      opened = await open(release);
      return opened;
    } finally {
      if (opened === undefined) await release();
    }
  }

  /** Opens what is stored, if it is whole. */
  async #read(release: Release): Promise<OpenFile | undefined> {
    const { storage, id, url, sha256 } = this.#file;
    const stored = await this.#find();
    if (!stored?.state.isComplete) return undefined;
    const parts = { stored: this.#source(stored), name: `The stored copy of ${url}`, sha256: sha256 ?? stored.state.sha256 };
    return new OpenFile(parts, new StoredCopy(storage, id, stored, release, this.#signal));
  }

  /** Opens the file to be stored as it is read; undefined if another tab has stored all of it meanwhile. */
  async #record(release: Release): Promise<OpenFile | undefined> {
    const stored = await this.#find();
    if (stored?.state.isComplete) return undefined;
    if (stored !== undefined && this.#mayGoOn(stored)) {
      try {
        return await this.#goOn(stored, release);
      } catch (error) {
        if (!(error instanceof ChangedFile)) throw error;
      }
    }
    await dropFile(this.#file.storage, this.#file.id);
    const { url, token } = this.#file;
    return this.#download(new Download(url, { token, signal: this.#signal, isFresh: true }), undefined, release);
  }

  /** What is stored, unless it is of no use. */
  async #find(): Promise<Stored | undefined> {
    const { storage, id, sha256 } = this.#file;
    const found = await readState(storage, id);
    const data = found && (await storage.read(id + DATA_SUFFIX));
    if (found === undefined || !data) return undefined;
    const { state } = found;
    const isOther = state.isComplete && sha256 !== undefined && sha256 !== state.sha256;
    if (isOther || data.size < state.bytes || state.bytes > (state.total ?? Infinity)) return undefined;
    // What was written after it was last made to last may not have outlasted a crash.
    return { ...found, data: data.slice(0, state.bytes) };
  }

  /** Whether the server's file can be told from one that the stored bytes are not of. */
  #mayGoOn({ state }: Stored): boolean {
    return state.bytes > 0 && (state.etag ?? state.lastModified ?? this.#file.sha256) !== undefined;
  }

  async #goOn(stored: Stored, release: Release): Promise<OpenFile> {
    const { url, token } = this.#file;
    const { etag, lastModified, total, bytes } = stored.state;
    const known = { etag, lastModified, total };
    const download = new Download(url, { token, signal: this.#signal, isFresh: true, known });
    if (bytes < (total ?? Infinity)) return this.#download(download, stored, release);
    // Only its hash is missing: the tab was closed between the last byte and the end.
    return this.#recorded({ stored: this.#source(stored) }, download, stored, release);
  }

  async #download(download: Download, stored: Stored | undefined, release: Release): Promise<OpenFile> {
    const tell = announce(this.#file.id);
    const events: ReadEvents = {
      onBytes: (phase, bytes, total) => {
        this.#events.onBytes(phase, bytes, total);
        tell(bytes, total);
      },
    };
    // First, for it may turn out that the stored bytes are of no use.
    const rest = await openDownload(download, stored?.state.bytes ?? 0, this.#signal, events);
    return this.#recorded({ stored: stored && this.#source(stored), rest }, download, stored, release);
  }

  async #recorded(parts: Pick<Parts, "stored" | "rest">, download: Download, stored: Stored | undefined, release: Release): Promise<OpenFile> {
    const { storage, id, url, sha256 } = this.#file;
    const start = { id, url, bytes: stored?.state.bytes ?? 0, logEnd: stored?.logEnd ?? 0, validator: download.validator };
    const recorder = new Recorder(storage, start, { release, onNotice: this.#events.onNotice });
    await recorder.begin(download.mayBeStored);
    return new OpenFile({ ...parts, name: url, sha256 }, recorder);
  }

  #source({ data, state }: Stored): StreamSource {
    const origin = { stream: data.stream(), phase: "cache", name: `the stored copy of ${this.#file.url}`, size: data.size, total: state.total } as const;
    return new StreamSource(origin, this.#signal, this.#events);
  }
}
