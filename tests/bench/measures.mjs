// What is measured, and the calls that it is read from.

/**
 * One column of the table.
 *
 * @typedef {object} Measure
 * @property {string} id
 * @property {string} title With its unit.
 * @property {"more" | "less"} better
 * @property {number} digits After the point, in the table.
 */

/** @type {Measure[]} */
export const MEASURES = [
  { id: "load", title: "load, s", better: "less", digits: 2 },
  { id: "first", title: "first token, ms", better: "less", digits: 0 },
  { id: "prefill128", title: "prefill 128, tok/s", better: "more", digits: 1 },
  { id: "prefill512", title: "prefill 512, tok/s", better: "more", digits: 1 },
  { id: "decode16", title: "decode at 16, tok/s", better: "more", digits: 2 },
  { id: "decode512", title: "decode at 512, tok/s", better: "more", digits: 2 },
  { id: "decode2048", title: "decode at 2048, tok/s", better: "more", digits: 2 },
  { id: "batch8", title: "8 at once, tok/s", better: "more", digits: 2 },
  { id: "prefix", title: "first token, 512 of 528 known, ms", better: "less", digits: 0 },
  { id: "prefixRatio", title: "that to the first call's", better: "less", digits: 3 },
  { id: "peak", title: "peak memory, MB", better: "less", digits: 0 },
  { id: "overEmpty", title: "over an empty page, MB", better: "less", digits: 0 },
  { id: "runtime", title: "JS and wasm, gzip, MB", better: "less", digits: 2 },
];

/** Tokens of the longest prompt and its continuation, rounded up to what peers want a context to be a multiple of. */
export const CONTEXT_LENGTH = 2304;
/** A context as pages have it for short texts, in which memory is measured; the default of the peer that has one. */
export const SHORT_CONTEXT_LENGTH = 1024;

/** Tokens that a decode speed is taken from. */
export const N_DECODE = 32;
/** The same with `--quick`. */
export const N_DECODE_QUICK = 3;
/** Tokens of the text that the table shows. */
export const N_SHOWN = 24;

/** Tokens per second, of the tokens after the first. */
const rate = ({ tokens, n = 1, firstMillis, lastMillis }) => ((tokens - n) / (lastMillis - firstMillis)) * 1000;
/** Prompt tokens per second until the first token is there. */
const prefill = ({ promptTokens, firstMillis }) => (promptTokens / firstMillis) * 1000;

/**
 * One call of a turn, and what is read from it. They run in this order, in one page, after a warm-up.
 *
 * @typedef {object} Call
 * @property {string} id
 * @property {string} prompt Its name in `prompts.mjs`.
 * @property {string[]} decodes The measures for which it goes on after the first token.
 * @property {number} [n] Choices at once.
 * @property {(result: object, results: Record<string, object>) => Record<string, number>} gives Measures from its own result and those before it.
 */

/** @type {Call[]} */
export const CALLS = [
  { id: "short", prompt: "p16", decodes: ["decode16"], gives: (result) => ({ first: result.firstMillis, decode16: rate(result) }) },
  { id: "middle", prompt: "p128", decodes: [], gives: (result) => ({ prefill128: prefill(result) }) },
  { id: "long", prompt: "p512", decodes: ["decode512"], gives: (result) => ({ prefill512: prefill(result), decode512: rate(result) }) },
  {
    id: "again",
    prompt: "p528",
    decodes: [],
    gives: ({ firstMillis }, { long }) => ({ prefix: firstMillis, prefixRatio: firstMillis / long.firstMillis }),
  },
  { id: "batch", prompt: "p16b", decodes: ["batch8"], n: 8, gives: (result) => ({ batch8: rate(result) }) },
  { id: "longest", prompt: "p2048", decodes: ["decode2048"], gives: (result) => ({ decode2048: rate(result) }) },
];

/** Which measures each call can give, and which calls must have run before. */
const GIVES = {
  short: ["first", "decode16"],
  middle: ["prefill128"],
  long: ["prefill512", "decode512"],
  again: ["prefix", "prefixRatio"],
  batch: ["batch8"],
  longest: ["decode2048"],
};

/** The calls that the wanted measures are read from. */
export function callsFor(wanted) {
  const has = (call) => GIVES[call].some((measure) => wanted.has(measure));
  return CALLS.filter(({ id }) => has(id) || (id === "long" && has("again")));
}

/** How many tokens a call asks for. */
export function tokensOf(call, wanted, nDecode) {
  return call.decodes.some((measure) => wanted.has(measure)) ? nDecode + 1 : 1;
}
