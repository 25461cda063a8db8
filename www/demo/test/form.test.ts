// What the form says becomes a request, a link and code.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { FIELDS, fieldOf, initialValues, type FormValues } from "../src/fields.js";
import { modelAt } from "../src/models.js";
import { toParams } from "../src/params.js";
import { planOutput } from "../src/plan.js";
import { decodeShare, encodeShare } from "../src/share.js";
import { toSnippet } from "../src/snippet.js";

const PAGE = "https://example.com/demo/";

function values(changes: Partial<FormValues> = {}): FormValues {
  return { ...initialValues(), max_tokens: "", ...changes };
}

/** The request of a form, without what every request has. */
function request(changes: Partial<FormValues>): Record<string, unknown> {
  const { model, prompt, logprobs, stream, stream_options, ...rest } = toParams(values(changes), "m");
  assert.deepEqual({ model, stream, stream_options }, { model: "m", stream: true, stream_options: { include_usage: true } });
  return { ...(prompt === "Once upon a time" ? {} : { prompt }), ...(logprobs === 5 ? {} : { logprobs }), ...rest };
}

test("every field of a request is in the form's table, once", () => {
  const names = FIELDS.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  const usual = "echo logprobs max_tokens n prompt prompt_kind stop stream suffix temperature top_p user";
  const rare = "best_of frequency_penalty include_usage logit_bias presence_penalty seed";
  assert.deepEqual([...names].sort(), `${usual} ${rare}`.split(" ").sort());
});

const REQUESTS: [string, Partial<FormValues>, Record<string, unknown>][] = [
  ["nothing", {}, {}],
  ["numbers", { max_tokens: "12", temperature: " 0.5 ", top_p: "1e-1", n: "3" }, { max_tokens: 12, temperature: 0.5, top_p: 0.1, n: 3 }],
  ["what is no number, to be refused in its own words", { temperature: "hot" }, { temperature: "hot" }],
  ["a seed beyond doubles", { seed: "9223372036854775807" }, { seed: 9223372036854775807n }],
  ["stops with escapes", { stop: "\\n\nEND\na\\\\n" }, { stop: ["\n", "END", "a\\n"] }],
  ["an empty stop between others", { stop: "a\n\nb" }, { stop: ["a", "", "b"] }],
  ["biases", { logit_bias: "42: -100\n7=1.5\n" }, { logit_bias: { 42: -100, 7: 1.5 } }],
  ["a bias of nothing, to be refused", { logit_bias: "oops" }, { logit_bias: { oops: null } }],
  ["texts", { prompt: "a\nb", prompt_kind: "lines" }, { prompt: ["a", "b"] }],
  ["ids", { prompt: "1, 2 3", prompt_kind: "ids" }, { prompt: [1, 2, 3] }],
  ["lists of ids", { prompt: "1 2\n3", prompt_kind: "ids" }, { prompt: [[1, 2], [3]] }],
  ["no logprobs", { logprobs: "0" }, { logprobs: 0 }],
  ["spaces, which are text", { suffix: " ", user: " " }, { suffix: " ", user: " " }],
  ["penalties", { frequency_penalty: "-2", presence_penalty: "0.25" }, { frequency_penalty: -2, presence_penalty: 0.25 }],
  ["echo", { echo: "true" }, { echo: true }],
];

for (const [name, changes, expected] of REQUESTS) {
  test(`a form with ${name}`, () => assert.deepEqual(request(changes), expected));
}

test("token counts are asked for with a stream only", () => {
  const params = toParams(values({ stream: "false" }), "m");
  assert.deepEqual(params, { model: "m", prompt: "Once upon a time", logprobs: 5 });
});

test("errors name the control that they are about", () => {
  const cases = {
    "stop[2]": "stop",
    "logit_bias.7": "logit_bias",
    "stream_options.include_usage": "include_usage",
    prompt: "prompt",
    "prompt[0][1]": "prompt",
    model: undefined,
  };
  for (const [param, field] of Object.entries(cases)) assert.equal(fieldOf(param), field, param);
});

test("the output has a place for each choice of each prompt", () => {
  assert.deepEqual(planOutput({ prompt: "a", best_of: 4 }, 2), { leads: ["a"], n: 2, bestOf: 4 });
  assert.deepEqual(planOutput({ prompt: ["a", "b"] }, 1), { leads: ["a", "b"], n: 1, bestOf: undefined });
  assert.deepEqual(planOutput({ prompt: [1, 2] }, 1), { leads: [undefined], n: 1, bestOf: undefined });
  assert.deepEqual(planOutput({ prompt: "a", echo: true }, Number.NaN), { leads: [undefined], n: 1, bestOf: undefined });
});

const line = fc.string({ unit: "grapheme" }).map((text) => text.replace(/[\r\n]/g, ""));
const anyValues = fc.record(
  Object.fromEntries(
    FIELDS.map(({ name, control, options }) => {
      if (control === "check") return [name, fc.constantFrom("true", "false")];
      if (control === "choice") return [name, fc.constantFrom(...(options ?? []).map(([value]) => value))];
      return [name, control === "lines" ? fc.string({ unit: "grapheme" }) : line];
    }),
  ) as { [K in keyof FormValues]: fc.Arbitrary<string> },
  { noNullPrototype: true },
);

test("a link restores the form and the model", () => {
  fc.assert(
    fc.property(anyValues, fc.constantFrom(undefined, "hf:o/r/f.gguf@main", "https://example.com/a b.gguf?x=1&y=#z"), (form, model) => {
      const shared = { values: form, ...(model === undefined ? {} : { model }) };
      const fresh = encodeShare(shared) === "";
      assert.deepEqual(decodeShare(`#${encodeShare(shared)}`), fresh ? undefined : shared);
    }),
  );
});

const anyName = fc.constantFrom("__proto__", "constructor", "model", "prompt", "stream", "prompt_kind", "n", "other");
const hostile = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.webQueryParameters(),
  fc.array(fc.tuple(anyName, fc.string()), { maxLength: 8 }).map((pairs) => new URLSearchParams(pairs).toString()),
);

test("a hostile link throws nothing and sets nothing but known controls to what they can show", () => {
  fc.assert(
    fc.property(hostile, (fragment) => {
      const shared = decodeShare(fragment);
      if (shared === undefined) return;
      assert.deepEqual(Object.keys(shared.values), FIELDS.map(({ name }) => name));
      assert.equal(Object.getPrototypeOf(shared.values), Object.prototype);
      for (const { name, control, options } of FIELDS) {
        const value: string = shared.values[name];
        assert.equal(typeof value, "string");
        if (control === "check") assert.match(value, /^(?:true|false)$/);
        if (control === "choice") assert.ok(options?.some(([option]) => option === value));
      }
    }),
    { numRuns: 500 },
  );
});

test("a link cannot bring a model from an address that is none", () => {
  for (const model of ["javascript:alert(1)", "data:,x", "file:///etc/passwd", "blob:https://a/b", "hf:only-owner"]) {
    assert.equal(decodeShare(new URLSearchParams({ model, n: "2" }).toString())?.model, undefined, model);
  }
});

/** Runs a snippet's call against a stand-in and gives what it asked for. */
function runSnippet(source: string): unknown {
  const call = /cinder\.complete\((\{[\s\S]*?\n\})\);\n/.exec(source)?.[1];
  assert.ok(call !== undefined, source);
  return new Function(`return (${call});`)() as unknown;
}

test("the code makes the call that the form makes", () => {
  const model = modelAt("hf:o/r/f.gguf", PAGE);
  fc.assert(
    fc.property(anyValues, (form) => {
      const params = toParams(form, model.id);
      assert.deepEqual(runSnippet(toSnippet(params, model)), params);
    }),
  );
});

test("code for the catalogue's address and for a file", () => {
  const params = toParams(values({ stream: "false", seed: "18446744073709551616" }), "f");
  assert.equal(
    toSnippet(params, modelAt("hf:o/r/f.gguf", PAGE)),
    `import { Cinder } from "cinderlm";

const cinder = new Cinder({ models: [{ id: "f", url: "hf:o/r/f.gguf" }] });
const completion = await cinder.complete({
  model: "f",
  prompt: "Once upon a time",
  seed: 18446744073709551616n,
  logprobs: 5,
});
for (const { text } of completion.choices) console.log(text);
`,
  );
  assert.match(toSnippet(params, { id: "f", name: "f", source: { file: new File([], "f.gguf") } }), /models: \[\{ id: "f", file \}\]/);
});
