// A static host for the demo, as any would be: types, stable ETags, byte ranges. Files can be replaced, withheld in part, or refused.
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { basename, extname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { realModel, tinyModel } from "../models.mjs";

export const TINY_MODEL = "/models/tiny.gguf";
export const REAL_MODEL = `/models/${basename(realModel())}`;
const dist = fileURLToPath(new URL("../../../www/demo/dist/", import.meta.url));

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
};

/**
 * Serves the built demo under `/some/path/`, and the models at `TINY_MODEL` and `REAL_MODEL`.
 *
 * `replace(path, text)` changes a file; `refuse(path, status)` answers with that status until `allow(path)`; `withhold(path, bytes)` sends so
 * many bytes and waits with the rest until `allow(path)`. `requests` are the paths asked for so far, `from` the first byte where not 0.
 */
export async function openSite() {
  const replaced = new Map();
  const refused = new Map();
  const withheld = new Map();
  const requests = [];

  async function answer(request, response) {
    const { pathname } = new URL(request.url, "http://localhost");
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    requests.push({ path: pathname, from });
    const status = refused.get(pathname);
    const file = await open(pathname, replaced);
    if (status !== undefined || file === undefined) return response.writeHead(status ?? 404, { "Content-Type": "text/plain" }).end();
    const { size, etag, read } = file;
    if (request.headers["if-none-match"] === etag) return response.writeHead(304, { ETag: etag }).end();
    response.writeHead(from > 0 ? 206 : 200, {
      "Content-Type": TYPES[extname(pathname.endsWith("/") ? "index.html" : pathname)] ?? "application/octet-stream",
      "Content-Length": size - from,
      "Accept-Ranges": "bytes",
      "Cache-Control": "no-cache",
      ETag: etag,
      ...(from > 0 ? { "Content-Range": `bytes ${from}-${size - 1}/${size}` } : {}),
    });
    const gate = withheld.get(pathname);
    if (gate === undefined || from >= gate.bytes) return pipeline(read(from), response);
    for await (const chunk of read(from, gate.bytes)) response.write(chunk);
    await Promise.race([gate.opened, new Promise((resolve) => response.once("close", resolve))]);
    if (!response.destroyed) await pipeline(read(gate.bytes), response);
  }

  const server = createServer((request, response) => {
    // A page that leaves or cancels closes its connections: nobody is left to tell.
    answer(request, response).catch((error) => response.destroy(error));
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const origin = `http://localhost:${server.address().port}`;
  return {
    origin,
    url: `${origin}/some/path/`,
    requests,
    replace: (path, text) => void replaced.set(path, Buffer.from(text)),
    refuse: (path, status) => void refused.set(path, status),
    withhold(path, bytes) {
      let open;
      const opened = new Promise((resolve) => (open = resolve));
      withheld.set(path, { bytes, opened, open });
    },
    allow(path) {
      refused.delete(path);
      withheld.get(path)?.open();
      withheld.delete(path);
    },
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

async function open(path, replaced) {
  const given = replaced.get(path);
  if (given !== undefined) return fromBytes(given);
  const file = path === TINY_MODEL ? tinyModel() : path === REAL_MODEL ? realModel() : appFile(path);
  if (file === undefined) return undefined;
  const info = await stat(file).catch(() => undefined);
  if (!info?.isFile()) return undefined;
  if (info.size < 1 << 20) return fromBytes(await readFile(file));
  const read = (start, end = info.size) => createReadStream(file, { start, end: end - 1, highWaterMark: 1 << 18 });
  return { size: info.size, etag: `"${info.size}-${info.mtimeMs}"`, read };
}

function appFile(path) {
  if (!path.startsWith("/some/path/")) return undefined;
  const name = path.slice("/some/path/".length) || "index.html";
  return /^[\w.-]+$/.test(name) ? join(dist, name) : undefined;
}

function fromBytes(bytes) {
  return { size: bytes.length, etag: `"${createHash("sha256").update(bytes).digest("hex")}"`, read: (start, end) => [bytes.subarray(start, end)] };
}
