import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { beforeEach, test } from "node:test";
import fc from "fast-check";
import { ModelCache } from "../src/cache.js";
import { isErrorBody, type ErrorBody } from "../src/errors.js";
import type { WireModel } from "../src/messages.js";
import { withModelFiles } from "../src/model-files.js";
import { openFile, type OpenFile } from "../src/open-file.js";
import { DATA_SUFFIX, fileId, LOG_SUFFIX, type CachedFile, type StorageBackend, type StorageNotice } from "../src/storage.js";
import { PortStorage, serveStorage } from "../src/storage-port.js";
import type { LoadProgress } from "../src/types.js";
import { BYTES, readAll, serve, URL_OF_FILE } from "./file-server.js";

const never = new AbortController().signal;
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const HASH = sha256(BYTES);
const ID = (await fileId(URL_OF_FILE)) as string;

/** Files in memory, with faults on request. */
class MemoryStorage implements StorageBackend {
  readonly files = new Map<string, Uint8Array<ArrayBuffer>>();
  usage = 0;
  quota: number | undefined;
  /** Bytes after which a write fails. */
  capacity = Infinity;
  failure: Error | undefined;

  list = async () => [...this.files].map(([name, bytes]) => ({ name, bytes: bytes.length }));
  read = async (name: string) => this.#blob(name);
  flush = async () => undefined;
  close = async () => undefined;
  delete = async (name: string) => void this.files.delete(name);
  estimate = async () => (this.quota === undefined ? {} : { usage: this.usage, quota: this.quota });

  async write(name: string, offset: number, bytes: Uint8Array): Promise<void> {
    const old = this.files.get(name) ?? new Uint8Array();
    assert.ok(offset <= old.length, "a gap");
    if (this.failure !== undefined) throw this.failure;
    if (offset + bytes.length > this.capacity) throw new DOMException("no room", "QuotaExceededError");
    const all = new Uint8Array(offset + bytes.length);
    all.set(old.subarray(0, offset));
    all.set(bytes, offset);
    this.files.set(name, all);
  }

  #blob(name: string): Blob | undefined {
    const bytes = this.files.get(name);
    return bytes && new Blob([bytes]);
  }
}

let storage: MemoryStorage;
let notices: StorageNotice[];
beforeEach(() => {
  storage = new MemoryStorage();
  notices = [];
});

const open = (options: { sha256?: string; storage?: StorageBackend } = {}): Promise<OpenFile> =>
  openFile(
    { url: URL_OF_FILE, ...(options.sha256 === undefined ? {} : { sha256: options.sha256 }) },
    { storage: options.storage ?? storage, signal: never, events: { onBytes: () => undefined, onNotice: (notice) => notices.push(notice) } },
  );

/** Opens the file and reads it to its end, as the runtime does. */
async function load(options: { sha256?: string; storage?: StorageBackend } = {}): Promise<Uint8Array> {
  const file = await open(options);
  try {
    const bytes = await readAll(file);
    await file.end(sha256(bytes));
    return bytes;
  } finally {
    await file.close();
  }
}

/** Opens the file, reads some of it and leaves. */
async function leaveAfter(bytes: number): Promise<void> {
  const file = await open();
  for (let read = 0; read < bytes; ) read += (await file.next())?.length ?? Infinity;
  await file.close();
}

/** What is stored, as a listing tells it. */
const file = async (): Promise<CachedFile | undefined> => (await new ModelCache(storage).list())[0];

test("a file is downloaded once, and read from storage without a server", async () => {
  const ranges = serve({ etag: '"a"' });
  assert.deepEqual(await load(), BYTES);
  assert.deepEqual(await load(), BYTES);
  assert.equal(ranges.length, 1);
  const { usedMillis, ...stored } = (await file()) ?? { usedMillis: 0 };
  assert.deepEqual(stored, { id: ID, url: URL_OF_FILE, bytes: BYTES.length, total: BYTES.length, isComplete: true, sha256: HASH });
  assert.ok(usedMillis > 1.7e12);
});

test("a download that was left goes on from what is stored", async () => {
  const ranges = serve({ etag: '"a"' });
  await leaveAfter(2000);
  const { bytes = 0, isComplete } = (await file()) ?? {};
  assert.ok(bytes >= 2000 && bytes < BYTES.length && isComplete === false);
  assert.deepEqual(await load(), BYTES);
  assert.deepEqual(ranges, [null, `bytes=${bytes}-`]);
});

for (const [name, first, second] of [
  ["another ETag", { etag: '"a"' }, { etag: '"b"' }],
  ["another length", { etag: '"a"' }, { etag: '"a"', bytes: () => BYTES.slice(0, 4000) }],
  ["another date", { headers: { "last-modified": "Mon, 02 Nov 2026 10:00:00 GMT" } }, { headers: { "last-modified": "Tue, 03 Nov 2026 10:00:00 GMT" } }],
  ["nothing to tell it by", {}, {}],
] as const) {
  test(`a file with ${name} is downloaded from its start`, async () => {
    serve(first);
    await leaveAfter(2000);
    const ranges = serve(second);
    const expected = "bytes" in second ? second.bytes() : BYTES;
    assert.deepEqual(await load(), expected);
    assert.equal(ranges.at(-1), null);
    assert.deepEqual(await load(), expected);
  });
}

test("without anything to tell it by, a known hash lets a download go on", async () => {
  serve({});
  await leaveAfter(2000);
  const ranges = serve({});
  assert.deepEqual(await load({ sha256: HASH }), BYTES);
  assert.match(String(ranges[0]), /^bytes=\d+-$/);
});

test("a server that answers the whole file to a range is read on where it was", async () => {
  serve({ etag: '"a"' });
  await leaveAfter(2000);
  const ranges = serve({ etag: '"a"', knowsRanges: false });
  assert.deepEqual(await load(), BYTES);
  assert.equal(ranges.length, 1);
  assert.deepEqual(await load(), BYTES);
});

test("a file that shrank below what is stored is downloaded from its start", async () => {
  serve({ etag: '"a"', hasLength: false });
  await leaveAfter(4000);
  const ranges = serve({ etag: '"a"', hasLength: false, bytes: () => BYTES.slice(0, 3000), faults: [{ status: 416 }] });
  assert.deepEqual(await load(), BYTES.slice(0, 3000));
  assert.equal(ranges.length, 2);
});

test("wherever loads are cut off, and whatever the server tells, the file is whole in the end", async () => {
  const cut = fc.record({ leaveAt: fc.integer({ min: 0, max: 6000 }), etag: fc.constantFrom('"a"', '"b"', undefined), knowsRanges: fc.boolean(), hasLength: fc.boolean(), brokenAt: fc.integer({ min: 1, max: 6000 }) });
  await fc.assert(
    fc.asyncProperty(fc.array(cut, { maxLength: 5 }), async (cuts) => {
      storage = new MemoryStorage();
      // Files with other ETags are other files.
      const bytesOf = (etag: string | undefined): Uint8Array => (etag === '"b"' ? BYTES.slice().reverse() : BYTES);
      for (const { leaveAt, etag, knowsRanges, hasLength, brokenAt } of cuts) {
        serve({ ...(etag === undefined ? {} : { etag }), bytes: () => bytesOf(etag), knowsRanges, hasLength, faults: [{ cutAt: brokenAt }] });
        await leaveAfter(leaveAt);
      }
      // All of a file may have come before it was left: then it is used as it is.
      const stored = await file();
      const wasWhole = stored !== undefined && stored.bytes === stored.total;
      serve({ etag: '"b"', bytes: () => bytesOf('"b"') });
      const bytes = await load();
      const whole = [bytesOf('"b"'), ...(wasWhole ? [BYTES] : [])].map(sha256);
      assert.ok(whole.includes(sha256(bytes)));
      assert.deepEqual(await load(), bytes);
    }),
    { numRuns: 60 },
  );
});

test("what was written after the last checkpoint of a crash is not relied on", async () => {
  serve({ etag: '"a"' });
  await leaveAfter(2000);
  const { bytes = 0 } = (await file()) ?? {};
  await storage.write(ID + DATA_SUFFIX, bytes, new Uint8Array(700)); // As a disk would hold it: the length grew, the bytes did not come.
  const log = storage.files.get(ID + LOG_SUFFIX) as Uint8Array<ArrayBuffer>;
  storage.files.set(ID + LOG_SUFFIX, Uint8Array.from([...log, ...new TextEncoder().encode('{"bytes":99')]));
  assert.deepEqual(await load(), BYTES);
});

test("a log that is no log is none", async () => {
  for (const text of ["", "{", "null\n", "[1]\n", '{"bytes":5000,"isComplete":true}\n', '{"url":7}\n']) {
    storage.files.set(ID + LOG_SUFFIX, new TextEncoder().encode(text));
    storage.files.set(ID + DATA_SUFFIX, new Uint8Array(5000));
    serve({ etag: '"a"' });
    assert.deepEqual(await load(), BYTES, text);
  }
});

test("where there is no room, the notice says how much is needed, and the file is read all the same", async () => {
  storage.quota = 4000;
  serve({ etag: '"a"' });
  assert.deepEqual(await load(), BYTES);
  assert.deepEqual(notices.map(({ code }) => code), ["storage_full"]);
  assert.match(notices[0]?.message ?? "", /takes 5000 bytes: 5000 more bytes are needed, and 4000 are left/);
  assert.equal(storage.files.size, 0);
});

test("room that runs out on the way is told too, and nothing stays behind", async () => {
  storage.capacity = 3000;
  serve({ etag: '"a"', hasLength: false });
  assert.deepEqual(await load(), BYTES);
  assert.deepEqual(notices.map(({ code }) => code), ["storage_full"]);
  assert.match(notices[0]?.message ?? "", /takes more than \d+ bytes/);
  assert.equal(storage.files.size, 0);
});

test("a download that cannot be gone on with is read all the same, stored part and rest", async () => {
  for (const [name, break_] of [
    ["quota", () => (storage.quota = 4000)],
    ["no-store", () => undefined],
    ["disk", () => (storage.failure = new Error("the disk is gone"))],
  ] as const) {
    storage = new MemoryStorage();
    notices = [];
    serve({ etag: '"a"' });
    await leaveAfter(2000);
    break_();
    storage.usage = 2000;
    serve({ etag: '"a"', ...(name === "no-store" ? { headers: { "cache-control": "no-store" } } : {}) });
    assert.deepEqual(await load(), BYTES, name);
    assert.deepEqual(notices.map(({ code }) => code), [name === "quota" ? "storage_full" : name === "disk" ? "storage_failed" : "no_store"]);
    // What a failing disk holds may still be gone on with; what there is no room for may not.
    assert.equal(storage.files.has(ID + DATA_SUFFIX), name === "disk");
  }
});

test("storage that cannot be read or cleared is told, and the file is read all the same", async () => {
  for (const method of ["read", "delete"] as const) {
    storage = new MemoryStorage();
    notices = [];
    Object.assign(storage, { [method]: () => Promise.reject(new DOMException("in use", "NoModificationAllowedError")) });
    serve({ etag: '"a"' });
    assert.deepEqual(await load(), BYTES);
    assert.deepEqual(notices.map(({ code }) => code), ["storage_failed"]);
  }
});

test("noting a use that fails does not fail the load", async () => {
  serve({ etag: '"a"' });
  await load();
  storage.failure = new DOMException("no room", "QuotaExceededError");
  assert.deepEqual(await load(), BYTES);
});

test("of a split model, all parts are dropped where it is not known which one is wrong", async () => {
  serve({ etag: '"a"' });
  const parts = [{ url: URL_OF_FILE }, { url: `${URL_OF_FILE}?2` }];
  await loadModel({ parts });
  assert.equal((await new ModelCache(storage).list()).length, 2);
  storage.files.set(ID + DATA_SUFFIX, headless as Uint8Array<ArrayBuffer>);
  const ranges = serve({ etag: '"a"' });
  assert.deepEqual(await loadModel({ parts }), [HASH, HASH]);
  assert.equal(ranges.length, 2);
});

test("storage that fails is told once", async () => {
  storage.failure = new Error("the disk is gone");
  serve({ etag: '"a"' });
  assert.deepEqual(await load(), BYTES);
  assert.deepEqual(notices, [{ code: "storage_failed", message: "The file is not kept: the disk is gone." }]);
});

test("what a server forbids to store is not stored", async () => {
  serve({ etag: '"a"', headers: { "cache-control": "private, No-Store" } });
  assert.deepEqual(await load(), BYTES);
  assert.deepEqual(notices.map(({ code }) => code), ["no_store"]);
  assert.equal(storage.files.size, 0);
});

test("deleting frees the bytes, and usage counts them", async () => {
  serve({ etag: '"a"' });
  await load();
  const cache = new ModelCache(storage);
  assert.ok((await cache.usage()).bytes >= BYTES.length);
  await cache.delete("no such file");
  assert.equal((await cache.list()).length, 1);
  await cache.delete(ID);
  assert.deepEqual(await cache.list(), []);
  assert.equal((await cache.usage()).bytes, 0);
});

/** Runs loads as the worker does, with a runtime that only hashes and takes fifty zeros for damage. */
function loadModel(model: Partial<WireModel> = {}, progress: LoadProgress[] = []): Promise<string[]> {
  const wire: WireModel = { id: "tale", version: 1, parts: [{ url: URL_OF_FILE }], ...model };
  const context = { storage, signal: never, onProgress: (event: LoadProgress) => void progress.push(event), onNotice: (notice: StorageNotice) => void notices.push(notice) };
  return withModelFiles(wire, context, async (files) => {
    const hashes: string[] = [];
    for (let part = 0; part < files.count; part += 1) {
      const opened = (await files.open(part)) as OpenFile;
      const bytes = await readAll(opened);
      if (bytes.length > 50 && bytes.subarray(0, 50).every((byte) => byte === 0)) throw corrupt;
      hashes.push(sha256(bytes));
      await opened.end(hashes[part] as string);
    }
    return hashes;
  });
}
const corrupt: ErrorBody = { status: 502, type: "model_load_error", code: "corrupt_model", param: null, message: "damaged" };

/** The file with a byte flipped, or without its head. */
const flipped = BYTES.map((byte, i) => (i === 4321 ? byte ^ 1 : byte));
const headless = BYTES.map((byte, i) => (i < 60 ? 0 : byte));

test("a flipped byte is refused, dropped, and the file downloaded once more", async () => {
  for (const damaged of [flipped, headless]) {
    const ranges = serve({ etag: '"a"', bytes: (n) => (n === 0 ? damaged : BYTES) });
    assert.deepEqual(await loadModel({ parts: [{ url: URL_OF_FILE, sha256: HASH }] }), [HASH]);
    assert.deepEqual(ranges, [null, null]);
    assert.equal((await file())?.sha256, HASH);
    storage = new MemoryStorage();
  }
});

test("a file that stays wrong is given up, and not kept", async () => {
  const ranges = serve({ etag: '"a"', bytes: () => flipped });
  const loading = loadModel({ parts: [{ url: URL_OF_FILE, sha256: HASH }] });
  await assert.rejects(loading, (error) => isErrorBody(error) && error.code === "integrity_mismatch" && error.message.includes(HASH));
  assert.equal(ranges.length, 2);
  assert.equal(storage.files.size, 0);
});

test("a damaged file of unknown hash is refused at once, and not kept", async () => {
  const ranges = serve({ etag: '"a"', bytes: () => headless });
  await assert.rejects(loadModel(), (error) => error === corrupt);
  assert.equal(ranges.length, 1);
  assert.equal(storage.files.size, 0);
});

test("a file that cannot be opened fails with what its server said, whatever the runtime makes of that", async () => {
  serve({ faults: [{ status: 404 }] });
  const wire: WireModel = { id: "tale", version: 1, parts: [{ url: URL_OF_FILE }] };
  const context = { storage, signal: never, onProgress: () => undefined, onNotice: () => undefined };
  const loading = withModelFiles(wire, context, (files) => files.open(0).catch(() => Promise.reject(new Error("something"))));
  await assert.rejects(loading, (error) => isErrorBody(error) && error.code === "download_failed" && /^GET .* answered 404/.test(error.message));
});

test("a stored copy that the disk damaged is downloaded anew", async () => {
  serve({ etag: '"a"' });
  await loadModel();
  for (const damaged of [flipped, headless]) {
    storage.files.set(ID + DATA_SUFFIX, damaged as Uint8Array<ArrayBuffer>);
    const ranges = serve({ etag: '"a"' });
    assert.deepEqual(await loadModel(), [HASH]);
    assert.deepEqual(ranges, [null]);
  }
});

test("a stored copy that is not the one wanted now is replaced", async () => {
  serve({ etag: '"a"' });
  await load();
  serve({ etag: '"b"', bytes: () => flipped });
  assert.deepEqual(await loadModel({ parts: [{ url: URL_OF_FILE, sha256: sha256(flipped) }] }), [sha256(flipped)]);
  assert.equal((await file())?.sha256, sha256(flipped));
});

test("a file that changes while it is read is begun anew, once", async () => {
  serve({ etag: (n) => (n === 0 ? '"a"' : '"b"'), bytes: (n) => (n === 0 ? flipped : BYTES), faults: [{ cutAt: 1000 }] });
  assert.deepEqual(await loadModel(), [HASH]);
  storage = new MemoryStorage();
  serve({ etag: (n) => `"${n}"`, faults: Array(9).fill({ cutAt: 1000 }) });
  await assert.rejects(loadModel(), (error) => isErrorBody(error) && error.code === "download_failed" && /changed.*and again/.test(error.message));
});

test("progress never goes back, tells where bytes are from, and counts all parts", async () => {
  serve({ etag: '"a"' });
  await leaveAfter(2000);
  const progress: LoadProgress[] = [];
  const parts = [{ url: URL_OF_FILE }, { url: `${URL_OF_FILE}?2` }];
  assert.deepEqual(await loadModel({ parts }, progress), [HASH, HASH]);
  const bytes = progress.map((event) => event.bytes);
  assert.deepEqual(bytes, bytes.slice().sort((a, b) => a - b));
  assert.deepEqual([...new Set(progress.map(({ phase }) => phase))], ["cache", "download"]);
  assert.deepEqual([progress[0]?.total, progress.at(-1)?.bytes, progress.at(-1)?.total], [undefined, 2 * BYTES.length, 2 * BYTES.length]);
});

test("a backend of the page's own works through a port", async () => {
  const { port1, port2 } = new MessageChannel();
  serveStorage(storage, port1);
  const remote = new PortStorage(port2);
  const ranges = serve({ etag: '"a"' });
  assert.deepEqual(await load({ storage: remote }), BYTES);
  assert.deepEqual(await load({ storage: remote }), BYTES);
  assert.equal(ranges.length, 1);
  storage.failure = new DOMException("no room", "QuotaExceededError");
  await assert.rejects(remote.write("a", 0, new Uint8Array(3)), { name: "QuotaExceededError", message: "no room" });
  storage.list = async () => [{ name: "a", bytes: (() => 1) as unknown as number }];
  await assert.rejects(remote.list(), { name: "DataCloneError" });
  port1.close();
});
