/** A file as a {@link StorageBackend} lists it. */
export interface StorageEntry {
  name: string;
  bytes: number;
}

/**
 * Where model files are kept: a flat folder of files, written from front to back. The default is the origin private file system; a backend of
 * the page's own may be any place that can make a `Blob`. Its methods are called in the page; of one file, `write`, `flush`, `close` and `delete` never at the
 * same time.
 */
export interface StorageBackend {
  /** All files, in no order. */
  list(): Promise<StorageEntry[]>;
  /** A file's bytes as they are now; undefined if there is no such file. */
  read(name: string): Promise<Blob | undefined>;
  /**
   * Writes at `offset`, which is no more than the file's length: what was after it is dropped. Makes the file if it is not there. The bytes
   * may be used again once the promise is settled. Rejects with a `DOMException` named `QuotaExceededError` where there is no room.
   */
  write(name: string, offset: number, bytes: Uint8Array): Promise<void>;
  /** Sees to it that what was written outlasts a crash. */
  flush(name: string): Promise<void>;
  /** No more is written for now: what is held of the file may be let go. Without effect if nothing was written. */
  close(name: string): Promise<void>;
  /** Without effect if there is no such file. */
  delete(name: string): Promise<void>;
  /** Bytes that are used and that there are in all, where that can be told. */
  estimate?(): Promise<{ usage?: number; quota?: number }>;
}

/** A file that was kept for a model, whole or in part. */
export interface CachedFile {
  /** What {@link ModelCache.delete} takes. */
  id: string;
  /** Where it was downloaded from. */
  url: string;
  /** Bytes that are here. */
  bytes: number;
  /** Bytes of the whole file, where the server told. */
  total?: number;
  /** Whether all of it is here; the rest of another is downloaded when it is next asked for. */
  isComplete: boolean;
  /** Hexadecimal SHA-256, once it is complete. */
  sha256?: string;
  /** When a model was last loaded from it: Unix time, milliseconds. */
  usedMillis: number;
}

/** How much is kept, in bytes. */
export interface CacheUsage {
  /** Of the files of models. */
  bytes: number;
  /** Of all that this origin keeps. */
  used?: number;
  /** What this origin may keep. */
  quota?: number;
  /** Whether the browser has promised not to clear it by itself. */
  isPersisted: boolean;
}

/** Why a model's file is not kept. The model runs all the same, and is downloaded again next time. */
export interface StorageNotice {
  /**
   * `storage_full`: there is no room; the message says how much is needed. `storage_unavailable`: the browser has no storage to give, as in
   * some private windows. `storage_failed`: it failed. `no_store`: the server forbids it.
   */
  code: "storage_full" | "storage_unavailable" | "storage_failed" | "no_store";
  message: string;
}

/** What storage and its callers share of one file's name. */
export const DATA_SUFFIX = ".gguf";
export const LOG_SUFFIX = ".log";

/** What is known of a stored file: its log, one line of JSON for each thing learned. */
export interface StoredState {
  url: string;
  etag: string | null;
  lastModified: string | null;
  total?: number;
  /** Bytes from the start that have been made to last. */
  bytes: number;
  isComplete: boolean;
  sha256?: string;
  usedMillis: number;
}

/** The name of the lock that is held in shared mode while a stored file is read, and alone while it is written or deleted. */
export const lockName = (id: string): string => `cinderlm-file-${id}`;

/** The id of the file of an address: the start of its SHA-256. Undefined where the browser computes none, outside of secure contexts. */
export async function fileId(url: string): Promise<string | undefined> {
  if (globalThis.crypto?.subtle === undefined) return undefined;
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(url));
  return Array.from(new Uint8Array(digest, 0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Reads what is stored of a file, and where its log goes on; undefined if nothing of use is stored. */
export async function readState(backend: StorageBackend, id: string): Promise<{ state: StoredState; logEnd: number } | undefined> {
  const log = await backend.read(id + LOG_SUFFIX);
  if (!log) return undefined;
  const text = await log.text();
  const whole = text.slice(0, text.lastIndexOf("\n") + 1); // A crash may have left half a line.
  const lines = whole.split("\n").slice(0, -1);
  const state = Object.assign({ etag: null, lastModified: null, bytes: 0, isComplete: false, usedMillis: 0 }, ...lines.map(parseRecord)) as StoredState;
  if (typeof state.url !== "string") return undefined;
  // Uses take each other's place: a log does not grow with them.
  const last = lines.at(-1) ?? "";
  const encoder = new TextEncoder();
  return { state, logEnd: encoder.encode(whole).length - (last.startsWith(USE) ? encoder.encode(last).length + 1 : 0) };
}

/** How the line of a use begins. */
const USE = '{"usedMillis":';

function parseRecord(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return {};
  }
}

/** Notes what was learned of a file at the end of its log, which stays open; returns where the log goes on. */
export async function appendState(backend: StorageBackend, id: string, logEnd: number, change: Partial<StoredState>): Promise<number> {
  const line = new TextEncoder().encode(`${JSON.stringify(change)}\n`);
  await backend.write(id + LOG_SUFFIX, logEnd, line);
  await backend.flush(id + LOG_SUFFIX);
  return logEnd + line.length;
}

/** Deletes a file. Its log goes last: while that is there, a listing shows what may be left. */
export async function dropFile(backend: StorageBackend, id: string): Promise<void> {
  await backend.delete(id + DATA_SUFFIX);
  await backend.delete(id + LOG_SUFFIX);
}
