// How `./x complete` puts chunks together; no browser needed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { foldChunks, TerminalText } from "./text.mjs";

const part = (index, text, finish_reason = null, logprobs = null) => ({ index, text, logprobs, finish_reason });

test("choices appear one after another however their chunks interleave", () => {
  const cases = [
    [[[part(0, "a")], [part(0, "b", "stop")]], "ab\n"],
    [[[part(0, "a"), part(1, "x")], [part(1, "y", "stop")], [part(0, "b", "stop")]], "ab\n--- choice 1\nxy\n"],
    [[[part(0, "a", "stop")], [part(1, "x")], [part(1, "y", "length")]], "a\n--- choice 1\nxy\n"],
    [[[part(2, "z", "stop"), part(1, "y", "stop"), part(0, "x", "stop")]], "x\n--- choice 1\ny\n--- choice 2\nz\n"],
    [[], "\n"],
  ];
  for (const [chunks, expected] of cases) {
    let written = "";
    const text = new TerminalText((piece) => (written += piece));
    for (const choices of chunks) text.take({ choices });
    text.end();
    assert.equal(written, expected);
  }
});

test("chunks add up to the completion that they are the stream of", () => {
  const head = { id: "cmpl-1", object: "text_completion", created: 7, model: "m", system_fingerprint: "f" };
  const logprobs = (token, top) => ({ tokens: [token], token_logprobs: [-1], top_logprobs: top, text_offset: [0] });
  const chunks = [
    { ...head, choices: [part(0, "a", null, logprobs("a", null)), part(1, "x")], usage: null },
    { ...head, choices: [part(0, "b", "length", logprobs("b", null))], usage: null },
    { ...head, choices: [part(1, "", "stop")], usage: null },
    { ...head, choices: [], usage: { total_tokens: 3 }, cinderlm: { ran_on: "local" } },
  ];
  assert.deepEqual(foldChunks(chunks), {
    ...head,
    choices: [
      part(0, "ab", "length", { tokens: ["a", "b"], token_logprobs: [-1, -1], top_logprobs: null, text_offset: [0, 0] }),
      part(1, "x", "stop"),
    ],
    usage: { total_tokens: 3 },
    cinderlm: { ran_on: "local" },
  });
});
