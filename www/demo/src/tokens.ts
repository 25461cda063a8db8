import type { Logprobs } from "cinderlm";

/** A token that could have stood in a place, and how likely the model took it to be. */
export interface Alternative {
  text: string;
  probability: number;
  isChosen: boolean;
}

/** A token of the output. */
export interface OutputToken {
  text: string;
  /** Undefined for the first token of a prompt, which nothing predicts. */
  probability: number | undefined;
  /** The likeliest first, the chosen one among them; empty where none were asked for. */
  alternatives: Alternative[];
}

/** A stretch of text that is shown as one: a token, or several where a character is spread over them. */
export interface Cell {
  text: string;
  tokens: OutputToken[];
  /** Of all tokens of the cell together. */
  probability: number | undefined;
}

/** The text of one choice as it grows, cut into its tokens. */
export class ChoiceText {
  text = "";
  readonly #tokens: OutputToken[] = [];
  readonly #offsets: number[] = [];

  /** Adds what a chunk brought. */
  push(text: string, logprobs: Logprobs | null): void {
    this.text += text;
    logprobs?.tokens.forEach((token, i) => {
      this.#tokens.push(toToken(token, logprobs.token_logprobs[i] ?? null, logprobs.top_logprobs?.[i] ?? null));
      this.#offsets.push(logprobs.text_offset[i] ?? 0);
    });
  }

  /** Tokens so far. */
  get nTokens(): number {
    return this.#tokens.length;
  }

  /**
   * The text in cells. Offsets count from the prompt's start, which is in the text with `echo` only, so the first one tells where the text
   * begins. Tokens that start at one place share a character, or have no text; those at the end belong to the last cell.
   */
  cells(): Cell[] {
    const base = this.#offsets[0] ?? 0;
    const groups: { start: number; tokens: OutputToken[] }[] = this.#tokens.length === 0 && this.text !== "" ? [{ start: 0, tokens: [] }] : [];
    this.#tokens.forEach((token, i) => {
      const last = groups.at(-1);
      const start = Math.max((this.#offsets[i] ?? base) - base, last?.start ?? 0);
      if (last !== undefined && (start === last.start || start >= this.text.length)) last.tokens.push(token);
      else groups.push({ start, tokens: [token] });
    });
    return groups.map(({ start, tokens }, i) => toCell(this.text.slice(start, groups[i + 1]?.start), tokens));
  }
}

function toCell(text: string, tokens: OutputToken[]): Cell {
  const known = tokens.map(({ probability }) => probability).filter((probability) => probability !== undefined);
  return { text, tokens, probability: known.length === 0 ? undefined : known.reduce((product, probability) => product * probability, 1) };
}

function toToken(text: string, logprob: number | null, top: Record<string, number> | null): OutputToken {
  // An object lists keys that look like numbers first, whatever the order they came in.
  const alternatives = Object.entries(top ?? {})
    .map(([other, value]) => ({ text: other, probability: Math.exp(value), isChosen: other === text }))
    .sort((a, b) => b.probability - a.probability);
  return { text, probability: logprob === null ? undefined : Math.exp(logprob), alternatives };
}

/** The lower bounds of the steps of the colour scale, the likeliest first. */
export const HEAT_BOUNDS = [0.9, 0.6, 0.3, 0.1, 0.02] as const;

/** How hot a token glows: 0 where the model was sure, up to 5 where it was surprised. Undefined where nothing is known. */
export function heatOf(probability: number | undefined): number | undefined {
  if (probability === undefined) return undefined;
  const step = HEAT_BOUNDS.findIndex((bound) => probability >= bound);
  return step === -1 ? HEAT_BOUNDS.length : step;
}
