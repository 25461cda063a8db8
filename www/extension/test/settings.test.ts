import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULTS, parseSettings } from "../src/settings.js";

test("nothing stored is as by default, and what is out of range too, field by field", () => {
  for (const stored of [undefined, null, 5, [], {}, { maxTokens: 0, temperature: 3, device: "tpu", trigger: 1, idleMinutes: -1, model: { id: "" } }]) {
    assert.deepEqual(parseSettings(stored), DEFAULTS);
  }
  assert.deepEqual(parseSettings({ temperature: 0, device: "cpu", maxTokens: "9" }), { ...DEFAULTS, temperature: 0, device: "cpu" });
});

test("a model has an address or a file", () => {
  const url = { id: "tale", url: "hf:owner/repo/tale.gguf" };
  const file = { id: "tale", file: "tale.gguf" };
  assert.deepEqual(parseSettings({ model: { ...url, more: 1 } }).model, url);
  assert.deepEqual(parseSettings({ model: file }).model, file);
  assert.equal(parseSettings({ model: { id: "tale" } }).model, null);
});
