import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { compareTyped, nextWord } from "../src/suggestion.js";

test("a word is taken with the space before it, marks by themselves", () => {
  const table: [string, string][] = [
    [" beside the grate", " beside"],
    ["slept, it", "slept"],
    [", it glowed", ","],
    [" don't go", " don't"],
    [" straße über", " straße"],
    [" well-known fact", " well-known"],
    ["\n\nThen", "\n\nThen"],
    ["...and", "..."],
    ["  ", "  "],
    ["", ""],
    ["日本語 です", "日本語"],
  ];
  for (const [text, word] of table) assert.equal(nextWord(text), word, JSON.stringify(text));
});

test("taking word after word takes all", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), (text) => {
      let rest = text;
      let taken = "";
      while (rest !== "") {
        const word = nextWord(rest);
        assert.ok(word !== "" && rest.startsWith(word));
        taken += word;
        rest = rest.slice(word.length);
      }
      assert.equal(taken, text);
    }),
  );
});

test("typing agrees while it is what was suggested", () => {
  assert.deepEqual(compareTyped("A", "A be", " beside"), { type: "agrees", length: 3 });
  assert.deepEqual(compareTyped("A", "A beside", " beside"), { type: "agrees", length: 7 });
  assert.deepEqual(compareTyped("A", "A", " beside"), { type: "agrees", length: 0 });
  const differing: [string, string][] = [["A", "A bo"], ["A", ""], ["A", "B beside"], ["A", "A beside the"]];
  for (const [base, now] of differing) assert.deepEqual(compareTyped(base, now, " beside"), { type: "differs" }, now);
});
