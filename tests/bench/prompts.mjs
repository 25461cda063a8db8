// Prompts of exact numbers of tokens, the same for every contender.
import { readFileSync } from "node:fs";

const golden = (name) => JSON.parse(readFileSync(new URL(`../golden/smollm2-135m-instruct-q4_1/${name}.json`, import.meta.url), "utf8"));
const PROSE = golden("scored_prose").text;
/** Of the recorded texts the one whose first tokens are the most certain, so that rounding alone hardly changes them. */
const CERTAIN = golden("greedy").cases.find(({ name }) => name === "chat_gravity");

/** Where the prose may begin after a prompt's first word, so that there is one whose tokens end where they should. */
const STARTS = [...PROSE.matchAll(/ (?=[a-z])/g)].map(({ index }) => index);

/** The prompt whose continuation is shown. */
export const SHOWN = { text: CERTAIN.prompt, promptTokens: CERTAIN.prompt_ids.length };

/** What it was recorded to be continued with: by 32-bit floats, and by llama.cpp, which rounds activations to 8 bits. */
export const RECORDED = { float32: CERTAIN.fp32_ids, "llama.cpp": CERTAIN.llamacpp_ids };

/**
 * The prompts by name, each `{ text, promptTokens }`. Each begins with another word, so that nothing that is kept of one helps the next; only
 * `p528` goes on where `p512` ends.
 *
 * `tokenize` and `detokenize` are cinderlm's. Of a text that is cut between two tokens it is not certain that it has the tokens before the cut:
 * other beginnings are tried until it has. Each contender's own count is compared while it runs.
 */
export async function makePrompts({ tokenize, detokenize }) {
  const exact = async (promptTokens, head) => {
    for (const start of STARTS) {
      const ids = await tokenize(head + PROSE.slice(start) + ` ${PROSE}`.repeat(Math.ceil(promptTokens / 200)));
      const text = await detokenize(ids.slice(0, promptTokens));
      if (text.startsWith(head) && (await tokenize(text)).length === promptTokens) return { text, promptTokens };
    }
    throw new Error(`no prompt of ${promptTokens} tokens was found`);
  };
  const p512 = await exact(512, "Three");
  return {
    p16: await exact(16, "One"),
    p128: await exact(128, "Two"),
    p512,
    p528: await exact(528, p512.text),
    p16b: await exact(16, "Four"),
    p2048: await exact(2048, "Five"),
  };
}
