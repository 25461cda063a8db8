import assert from "node:assert/strict";
import { test } from "node:test";
import { ModelLoader } from "../src/loader.js";
import type { LoadProgress, ModelInfo } from "../src/types.js";

const model = { id: "tale", version: 1, parts: [{ url: "https://example.test/tale.gguf" }] };
const never = new AbortController().signal;

function host() {
  const log: string[] = [];
  const gates: PromiseWithResolvers[] = [];
  const loader = new ModelLoader({
    load(wire, signal, onProgress): Promise<ModelInfo> {
      log.push(`load ${wire.id}`);
      onProgress({ model: wire.id, phase: "download", bytes: 1 });
      const gate = withResolvers(wire.id);
      signal.addEventListener("abort", () => {
        log.push("aborted");
        gate.reject(signal.reason);
      });
      gates.push(gate);
      return gate.promise;
    },
    unload: (id) => void log.push(`unload ${id}`),
    loaded: (info) => void log.push(`loaded ${info.id}`),
  });
  return { loader, log, gates };
}

interface PromiseWithResolvers {
  promise: Promise<ModelInfo>;
  resolve(): void;
  reject(reason: unknown): void;
}

function withResolvers(id: string): PromiseWithResolvers {
  let resolve = (): void => undefined;
  let reject: (reason: unknown) => void = () => undefined;
  const promise = new Promise<ModelInfo>((yes, no) => {
    resolve = () => yes({ id, loaded: true, fileBytes: 9 });
    reject = no;
  });
  return { promise, resolve, reject };
}

const quiet = (): void => undefined;
/** Lets all that waits for nothing come to its end. */
const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

test("two calls share one load, and a third finds it done", async () => {
  const { loader, log, gates } = host();
  const both = [loader.load(model, never, quiet), loader.load(model, never, quiet)];
  gates[0]?.resolve();
  await Promise.all(both);
  await loader.load(model, never, quiet);
  assert.deepEqual(log, ["load tale", "loaded tale"]);
});

test("giving up stops the load only when nobody else waits", async () => {
  const { loader, log, gates } = host();
  const first = new AbortController();
  const second = new AbortController();
  const loads = [loader.load(model, first.signal, quiet), loader.load(model, second.signal, quiet)];
  first.abort();
  await assert.rejects(loads[0] as Promise<ModelInfo>, { name: "AbortError" });
  assert.deepEqual(log, ["load tale"]);
  second.abort();
  await assert.rejects(loads[1] as Promise<ModelInfo>, { name: "AbortError" });
  assert.deepEqual(log, ["load tale", "aborted"]);
  const again = loader.load(model, never, quiet);
  await settled();
  gates[1]?.resolve();
  assert.equal((await again).loaded, true);
});

test("a failed load is tried afresh by the next call", async () => {
  const { loader, log, gates } = host();
  const failing = loader.load(model, never, quiet);
  gates[0]?.reject(new Error("cut"));
  await assert.rejects(failing, /cut/);
  const again = loader.load(model, never, quiet);
  await settled();
  gates[1]?.resolve();
  await again;
  assert.deepEqual(log, ["load tale", "load tale", "loaded tale"]);
});

test("unloading while loading stops the load, and its callers hear of it", async () => {
  const { loader, log } = host();
  const loading = loader.load(model, never, quiet);
  loader.unload("tale");
  await assert.rejects(loading, { code: "model_not_found", param: "model" });
  assert.deepEqual(log, ["load tale", "aborted"]);
});

test("a model that was registered anew replaces the one that is loading, and the one that is loaded", async () => {
  const { loader, log, gates } = host();
  const first = loader.load(model, never, quiet);
  const second = loader.load({ ...model, version: 2 }, never, quiet);
  await assert.rejects(first, { code: "model_not_found" });
  await settled();
  gates.at(-1)?.resolve();
  await second;
  const third = loader.load({ ...model, version: 3 }, never, quiet);
  await settled();
  gates.at(-1)?.resolve();
  await third;
  assert.deepEqual(log.filter((line) => line !== "aborted" && line !== "loaded tale"), ["load tale", "load tale", "unload tale", "load tale"]);
});

test("a load that hears late that it was stopped does not take the place of the next", async () => {
  const log: string[] = [];
  const gates: PromiseWithResolvers[] = [];
  const loader = new ModelLoader({
    load(wire): Promise<ModelInfo> {
      log.push(`load ${wire.version}`);
      gates.push(withResolvers(wire.id));
      return (gates.at(-1) as PromiseWithResolvers).promise;
    },
    unload: () => void log.push("unload"),
    loaded: () => void log.push("loaded"),
  });
  const first = loader.load(model, never, quiet);
  const second = loader.load({ ...model, version: 2 }, never, quiet);
  await settled();
  assert.deepEqual(log, ["load 1"]);
  gates[0]?.resolve();
  await assert.rejects(first, { code: "model_not_found" });
  await settled();
  assert.deepEqual(log, ["load 1", "unload", "load 2"]);
  gates[1]?.resolve();
  assert.equal((await second).loaded, true);
  assert.deepEqual(log, ["load 1", "unload", "load 2", "loaded"]);
});

test("progress ends with ready, for every listener", async () => {
  const { loader, gates } = host();
  const phases: LoadProgress["phase"][][] = [[], []];
  const loads = phases.map((seen) => loader.load(model, never, ({ phase }) => seen.push(phase)));
  gates[0]?.resolve();
  await Promise.all(loads);
  assert.deepEqual(phases[0]?.at(-1), "ready");
  assert.deepEqual(phases[1]?.at(-1), "ready");
});
