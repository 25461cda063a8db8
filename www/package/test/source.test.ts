import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { modelAddress } from "../src/address.js";
import { isErrorBody, type ErrorBody } from "../src/errors.js";
import { Pace } from "../src/pace.js";
import { openFile, type OpenFile } from "../src/open-file.js";
import { ChangedFile } from "../src/download.js";
import { BYTES, pauses, readAll, real, serve, URL_OF_FILE } from "./file-server.js";

const never = new AbortController().signal;

const open = (signal = never, onBytes: (bytes: number, total?: number) => void = () => undefined): Promise<OpenFile> =>
  openFile({ url: URL_OF_FILE }, { storage: undefined, signal, events: { onBytes: (_, bytes, total) => onBytes(bytes, total), onNotice: () => assert.fail() } });

const failsWith = (pattern: RegExp) => (error: unknown): boolean => {
  const body = error as ErrorBody;
  assert.ok(isErrorBody(error), String(error));
  assert.equal(body.code, "download_failed");
  assert.match(body.message, pattern);
  return true;
};

test("a download that breaks off goes on with the right range", async () => {
  for (const share of [0.1, 0.5, 0.95]) {
    const cutAt = BYTES.length * share;
    const ranges = serve({ etag: '"a"', faults: [{ cutAt }] });
    const told: [number, number | undefined][] = [];
    assert.deepEqual(await readAll(await open(never, (bytes, total) => told.push([bytes, total]))), BYTES);
    assert.deepEqual(ranges, [null, `bytes=${cutAt}-`]);
    assert.deepEqual(told.at(-1), [BYTES.length, BYTES.length]);
    assert.deepEqual(told.map(([bytes]) => bytes), told.map(([bytes]) => bytes).sort((a, b) => a - b));
  }
});

test("wherever it breaks off, whatever the server tells, the file is whole", async () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 2000 }), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(cuts, fc.boolean(), fc.boolean(), fc.boolean(), async (cuts, knowsRanges, hasLength, hasEtag) => {
      // A server without ranges begins anew each time: it must get a little further.
      const faults = cuts.map((cutAt, i) => ({ cutAt: knowsRanges ? cutAt : cutAt + 2000 * i }));
      serve({ knowsRanges, hasLength, ...(hasEtag ? { etag: '"a"' } : {}), faults });
      assert.deepEqual(await readAll(await open()), BYTES);
    }),
    { numRuns: 60 },
  );
});

for (const [name, fault] of [
  ["a network that is down", { isDown: true }],
  ["a server that is down", { status: 503 }],
  ["a server that is busy", { status: 429 }],
] as const) {
  test(`${name} is tried again, with pauses that grow, and then given up`, async () => {
    const ranges = serve({ faults: [fault, fault, fault] });
    assert.deepEqual(await readAll(await open()), BYTES);
    assert.equal(ranges.length, 4);
    assert.ok(pauses.length === 3 && pauses.every((pause, i) => pause >= 500 * 2 ** i && pause <= 640 * 2 ** i), pauses.join());
    serve({ faults: Array(9).fill(fault) });
    await assert.rejects(open(), failsWith(/GET https:\/\/server\.test\/tale\.gguf (failed: network error|answered (503|429)).*the last of 4 tries/));
  });
}

test("a server's own pause is kept, within reason", async () => {
  serve({ faults: [{ status: 503, headers: { "retry-after": "7" } }, { status: 503, headers: { "retry-after": "9999" } }] });
  await readAll(await open());
  assert.deepEqual(pauses, [7000, 30_000]);
});

test("what does not get better is not tried again", async () => {
  for (const status of [401, 403, 404, 410]) {
    const ranges = serve({ faults: [{ status }] });
    await assert.rejects(open(), failsWith(new RegExp(`answered ${status}`)));
    assert.equal(ranges.length, 1);
  }
});

test("a connection that brings nothing is given up and says where", async () => {
  serve({ faults: [{ cutAt: 1400 }, ...Array(9).fill({ cutAt: 0 })] });
  const file = await open();
  await assert.rejects(readAll(file), failsWith(/Reading .*tale\.gguf failed after 1400 bytes: connection reset, the last of 4 tries/));
  assert.ok(isErrorBody(file.failure) && file.failure.code === "download_failed");
});

test("a file that changed while it was read is refused", async () => {
  serve({ etag: (n) => `"${n}"`, faults: [{ cutAt: 1000 }] });
  await assert.rejects(open().then(readAll), ChangedFile);
  serve({ bytes: (n) => (n === 0 ? BYTES : BYTES.slice(0, 4000)), faults: [{ cutAt: 1000 }] });
  await assert.rejects(open().then(readAll), ChangedFile);
});

test("another range than the one asked for is refused", async () => {
  serve({ faults: [{ cutAt: 1000 }] });
  const { fetch } = globalThis;
  globalThis.fetch = async (...parameters) => {
    const response = await fetch(...parameters);
    if (response.status !== 206) return response;
    return new Response(response.body, { status: 206, headers: { "content-range": `bytes 0-4999/${BYTES.length}` } });
  };
  await assert.rejects(open().then(readAll), failsWith(/another range/));
});

test("an abort ends a pause", async () => {
  Object.assign(globalThis, { setTimeout: real.setTimeout });
  serve({ faults: Array(9).fill({ isDown: true }) });
  const controller = new AbortController();
  const opening = open(controller.signal);
  real.setTimeout(() => controller.abort(), 20);
  await assert.rejects(opening, { name: "AbortError" });
});

test("a given file is read once, and its failure is final", async () => {
  const events = { onBytes: () => undefined, onNotice: () => assert.fail() };
  const file = await openFile({ file: new Blob([BYTES]) }, { storage: undefined, signal: never, events });
  assert.equal(file.size, BYTES.length);
  assert.deepEqual(await readAll(file), BYTES);
});

for (const [given, expected] of [
  ["https://server.test/a%20b.gguf", "https://server.test/a%20b.gguf"],
  ["hf:owner/repo/file.gguf", "https://huggingface.co/owner/repo/resolve/main/file.gguf"],
  ["hf:owner/repo/sub/my file.gguf@v1.0", "https://huggingface.co/owner/repo/resolve/v1.0/sub/my%20file.gguf"],
  ["hf:owner/repo/file.gguf@refs/pr/1", "https://huggingface.co/owner/repo/resolve/refs%2Fpr%2F1/file.gguf"],
  ["HF://owner/repo/file.gguf", "https://huggingface.co/owner/repo/resolve/main/file.gguf"],
] as const) {
  test(`the address of ${given}`, () => assert.equal(modelAddress(given), expected));
}

for (const given of ["hf:", "hf:owner", "hf:owner/repo", "hf:owner/repo/", "hf:owner/repo/@main", "hf:owner/repo/a/../b.gguf", "hf:owner/repo/folder/"]) {
  test(`${given} is no address`, () => assert.throws(() => modelAddress(given), TypeError));
}

test("a pace is that of late", () => {
  let now = 0;
  const pace = new Pace(0, () => now);
  assert.deepEqual(pace.at(10, 1000), {});
  for (let i = 1; i <= 40; i++) {
    now = 100 * i;
    pace.at(100 * i, 10_000);
  }
  assert.deepEqual(pace.at(4000, 10_000), { rate: 1000, secondsLeft: 6 });
  for (let i = 1; i <= 40; i++) {
    now += 100;
    pace.at(4000 + 50 * i, undefined);
  }
  assert.deepEqual(pace.at(6000, undefined), { rate: 500 });
});
