import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { packParams, parseCall, parseField } from "../src/call.js";

const refused = (parsed: ReturnType<typeof parseCall | typeof parseField>): { code: string; param: string | null } => {
  assert.ok(!parsed.ok);
  assert.equal(parsed.error.status, 400);
  return { code: parsed.error.code, param: parsed.error.param };
};

test("a call is taken as it is", () => {
  const call = { type: "complete", key: "k", params: { prompt: ["a", "b"], logit_bias: { 5: -1 }, stream: true, stop: null } };
  assert.deepEqual(parseCall(call), { ok: true, value: call });
  assert.deepEqual(parseCall({ type: "taken", count: 3 }), { ok: true, value: { type: "taken", count: 3 } });
});

test("fields that a call does not have are dropped", () => {
  assert.deepEqual(parseCall({ type: "complete", params: {}, user: "someone else" }), { ok: true, value: { type: "complete", params: {} } });
});

test("calls that are none are refused, with the field that is wrong", () => {
  const table: [unknown, string | null][] = [
    [null, null],
    ["complete", null],
    [[], null],
    [{ type: "config" }, null],
    [{ type: "taken", count: 0 }, null],
    [{ type: "taken", count: 0.5 }, null],
    [{ type: "complete" }, null],
    [{ type: "complete", params: [] }, null],
    [{ type: "complete", params: {}, key: 5 }, null],
    [{ type: "complete", params: {}, seed: "1e3" }, "seed"],
    [{ type: "complete", params: { temperature: Number.NaN } }, "temperature"],
    [{ type: "complete", params: { prompt: [1, Infinity] } }, "prompt[1]"],
    [{ type: "complete", params: { seed: 5n } }, "seed"],
    [{ type: "complete", params: { prompt: new Date() } }, "prompt"],
    [{ type: "complete", params: { a: { b: { c: { d: { e: 1 } } } } } }, "a.b.c.d"],
    [{ type: "complete", params: { prompt: "x".repeat(2 ** 20 + 1) } }, "prompt"],
  ];
  for (const [message, param] of table) assert.deepEqual(refused(parseCall(message)), { code: "invalid_type", param });
});

test("anything at all is taken or refused, never thrown at", () => {
  fc.assert(fc.property(fc.anything({ withBigInt: true, withDate: true, withMap: true }), (message) => typeof parseCall(message).ok === "boolean"));
  fc.assert(fc.property(fc.anything(), (params) => typeof parseCall({ type: "complete", params }).ok === "boolean"));
});

test("a BigInt travels as digits", () => {
  assert.deepEqual(packParams({ seed: -5n, n: 2 }), { params: { n: 2 }, seed: "-5" });
  assert.deepEqual(packParams({ seed: 5 }), { params: { seed: 5 } });
});

test("a field's request is held to its shape", () => {
  const request = { type: "ask", prompt: "a", stop: ["\n"], nReceived: 0 };
  assert.deepEqual(parseField(request), { ok: true, value: request });
  for (const wrong of [{ prompt: 5 }, { stop: "\n" }, { stop: [""] }, { stop: ["a", "b", "c", "d", "e"] }, { nReceived: -1 }, { type: "complete" }]) {
    assert.equal(refused(parseField({ ...request, ...wrong })).code, "invalid_type");
  }
});
