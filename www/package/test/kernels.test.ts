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
async function open(storage: StorageBackend | undefined): Promise<{ kernels: StoredKernels; warnings: string[] }> {
  const warnings: string[] = [];
  return { kernels: await StoredKernels.open(storage, (message) => warnings.push(message)), warnings };
}

test("what was kept last is there the next time", async () => {
  const storage = memory(new Map());
  const { kernels, warnings } = await open(storage);
  assert.equal(kernels.kept, undefined);
  await kernels.keep({ parameters: { linearLanes: 8, attentionLanes: 32 } });
  await kernels.keep({ parameters: { linearLanes: 4 } });
  assert.deepEqual((await open(storage)).kernels.kept, { parameters: { linearLanes: 4 } });
  assert.deepEqual(warnings, []);
});

test("without storage nothing is kept, and nobody is warned", async () => {
  const { kernels, warnings } = await open(undefined);
  await kernels.keep({});
  assert.deepEqual([kernels.kept, warnings], [undefined, []]);
});

test("what is no JSON counts as nothing, with a warning", async () => {
  const { kernels, warnings } = await open(memory(new Map([["kernels.json", new TextEncoder().encode('{"version"')]])));
  assert.equal(kernels.kept, undefined);
  assert.match(warnings[0] ?? "", /could not be read/);
});

for (const method of ["read", "write", "flush", "close"] as const) {
  test(`storage that fails to ${method} is a warning, not a failure`, async () => {
    const { kernels, warnings } = await open(memory(new Map(), method));
    await kernels.keep({});
    assert.equal(warnings.length, 1, JSON.stringify(warnings));
  });
}
