import assert from "node:assert/strict";
import { test } from "node:test";
import { StoredKernels } from "../src/kernels.js";
import type { StorageBackend } from "../src/storage.js";

/** Files in memory, of which any method may fail. */
function memory(files: Map<string, Uint8Array<ArrayBuffer>>, failing?: keyof StorageBackend): StorageBackend {
  const check = (method: keyof StorageBackend): void => {
    if (method === failing) throw new DOMException("No room.", "QuotaExceededError");
  };
  return {
    list: async () => [...files].map(([name, { length }]) => ({ name, bytes: length })),
    read: async (name) => {
      check("read");
      const bytes = files.get(name);
      return bytes === undefined ? undefined : new Blob([bytes]);
    },
    write: async (name, offset, bytes) => {
      check("write");
      const before = files.get(name)?.subarray(0, offset) ?? new Uint8Array();
      files.set(name, new Uint8Array([...before, ...bytes]));
    },
    flush: async () => check("flush"),
    close: async () => check("close"),
    delete: async (name) => void files.delete(name),
  };
}

/** Opens with the warnings that come. */
async function open(storage: StorageBackend | undefined, isForced = false): Promise<{ kernels: StoredKernels; warnings: string[] }> {
  const warnings: string[] = [];
  return { kernels: await StoredKernels.open(storage, isForced, (message) => warnings.push(message)), warnings };
}

test("what was kept last is there the next time", async () => {
  const storage = memory(new Map());
  const { kernels, warnings } = await open(storage);
  assert.equal(kernels.kept, undefined);
  await kernels.keep({ parameters: { linearLanes: 8, attentionLanes: 32 } });
  assert.equal(await kernels.keep({ parameters: { linearLanes: 4 } }), true);
  assert.deepEqual((await open(storage)).kernels.kept, { parameters: { linearLanes: 4 } });
  assert.deepEqual(warnings, []);
});

test("without storage nothing is kept, and nobody is warned", async () => {
  const { kernels, warnings } = await open(undefined);
  assert.equal(await kernels.keep({}), false);
  assert.deepEqual([kernels.kept, warnings], [undefined, []]);
  assert.equal(await (await open(undefined, true)).kernels.keep({}), true, "if it is asked for");
});

test("what is no JSON counts as nothing, with a warning", async () => {
  const { kernels, warnings } = await open(memory(new Map([["kernels.json", new TextEncoder().encode('{"version"')]])));
  assert.equal(kernels.kept, undefined);
  assert.match(warnings[0] ?? "", /could not be read/);
});

test("storage that does not answer holds nobody up for long", async () => {
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  const storage = { ...memory(files), read: () => new Promise<never>(() => {}) };
  const { kernels, warnings } = await open(storage);
  assert.equal(kernels.kept, undefined);
  assert.equal(await kernels.keep({ attempts: 1 }), false, "what could not be read may be better than the default");
  assert.equal(files.size, 0);
  assert.match(warnings[0] ?? "", /could not be read/);
});

test("one tab calibrates at a time", async (context) => {
  const held = new Set<string>();
  const request = async (name: string, _: unknown, given: (lock: object | null) => Promise<void> | undefined): Promise<void> => {
    if (held.has(name)) return void given(null);
    held.add(name);
    await given({ name });
    held.delete(name);
  };
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { locks: { request } }, configurable: true });
  context.after(() => (before === undefined ? Reflect.deleteProperty(globalThis, "navigator") : Object.defineProperty(globalThis, "navigator", before)));

  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  const [first, second] = [(await open(memory(files))).kernels, (await open(memory(files))).kernels];
  assert.equal(await first.keep({ attempts: 1 }), true);
  assert.equal(await second.keep({ attempts: 1 }), false);
  assert.equal(await first.keep({ attempts: 1, parameters: {} }), true);
  first.end();
  await new Promise(setImmediate);
  assert.equal(await second.keep({ attempts: 2 }), true);
});

for (const method of ["read", "write", "flush", "close"] as const) {
  test(`storage that fails to ${method} is a warning, not a failure`, async () => {
    const { kernels, warnings } = await open(memory(new Map(), method));
    assert.equal(await kernels.keep({}), method === "read");
    assert.equal(warnings.length, 1, JSON.stringify(warnings));
    assert.equal(await kernels.keep({}), method === "read");
    assert.equal(warnings.length, method === "read" ? 1 : 2);
  });
}
