import type { CompletionChunkChoice, FinishReason } from "cinderlm";
import { button, byId, make } from "./dom.js";
import { TokenList, type TokenWatcher } from "./token-list.js";
import { ChoiceText, HEAT_BOUNDS } from "./tokens.js";

/** Of a prompt that is longer, only the end is shown before the text. */
const MAX_LEAD_CHARS = 400;
const REASONS: Record<FinishReason, string> = { stop: "ended by itself or at a stop", length: "reached max tokens" };

/** What an output is for. */
export interface OutputPlan {
  /** What stands before each text, for each prompt; undefined where it is not to be shown. */
  leads: (string | undefined)[];
  /** Choices per prompt. */
  n: number;
  /** How many were generated for these, where it is more. */
  bestOf: number | undefined;
}

interface Choice {
  text: ChoiceText;
  list: TokenList;
  reason: HTMLElement;
}

/** The texts of a completion, side by side. */
export class OutputView {
  readonly #root = byId("choices", HTMLElement);
  readonly #note = byId("choices-note", HTMLElement);
  readonly #watcher: TokenWatcher;
  readonly #onCopy: (text: string) => void;
  #choices: Choice[] = [];

  constructor(watcher: TokenWatcher, onCopy: (text: string) => void) {
    this.#watcher = watcher;
    this.#onCopy = onCopy;
    byId("legend", HTMLElement).append(...legend());
  }

  /** Tokens so far, over all choices. */
  get nTokens(): number {
    return this.#choices.reduce((sum, { text }) => sum + text.nTokens, 0);
  }

  /** Takes away what has remained without text. */
  clear(): void {
    this.#choices = [];
    this.#root.replaceChildren();
    this.#note.hidden = true;
  }

  /** Makes room for a new completion. */
  begin({ leads, n, bestOf }: OutputPlan): void {
    this.#watcher.hide(false);
    const places = leads.flatMap((lead, prompt) => Array.from({ length: n }, (_, i) => ({ lead, title: titleOf(leads.length, n, prompt, i) })));
    const made = places.map(({ lead, title }) => this.#make(title, lead));
    this.#choices = made.map(({ choice }) => choice);
    this.#root.replaceChildren(...made.map(({ element }) => element));
    this.#note.hidden = bestOf === undefined;
    const kept = n === 1 ? "likeliest is" : `${n} likeliest are`;
    this.#note.textContent = bestOf === undefined ? "" : `Of ${bestOf} texts for each prompt, the ${kept} kept.`;
  }

  /** Adds what a chunk brought, or the whole of a completion. */
  push(choices: readonly CompletionChunkChoice[]): void {
    for (const { index, text, logprobs, finish_reason } of choices) {
      const choice = this.#choices[index];
      if (choice === undefined) continue;
      choice.text.push(text, logprobs);
      choice.list.update(choice.text.cells());
      if (finish_reason !== null) choice.reason.textContent = REASONS[finish_reason];
    }
  }

  #make(title: string, lead: string | undefined): { choice: Choice; element: HTMLElement } {
    const text = new ChoiceText();
    const list = new TokenList(`Tokens of ${title.toLowerCase()}`, this.#watcher);
    const reason = make("span", { class: "small reason" });
    const copy = button("Copy", () => this.#onCopy(text.text), "quiet");
    copy.setAttribute("aria-label", `Copy ${title.toLowerCase()}`);
    const head = make("div", { class: "choice-head" }, make("h3", { text: title }), reason, copy);
    const body = make("p", { class: "text" }, list.element);
    const isLong = lead !== undefined && lead.length > MAX_LEAD_CHARS;
    if (lead !== undefined) body.prepend(make("span", { class: "lead", text: isLong ? `…${lead.slice(-MAX_LEAD_CHARS)}` : lead }));
    return { choice: { text, list, reason }, element: make("article", { class: "choice" }, head, body) };
  }
}

function titleOf(nPrompts: number, n: number, prompt: number, i: number): string {
  if (nPrompts === 1) return n === 1 ? "Completion" : `Choice ${i + 1}`;
  return n === 1 ? `Prompt ${prompt + 1}` : `Prompt ${prompt + 1}, choice ${i + 1}`;
}

/** The colour scale in words. */
function legend(): HTMLElement[] {
  const percents = HEAT_BOUNDS.map((bound) => `${100 * bound} %`);
  const labels = [`${percents[0]} and more`, ...percents.slice(1), `less than ${percents.at(-1)}`];
  const steps = labels.map((label, heat) => make("span", { class: "token ink", text: label, attributes: { "data-heat": String(heat) } }));
  return [make("span", { text: "Probability of each token:" }), ...steps];
}
