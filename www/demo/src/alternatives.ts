import { make } from "./dom.js";
import { formatProbability, showSpaces } from "./format.js";
import { placeOf, type TokenWatcher } from "./token-list.js";
import type { Alternative, Cell, OutputToken } from "./tokens.js";

/** How long the pointer may take from a token to what is shown of it. */
const GRACE_MILLIS = 250;
const MARGIN_PIXELS = 8;

/** What else could have stood in a token's place, shown beside it. */
export class AlternativesPopover implements TokenWatcher {
  readonly #element: HTMLElement;
  #hiding: ReturnType<typeof setTimeout> | undefined;
  #anchor: HTMLElement | undefined;

  constructor(element: HTMLElement) {
    this.#element = element;
    element.addEventListener("pointerenter", () => clearTimeout(this.#hiding));
    element.addEventListener("pointerleave", () => this.hide(true));
    // Its place is the token's place on the screen.
    window.addEventListener("scroll", () => this.#place(), { capture: true, passive: true });
    window.addEventListener("resize", () => this.#place());
  }

  show(anchor: HTMLElement, cell: Cell): void {
    clearTimeout(this.#hiding);
    this.#anchor?.classList.remove("shown");
    this.#anchor = anchor;
    anchor.classList.add("shown");
    this.#element.replaceChildren(...cell.tokens.map(describe));
    if (cell.tokens.length === 0) this.#element.append(make("p", { text: "Nothing is known of this text's tokens." }));
    this.#element.hidden = false;
    this.#place();
  }

  hide(isSoon: boolean): void {
    clearTimeout(this.#hiding);
    if (isSoon) {
      this.#hiding = setTimeout(() => this.hide(false), GRACE_MILLIS);
      return;
    }
    this.#element.hidden = true;
    this.#anchor?.classList.remove("shown");
    this.#anchor = undefined;
  }

  /** Below the token's word, or above it where there is no room. */
  #place(): void {
    const token = placeOf(this.#anchor);
    if (token === undefined) return;
    const { offsetWidth, offsetHeight, style } = this.#element;
    const left = Math.max(MARGIN_PIXELS, Math.min(token.left, document.documentElement.clientWidth - offsetWidth - MARGIN_PIXELS));
    const hasRoom = token.bottom + MARGIN_PIXELS + offsetHeight <= innerHeight;
    style.left = `${left}px`;
    style.top = `${hasRoom ? token.bottom + MARGIN_PIXELS / 2 : Math.max(MARGIN_PIXELS, token.top - offsetHeight - MARGIN_PIXELS / 2)}px`;
  }
}

function describe({ text, probability, alternatives }: OutputToken): HTMLElement {
  const title = make("p", { class: "alternatives-title" }, make("bdi", { text: showSpaces(text) }));
  if (probability === undefined) return make("div", {}, title, make("p", { text: "The prompt's first token: nothing predicts it." }));
  if (alternatives.length === 0) {
    title.append(` ${formatProbability(probability)}`);
    return make("div", {}, title, make("p", { text: "No alternatives were asked for." }));
  }
  const rest = 1 - alternatives.reduce((sum, other) => sum + other.probability, 0);
  const list = make("ol", {}, ...alternatives.map(listed));
  const others = make("p", { class: "small", text: `All other tokens: ${formatProbability(Math.max(0, rest))}` });
  return make("div", {}, make("p", { class: "small", text: "What could have stood here" }), list, others);
}

function listed({ text, probability, isChosen }: Alternative): HTMLElement {
  const bar = make("span", { class: "bar", attributes: { "aria-hidden": "true" } });
  bar.style.inlineSize = `${(100 * probability).toFixed(2)}%`;
  const name = make("span", { class: "alternative-text" }, make("bdi", { text: showSpaces(text) }), isChosen ? " (chosen)" : "");
  const share = make("span", { class: "alternative-share", text: formatProbability(probability) });
  return make("li", isChosen ? { class: "chosen" } : {}, name, share, make("span", { class: "track" }, bar));
}
