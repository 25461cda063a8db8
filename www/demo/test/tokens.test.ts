// Texts in tokens, and what is said of them.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Logprobs } from "cinderlm";
import { CATALOGUE } from "../src/catalogue.js";
import { formatBytes, formatMillis, formatProbability, showSpaces } from "../src/format.js";
import { addressFault, fileAddress, modelAt, modelIn } from "../src/models.js";
import { ChoiceText, heatOf } from "../src/tokens.js";

function logprobs(tokens: [text: string, offset: number, logprob: number | null][], top: Record<string, number> | null = null): Logprobs {
  return {
    tokens: tokens.map(([text]) => text),
    token_logprobs: tokens.map(([, , logprob]) => logprob),
    text_offset: tokens.map(([, offset]) => offset),
    top_logprobs: tokens.map(() => top),
  };
}

const texts = (choice: ChoiceText): string[] => choice.cells().map(({ text }) => text);

test("a text is cut where its tokens start, whatever the prompt's length", () => {
  const choice = new ChoiceText();
  choice.push(" a cat", logprobs([[" a", 11, -0.1], [" cat", 13, -0.2]]));
  choice.push(" sat", logprobs([[" sat", 17, -0.3]]));
  assert.deepEqual(texts(choice), [" a", " cat", " sat"]);
  assert.equal(choice.nTokens, 3);
});

test("tokens that share a character are one cell, with the probability of all of them", () => {
  const choice = new ChoiceText();
  choice.push("x", logprobs([["x", 0, -1]]));
  choice.push("", logprobs([["bytes:\\xe2\\x80", 1, Math.log(0.5)]]));
  assert.deepEqual(texts(choice), ["x"]);
  choice.push("—y", logprobs([["bytes:\\x94", 1, Math.log(0.5)], ["y", 2, -1]]));
  assert.deepEqual(texts(choice), ["x", "—", "y"]);
  assert.ok(Math.abs((choice.cells()[1]?.probability ?? 0) - 0.25) < 1e-12);
});

test("tokens without text belong to the cell before them", () => {
  const choice = new ChoiceText();
  choice.push("ab", logprobs([["ab", 3, -1], ["", 5, -2]]));
  assert.deepEqual(texts(choice), ["ab"]);
  assert.equal(choice.cells()[0]?.tokens.length, 2);
});

test("a text without probabilities is one cell of no colour", () => {
  const choice = new ChoiceText();
  choice.push("plain", null);
  assert.deepEqual(choice.cells(), [{ text: "plain", tokens: [], probability: undefined }]);
  assert.equal(heatOf(undefined), undefined);
});

test("cells make up the text again, whatever the offsets say", () => {
  const anyOffsets = fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 4 });
  const chunk = fc.record({ text: fc.string({ unit: "grapheme" }), offsets: anyOffsets });
  fc.assert(
    fc.property(fc.array(chunk, { maxLength: 8 }), (chunks) => {
      const choice = new ChoiceText();
      for (const { text, offsets } of chunks) choice.push(text, logprobs(offsets.map((offset) => ["t", offset, -1])));
      assert.equal(texts(choice).join(""), choice.text);
      assert.equal(choice.cells().reduce((sum, { tokens }) => sum + tokens.length, 0), choice.nTokens);
    }),
  );
});

test("alternatives come likeliest first, numbers among them, and the chosen one is marked", () => {
  const choice = new ChoiceText();
  choice.push("b", logprobs([["b", 0, Math.log(0.25)]], { 7: Math.log(0.125), a: Math.log(0.5), b: Math.log(0.25), z: -9999 }));
  const [token] = choice.cells()[0]?.tokens ?? [];
  assert.deepEqual(token?.alternatives.map(({ text }) => text), ["a", "b", "7", "z"]);
  assert.deepEqual(token?.alternatives.map(({ isChosen }) => isChosen), [false, true, false, false]);
  assert.equal(token?.alternatives[3]?.probability, 0);
});

test("the colour scale runs from sure to surprised", () => {
  assert.deepEqual([1, 0.9, 0.89, 0.6, 0.3, 0.1, 0.02, 0.019, 0].map(heatOf), [0, 0, 1, 1, 2, 3, 4, 5, 5]);
});

test("figures for people", () => {
  const sizes = { 0: "0 B", 999: "999 B", 1000: "1.0 kB", 999600: "1.0 MB", 98362432: "98 MB", 1250000000: "1.3 GB" };
  for (const [bytes, text] of Object.entries(sizes)) assert.equal(formatBytes(Number(bytes)), text);
  assert.deepEqual([12.4, 2400, 12_000, 59_900, 185_000].map(formatMillis), ["12 ms", "2.4 s", "12 s", "1 min 0 s", "3 min 5 s"]);
  const shares = { 1: "100 %", 0.99999: "> 99.9 %", 0.623: "62.3 %", 0.0456: "4.6 %", 0.0012: "0.12 %", 0.00001: "< 0.01 %", 0: "0 %" };
  for (const [probability, text] of Object.entries(shares)) assert.equal(formatProbability(Number(probability)), text);
});

test("white space and control characters show", () => {
  assert.equal(showSpaces(" a\n\tb\u0007"), "·a↵⇥b\\u0007");
  assert.equal(showSpaces(""), "(nothing)");
});

const PAGE = "https://example.com/demo/";

test("addresses that can be a model's, and others", () => {
  for (const good of ["hf:o/r/f.gguf", "hf:o/r/a/b.gguf@v1/x", "https://x.org/a.gguf", "../a.gguf"]) assert.equal(addressFault(good, PAGE), undefined, good);
  for (const bad of ["", "hf:o/r", "hf:o/r/", "javascript:1", "ftp://x/y"]) assert.notEqual(addressFault(bad, PAGE), undefined, bad);
});

test("a model is known by its file's name, and by the catalogue's where it is in it", () => {
  assert.deepEqual(modelAt("../m/a.b.gguf?x", PAGE), { id: "a.b", name: "a.b", source: { address: "https://example.com/m/a.b.gguf?x" } });
  for (const { name, address } of CATALOGUE) {
    assert.equal(addressFault(address, PAGE), undefined);
    assert.equal(modelAt(fileAddress(address), PAGE).name, name);
    assert.deepEqual(modelAt(fileAddress(address), PAGE), modelAt(address, PAGE));
  }
  assert.equal(modelIn(new File([], ".gguf")).id, "model");
});

test("a file on the hub has one address, however it is written", () => {
  assert.equal(fileAddress("hf:o/r/a/f.gguf"), "https://huggingface.co/o/r/resolve/main/a/f.gguf");
  assert.equal(fileAddress("hf:o/r/f.gguf@refs/pr/1"), "https://huggingface.co/o/r/resolve/refs%2Fpr%2F1/f.gguf");
  assert.equal(fileAddress("https://x.org/f.gguf"), "https://x.org/f.gguf");
});
