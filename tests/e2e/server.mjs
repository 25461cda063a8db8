// A static file server on this machine, with byte ranges, and faults on request.
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, normalize, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
export const dist = join(here, "../../www/package/dist");

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".webmanifest": "application/manifest+json",
  ".json": "application/json",
  ".map": "application/json",
  ".ts": "text/plain; charset=utf-8",
  ".wasm": "application/wasm",
  ".gguf": "application/octet-stream",
};

/**
 * Serves `/dist/` (the built package), `/page/` (what this folder gives to pages), and what `files` names.
 *
 * `files` maps an address such as `/models/a.gguf` to a file or a Buffer; `/` is `/page/page.html`. With `isolated`, pages are
 * cross-origin isolated; `policy` is a content-security policy. With `storable`, what `files` names has an ETag and may be kept; all else is
 * `no-store`. `redirects` maps addresses to others. `shared` lets pages of other origins in, and hides from them what servers hide unless told
 * otherwise.
 *
 * Of the server, `requests` is what was asked: `{ path, range, authorization }`. `fault(path, { status, cutAt, hangs, flipAt,
 * chunkDelayMillis, ignoresRanges, times })` spoils answers to that address: another status, the connection cut after so many bytes or left hanging, a bit of that byte of the file
 * flipped, a pause before each 64 KiB, the whole file for a range; `times` many times (default: until cleared).
 */
export async function serve({ port = 0, files = {}, isolated = false, policy, storable = false, redirects = {}, shared = false, log } = {}) {
  const requests = [];
  const faults = new Map();
  const server = createServer((request, response) => {
    answer(request, response).catch((error) => {
      // A browser that leaves a page, or a test that aborts, closes connections early: nobody is left to tell.
      if (!response.destroyed) response.destroy(error);
    });
  });

  async function answer(request, response) {
    const asked = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const path = asked === "/" ? "/page/page.html" : asked;
    log?.(`${request.method} ${path}`);
    const { range: rangeHeader, authorization } = request.headers;
    requests.push({ path, range: rangeHeader, authorization });
    response.setHeader("Cache-Control", storable && path in files ? "no-cache" : "no-store");
    if (shared) allowOthers(request, response);
    if (request.method === "OPTIONS") return end(response, 204);
    if (isolated) {
      response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
      response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    }
    if (policy !== undefined) response.setHeader("Content-Security-Policy", policy);
    const fault = takeFault(path);
    if (fault?.status !== undefined) return end(response, fault.status);
    if (path in redirects) {
      response.setHeader("Location", redirects[path]);
      return end(response, 302);
    }
    if (request.method !== "GET" && request.method !== "HEAD") return end(response, 405);
    const source = await open(path);
    if (source === undefined) return end(response, 404);
    const range = fault?.ignoresRanges ? { start: 0, end: source.size, partial: false } : parseRange(rangeHeader, source.size);
    if (range === undefined) {
      response.setHeader("Content-Range", `bytes */${source.size}`);
      return end(response, 416);
    }
    response.writeHead(range.partial ? 206 : 200, {
      "Content-Type": TYPES[extname(path === "/" ? "page.html" : path)] ?? "application/octet-stream",
      "Content-Length": range.end - range.start,
      "Accept-Ranges": "bytes",
      ...(storable && path in files ? { ETag: source.etag } : {}),
      ...(range.partial ? { "Content-Range": `bytes ${range.start}-${range.end - 1}/${source.size}` } : {}),
    });
    if (request.method === "HEAD") return response.end();
    if (fault === undefined) return pipeline(source.read(range.start, range.end), response);
    await sendSpoiled(response, source.read(range.start, range.end), { ...fault, flipAt: (fault.flipAt ?? Infinity) - range.start });
  }

  function takeFault(path) {
    const fault = faults.get(path);
    if (fault !== undefined && --fault.times <= 0) faults.delete(path);
    return fault;
  }

  async function open(path) {
    const given = files[path];
    if (given instanceof Uint8Array) return fromBytes(given);
    const file = given ?? localFile(path);
    if (file === undefined) return undefined;
    const info = await stat(file).catch(() => undefined);
    if (!info?.isFile()) return undefined;
    return {
      size: info.size,
      etag: `"${info.mtimeMs.toString(36)}-${info.size.toString(36)}"`,
      // Reads that are empty are not asked for: createReadStream cannot express one.
      read: (start, end) => (end > start ? createReadStream(file, { start, end: end - 1, highWaterMark: 1 << 18 }) : []),
    };
  }

  await new Promise((resolve, reject) => server.once("error", reject).listen(port, "127.0.0.1", resolve));
  return {
    url: `http://localhost:${server.address().port}`,
    files,
    requests,
    fault: (path, fault) => void faults.set(path, { times: Infinity, ...fault }),
    clearFaults: () => faults.clear(),
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Without exposing a header: ETag and Content-Range stay hidden, as on servers that do not know of such readers. */
function allowOthers(request, response) {
  response.setHeader("Access-Control-Allow-Origin", request.headers.origin ?? "*");
  response.setHeader("Access-Control-Allow-Headers", "authorization");
}

function end(response, status) {
  response.writeHead(status, { "Content-Type": "text/plain" });
  response.end(`${status}\n`);
}

function localFile(path) {
  const [folder, rest] =
    path.startsWith("/dist/") ? [dist, path.slice("/dist/".length)]
    : path.startsWith("/page/") ? [join(here, "page"), path.slice("/page/".length)]
    : [];
  if (folder === undefined) return undefined;
  const file = normalize(join(folder, rest));
  return file.startsWith(folder + sep) ? file : undefined;
}

function* slices(bytes) {
  for (let start = 0; start < bytes.length; start += 1 << 16) yield bytes.subarray(start, start + (1 << 16));
}

function fromBytes(bytes) {
  return { size: bytes.length, etag: `"${createHash("sha256").update(bytes).digest("hex").slice(0, 16)}"`, read: (start, end) => slices(bytes.subarray(start, end)) };
}

/** A single range as browsers send it; undefined when it cannot be met. */
function parseRange(header, size) {
  const whole = { start: 0, end: size, partial: false };
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (match === null || (match[1] === "" && match[2] === "")) return whole;
  const start = match[1] === "" ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const last = match[1] === "" || match[2] === "" ? size - 1 : Math.min(Number(match[2]), size - 1);
  return start <= last ? { start, end: last + 1, partial: true } : undefined;
}

function flipped(bytes, at) {
  const copy = Buffer.from(bytes);
  copy[at] ^= 1;
  return copy;
}

async function sendSpoiled(response, chunks, { cutAt = Infinity, hangs = false, flipAt, chunkDelayMillis = 0 }) {
  let left = cutAt;
  let toFlip = flipAt;
  for await (const chunk of chunks) {
    if (chunkDelayMillis > 0) await new Promise((resolve) => setTimeout(resolve, chunkDelayMillis));
    if (response.destroyed) return;
    const part = toFlip >= 0 && toFlip < chunk.length ? flipped(chunk.subarray(0, left), toFlip) : chunk.subarray(0, left);
    toFlip -= chunk.length;
    if (!response.write(part)) await new Promise((resolve) => response.once("drain", resolve).once("close", resolve));
    left -= part.length;
    if (left <= 0) {
      if (hangs) return;
      // Let what was written leave first, so that the cut is where it was asked for.
      setTimeout(() => response.destroy(), 20);
      return;
    }
  }
  response.end();
}
