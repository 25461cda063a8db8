import { ChangedFile } from "./download.js";
import { errorBody, isErrorBody, type ErrorBody, type ErrorCode } from "./errors.js";
import type { WireModel } from "./messages.js";
import { forgetFile, openFile, type FileAddress, type ForwardSource, type OpenEvents, type OpenFile } from "./open-file.js";
import { Pace } from "./pace.js";
import type { StorageBackend, StorageNotice } from "./storage.js";
import type { LoadPhase, LoadProgress } from "./types.js";

/** The files of a model: one, or the parts that it was split into. The runtime opens one at a time, and may open one more than once. */
export interface ModelFiles {
  readonly count: number;
  /** Opens a part, and lets go of the one before. */
  open(part: number): Promise<ForwardSource>;
}

/** What loading takes and tells. */
export interface LoadContext {
  /** Where downloads are kept; undefined where they are not. */
  storage: StorageBackend | undefined;
  signal: AbortSignal;
  onProgress(progress: LoadProgress): void;
  onNotice(notice: StorageNotice): void;
}

/** Failures that wrong bytes may be the cause of. */
const MAY_BE_WRONG_BYTES: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["integrity_mismatch", "corrupt_model", "unsupported_model"]);

/**
 * Runs `load` with a model's files. Bytes that turn out to be wrong are dropped, and where others may come it runs once more.
 *
 * @throws ErrorBody; or what the signal was aborted for.
 */
export async function withModelFiles<T>(model: WireModel, context: LoadContext, load: (files: ModelFiles) => Promise<T>): Promise<T> {
  for (let isRetry = false; ; isRetry = true) {
    const files = new OpenModelFiles(model, { ...context, isRetry });
    try {
      return await load(files);
    } catch (error) {
      context.signal.throwIfAborted();
      const cause = files.failure ?? error;
      const isChanged = cause instanceof ChangedFile;
      if (!isChanged && !(isErrorBody(cause) && MAY_BE_WRONG_BYTES.has(cause.code))) throw cause;
      const mayImprove = isChanged || files.mayImprove;
      // What cannot be dropped is found wrong again next time; why the load failed matters more.
      await files.drop(isChanged || (isErrorBody(cause) && cause.code === "integrity_mismatch")).catch(() => undefined);
      context.signal.throwIfAborted();
      if (isRetry || !mayImprove) throw isChanged ? changed(cause) : cause;
    } finally {
      await files.close();
    }
  }
}

function changed(cause: ChangedFile): ErrorBody {
  return errorBody("download_failed", `${cause.message}, and again when it was read anew: try later.`);
}

class OpenModelFiles implements ModelFiles {
  readonly #addresses: FileAddress[];
  readonly #context: LoadContext & { isRetry: boolean };
  readonly #progress: Progress;
  #current: OpenFile | undefined;
  #openFailure: unknown;
  #mayImprove = false;

  constructor(model: WireModel, context: LoadContext & { isRetry: boolean }) {
    this.#addresses = model.parts.map((part) => (model.token === undefined ? part : { ...part, token: model.token }));
    this.#progress = new Progress(model, context);
    this.#context = context;
  }

  get count(): number {
    return this.#addresses.length;
  }

  /** Whether other bytes may come if what is stored is dropped. */
  get mayImprove(): boolean {
    return this.#mayImprove;
  }

  /** Why the part that was opened last cannot be had, if it cannot. The runtime passes on no more than a text of that. */
  get failure(): unknown {
    return this.#openFailure ?? this.#current?.failure;
  }

  async open(part: number): Promise<OpenFile> {
    await this.close();
    this.#current = undefined;
    const address = this.#addresses[part];
    if (address === undefined) throw new RangeError(`There is no part ${part} of ${this.count}.`);
    const { storage, signal, isRetry, onNotice } = this.#context;
    const onBytes: OpenEvents["onBytes"] = (phase, bytes, total) => this.#progress.at(part, phase, bytes, total);
    try {
      const file = await openFile(address, { storage, signal, isRetry, events: { onNotice, onBytes } });
      this.#mayImprove ||= file.mayImprove;
      return (this.#current = file);
    } catch (error) {
      this.#openFailure = error;
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#current?.close();
  }

  /** Drops what is stored of the open part, or of all where it is not known which one is wrong. */
  async drop(isThisPart: boolean): Promise<void> {
    await this.#current?.drop();
    if (isThisPart || this.count === 1) return;
    for (const address of this.#addresses) await forgetFile(address, this.#context);
  }
}

/** How far all parts have come together. */
class Progress {
  readonly #id: string;
  readonly #context: LoadContext;
  readonly #bytes: number[];
  readonly #totals: (number | undefined)[];
  #phase: LoadPhase | undefined;
  #pace = new Pace();

  constructor(model: WireModel, context: LoadContext) {
    this.#id = model.id;
    this.#context = context;
    this.#bytes = model.parts.map(() => 0);
    this.#totals = model.parts.map(() => undefined);
  }

  at(part: number, phase: LoadPhase, partBytes: number, partTotal: number | undefined): void {
    // A part that is opened once more begins anew; what had come of it has not gone.
    const before = sum(this.#bytes);
    this.#bytes[part] = Math.max(this.#bytes[part] ?? 0, partBytes);
    this.#totals[part] = partTotal;
    const bytes = sum(this.#bytes);
    if (phase !== this.#phase) this.#pace = new Pace(before); // A disk's rate says nothing of a network's.
    this.#phase = phase;
    const totals = this.#totals.filter((total) => total !== undefined);
    const total = totals.length === this.#totals.length ? sum(totals) : undefined;
    this.#context.onProgress({ model: this.#id, phase, bytes, ...(total === undefined ? {} : { total }), ...this.#pace.at(bytes, total) });
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, number) => all + number, 0);
}
