// A file on a server that `fetch` reaches, for unit tests: with ranges or without, honest or not, and with faults.
import { afterEach, beforeEach } from "node:test";
import type { OpenFile } from "../src/open-file.js";

export const URL_OF_FILE = "https://server.test/tale.gguf";
export const BYTES = Uint8Array.from({ length: 5000 }, (_, i) => i % 251);

/** What tests replace. */
export const real = { fetch: globalThis.fetch, setTimeout: globalThis.setTimeout };
/** Pauses that were asked for: they are noted, and not made. */
export let pauses: number[] = [];
beforeEach(() => {
  pauses = [];
  globalThis.setTimeout = ((run: () => void, millis = 0) => {
    pauses.push(millis);
    return real.setTimeout(run, 0);
  }) as typeof globalThis.setTimeout;
});
afterEach(() => Object.assign(globalThis, real));

/** How a server answers one request. */
export interface Fault {
  status?: number;
  headers?: Record<string, string>;
  /** Bytes after which the connection breaks. */
  cutAt?: number;
  /** The network fails before an answer. */
  isDown?: boolean;
}

export interface ServerOptions {
  etag?: string | ((n: number) => string);
  headers?: Record<string, string>;
  knowsRanges?: boolean;
  hasLength?: boolean;
  bytes?: (n: number) => Uint8Array;
  /** What befalls the first requests. */
  faults?: Fault[];
}

/** Serves the file to `fetch`. Gives the ranges that were asked for. */
export function serve({ etag, headers: always = {}, knowsRanges = true, hasLength = true, bytes = () => BYTES, faults = [] }: ServerOptions): (string | null)[] {
  const ranges: (string | null)[] = [];
  globalThis.fetch = async (_, init = {}) => {
    init.signal?.throwIfAborted();
    const range = new Headers(init.headers).get("range");
    const n = ranges.push(range) - 1;
    const { status, headers = {}, cutAt = Infinity, isDown } = faults[n] ?? {};
    if (isDown) throw new TypeError("network error");
    if (status !== undefined) return new Response("no", { status, headers });
    const file = bytes(n);
    const start = knowsRanges && range !== null ? Number(/^bytes=(\d+)-$/.exec(range)?.[1]) : 0;
    const all = new Headers({ ...always, ...headers });
    if (hasLength) all.set("content-length", String(file.length - start));
    if (etag !== undefined) all.set("etag", typeof etag === "string" ? etag : etag(n));
    const isPart = start > 0;
    if (isPart && hasLength) all.set("content-range", `bytes ${start}-${file.length - 1}/${file.length}`);
    return new Response(body(file.slice(start), cutAt), { status: isPart ? 206 : 200, headers: all });
  };
  return ranges;
}

function body(bytes: Uint8Array, cutAt: number): ReadableStream<Uint8Array> {
  let sent = 0;
  return new ReadableStream({
    type: "bytes",
    pull(controller) {
      if (sent >= cutAt) return controller.error(new TypeError("connection reset"));
      if (sent >= bytes.length) {
        controller.close();
        controller.byobRequest?.respond(0);
        return;
      }
      const part = bytes.slice(sent, Math.min(sent + 700, cutAt, bytes.length));
      sent += part.length;
      controller.enqueue(part);
    },
  });
}

/** Reads a file to its end. */
export async function readAll(file: Pick<OpenFile, "next">): Promise<Uint8Array> {
  const parts: number[] = [];
  for (let part = await file.next(); part !== undefined; part = await file.next()) parts.push(...part);
  return Uint8Array.from(parts);
}
