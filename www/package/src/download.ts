import { errorBody, type ErrorBody } from "./errors.js";

/** Tries that in turn bring nothing before a download is given up. */
const MAX_TRIES = 4;
const FIRST_PAUSE_MILLIS = 500;
/** A server may ask for a longer pause, up to this. */
const MAX_PAUSE_MILLIS = 30_000;
/** Answers after which the same request may succeed. */
const RETRIABLE: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);

/** A stream of a file's bytes from some offset on. */
export interface Opened {
  stream: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Bytes of the file before the stream's first. */
  offset: number;
}

/** What tells one state of a file on a server from another. */
export interface Validator {
  etag: string | null;
  lastModified: string | null;
  /** Bytes in all, as the server tells them; undefined if it does not, or if what it sends is compressed. */
  total: number | undefined;
}

/** The file is not the one that its first bytes were of. Beginning anew may help. */
export class ChangedFile extends Error {}

/** How a {@link Download} asks. */
export interface DownloadOptions {
  token?: string | undefined;
  signal: AbortSignal;
  /** Of the file that earlier bytes are of, which this one must be. */
  known?: Validator;
  /** Past the browser's own cache, which would hold a second copy of what is stored, or a broken one. */
  isFresh?: boolean;
}

/**
 * A file on a server, which can be opened again where reading it broke off: with `Range`, or from the start where the server knows no ranges.
 * Faults of the network and of the server are tried again after a pause that grows.
 */
export class Download {
  readonly url: string;
  readonly #token: string | undefined;
  readonly #signal: AbortSignal;
  readonly #httpCache: RequestCache;
  #known: Validator | undefined;
  #isHidden = false;
  #mayBeStored = true;
  /** Tries since something came. */
  #nTries = 0;

  constructor(url: string, { token, signal, known, isFresh = false }: DownloadOptions) {
    this.url = url;
    this.#token = token !== undefined && mayCarryToken(url) ? token : undefined;
    this.#signal = signal;
    this.#known = known;
    this.#httpCache = isFresh ? "no-store" : "default";
  }

  /** What the file was when its first bytes came. */
  get validator(): Validator {
    return this.#known ?? { etag: null, lastModified: null, total: undefined };
  }

  /** Whether the server lets the file be kept. */
  get mayBeStored(): boolean {
    return this.#mayBeStored;
  }

  /** Whether the length can be relied on: another origin may hide that its body is compressed. */
  get isExact(): boolean {
    return !this.#isHidden;
  }

  /** Something came: later faults get all tries again. */
  progressed(): void {
    this.#nTries = 0;
  }

  /**
   * Opens the file, at `offset` if the server can.
   *
   * @throws ErrorBody `download_failed`; ChangedFile; or what the signal was aborted for.
   */
  async open(offset: number): Promise<Opened> {
    for (;;) {
      const answer = await this.#request(offset);
      if (answer instanceof Response) return this.#opened(answer, offset);
      if (!answer.isRetriable) throw answer.error;
      await this.pause(answer.error, answer.pauseMillis);
    }
  }

  /** Waits before another try, or gives up with the error if there have been enough. */
  async pause(error: ErrorBody, askedMillis = 0): Promise<void> {
    this.#nTries += 1;
    if (this.#nTries >= MAX_TRIES) throw { ...error, message: `${error.message.replace(/\.$/, "")}, the last of ${MAX_TRIES} tries.` };
    const usual = FIRST_PAUSE_MILLIS * 2 ** (this.#nTries - 1) * (1 + Math.random() / 4);
    await sleep(Math.min(Math.max(usual, askedMillis), MAX_PAUSE_MILLIS), this.#signal);
  }

  async #request(offset: number): Promise<Response | { error: ErrorBody; isRetriable: boolean; pauseMillis?: number }> {
    const headers: Record<string, string> = {};
    if (this.#token !== undefined) headers["authorization"] = `Bearer ${this.#token}`;
    // Asked for a range, browsers ask for it uncompressed.
    if (offset > 0) headers["range"] = `bytes=${offset}-`;
    let response: Response;
    try {
      response = await fetch(this.url, { headers, signal: this.#signal, cache: this.#httpCache });
    } catch (error) {
      this.#signal.throwIfAborted();
      return { error: errorBody("download_failed", `GET ${this.url} failed: ${message(error)}.`), isRetriable: true };
    }
    if (response.body !== null && (response.status === 200 || (response.status === 206 && offset > 0))) return response;
    await response.body?.cancel();
    const status = `${response.status} ${response.statusText}`.trimEnd();
    const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
    const pauseMillis = seconds > 0 ? seconds * 1000 : 0;
    const error = errorBody("download_failed", `GET ${this.url} answered ${status}; expected 200${offset > 0 ? " or 206" : ""}.`);
    if (response.status === 416) throw new ChangedFile(`${this.url} has no bytes from ${offset} on`);
    return { error, isRetriable: RETRIABLE.has(response.status), pauseMillis };
  }

  async #opened(response: Response, offset: number): Promise<Opened> {
    const stream = response.body as ReadableStream<Uint8Array<ArrayBuffer>>;
    const isPart = response.status === 206;
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "");
    const found: Validator = {
      etag: response.headers.get("etag"),
      lastModified: response.headers.get("last-modified"),
      total: isPart ? totalOf(range?.[2], offset, response) : contentLength(response),
    };
    this.#isHidden ||= response.type === "cors" && !isPart;
    this.#mayBeStored &&= !/\bno-store\b/i.test(response.headers.get("cache-control") ?? "");
    const known = this.#known;
    if (known !== undefined && !isSame(known, found)) {
      await stream.cancel();
      throw new ChangedFile(`${this.url} changed since its first bytes came`);
    }
    this.#known ??= found;
    const start = range?.[1] === undefined ? offset : Number(range[1]);
    if (isPart && (start !== offset || response.headers.has("content-encoding"))) {
      await stream.cancel();
      throw errorBody("download_failed", `GET ${this.url} answered another range than bytes ${offset} on.`);
    }
    return { stream, offset: isPart ? offset : 0 };
  }
}

/** Whether two answers may be of one file. What told the first apart must tell so of the second; a length may be hidden. */
function isSame(known: Validator, found: Validator): boolean {
  if (known.total !== undefined && found.total !== undefined && known.total !== found.total) return false;
  if (known.etag !== null && found.etag !== null) return known.etag === found.etag;
  if (known.lastModified !== null && found.lastModified !== null) return known.lastModified === found.lastModified;
  return known.etag === null && known.lastModified === null;
}

/** The length of a file of which a part came. An origin that hides the range still tells how long the part is. */
function totalOf(told: string | undefined, offset: number, response: Response): number | undefined {
  if (told !== undefined) return told === "*" ? undefined : Number(told);
  const length = contentLength(response);
  return length === undefined ? undefined : offset + length;
}

/** A token must not travel in the clear to another machine. */
function mayCarryToken(url: string): boolean {
  const { protocol, origin } = new URL(url);
  return protocol === "https:" || origin === globalThis.location?.origin;
}

/** The size of the decoded body as far as it shows; a compressed one has another length than its header says. */
function contentLength(response: Response): number | undefined {
  const length = response.headers.get("content-length");
  if (length === null || response.headers.has("content-encoding")) return undefined;
  const size = Number(length);
  return Number.isSafeInteger(size) ? size : undefined;
}

function sleep(millis: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, millis);
    signal.addEventListener("abort", abort, { once: true });
  });
}

/** What an error says. */
export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
