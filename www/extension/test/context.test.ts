import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { cutContext, joinSuggestion } from "../src/context.js";

const MAX_CHARS = 2000;

test("a short text is read whole, without the spaces at its end", () => {
  const table: [string, string, boolean][] = [
    ["The capital of", "The capital of", false],
    ["The capital of ", "The capital of", true],
    ["The capital of \u00a0", "The capital of", true],
    ["A list:\n", "A list:\n", false],
    ["", "", false],
  ];
  for (const [before, prompt, endsWithSpace] of table) assert.deepEqual(cutContext(before), { prompt, endsWithSpace });
});

test("a space that is there is not suggested again", () => {
  assert.equal(joinSuggestion(" Paris.", cutContext("The capital is ")), "Paris.");
  assert.equal(joinSuggestion(" Paris.", cutContext("The capital is")), " Paris.");
  assert.equal(joinSuggestion("", cutContext("The capital is ")), "");
});

test("a long text is cut at a paragraph, else at a word", () => {
  const words = "word ".repeat(600);
  assert.match(cutContext(words).prompt, /^word word/);
  const first = "first paragraph ".repeat(60).trim(); // 959 characters: its end lies in the part that is searched.
  const text = `${first}\n\n${"second one ".repeat(110)}`;
  assert.match(cutContext(text).prompt, /^second one second/);
});

test("what is read is the end of the text, bounded, and no half of a character", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom("a ", "bcd", "\n\n", "😀", "\n", "é"), { maxLength: 2500 }), (pieces) => {
      const text = pieces.join("");
      const { prompt } = cutContext(text);
      assert.ok(text.replace(/[ \t\u00a0]+$/, "").endsWith(prompt));
      assert.ok(prompt.length <= MAX_CHARS);
      assert.ok(!/^[\udc00-\udfff]/.test(prompt));
    }),
  );
});

test("the start stays where it is while the text grows, but for whole steps", () => {
  const text = Array.from({ length: 900 }, (_, index) => `word${index}`).join(" ");
  const starts = new Set<number>();
  for (let length = 1; length <= text.length; length += 1) {
    const before = text.slice(0, length);
    starts.add(before.trimEnd().length - cutContext(before).prompt.length);
  }
  assert.ok(starts.size <= Math.ceil(text.length / 800), `${starts.size} starts`);
});
