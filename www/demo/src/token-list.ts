import { make } from "./dom.js";
import { formatProbability, showSpaces } from "./format.js";
import { heatOf, type Cell } from "./tokens.js";

/** Where the alternatives of a token are shown. */
export interface TokenWatcher {
  /** A token is pointed at, focused or tapped. */
  show(anchor: HTMLElement, cell: Cell): void;
  /** No longer; `isSoon` when the pointer may be on its way to what is shown. */
  hide(isSoon: boolean): void;
}

/** The tokens of one choice: coloured, and walked with the arrow keys. One of them at a time is in the tab order. */
export class TokenList {
  readonly element: HTMLElement;
  readonly #watcher: TokenWatcher;
  readonly #spans: HTMLElement[] = [];
  #cells: Cell[] = [];
  #current = 0;

  constructor(label: string, watcher: TokenWatcher) {
    this.#watcher = watcher;
    this.element = make("span", { class: "tokens", attributes: { role: "listbox", "aria-label": label, "aria-orientation": "horizontal" } });
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.element.addEventListener("focusin", ({ target }) => this.#onFocus(target));
    this.element.addEventListener("focusout", ({ target }) => this.#onBlur(target));
    this.element.addEventListener("pointerover", ({ target }) => this.#show(this.#indexOf(target)));
    this.element.addEventListener("pointerleave", () => {
      // What has the focus stays shown.
      if (!this.element.contains(document.activeElement)) watcher.hide(true);
    });
  }

  /** Shows these cells, of which all but the last that was shown are as they were. */
  update(cells: Cell[]): void {
    const nKept = Math.max(0, Math.min(this.#spans.length - 1, cells.length));
    this.#cells = cells;
    for (let i = nKept; i < cells.length; i++) {
      const cell = cells[i];
      if (cell !== undefined) draw(this.#spanAt(i), cell);
    }
    for (const span of this.#spans.splice(cells.length)) span.remove();
  }

  #spanAt(i: number): HTMLElement {
    const found = this.#spans[i];
    if (found !== undefined) return found;
    const attributes = { role: "option", tabindex: i === this.#current ? "0" : "-1", "aria-selected": "false" };
    const span = make("span", { class: "token", attributes });
    this.#spans.push(span);
    this.element.append(span);
    return span;
  }

  #onKey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const next = this.#target(event.key);
    if (next === undefined) return;
    event.preventDefault();
    this.#spans[next]?.focus();
  }

  #target(key: string): number | undefined {
    const last = this.#spans.length - 1;
    switch (key) {
      case "ArrowRight":
        return Math.min(this.#current + 1, last);
      case "ArrowLeft":
        return Math.max(this.#current - 1, 0);
      case "ArrowDown":
        return this.#onNextLine(1);
      case "ArrowUp":
        return this.#onNextLine(-1);
      case "Home":
        return 0;
      case "End":
        return last;
      default:
        return undefined;
    }
  }

  /** The token above or below: of the next line in that direction, the one nearest across. */
  #onNextLine(direction: 1 | -1): number {
    const here = placeOf(this.#spans[this.#current]);
    let found = this.#current;
    if (here === undefined) return found;
    let line: number | undefined;
    let distance = Infinity;
    for (let i = this.#current + direction; i >= 0 && i < this.#spans.length; i += direction) {
      const rect = placeOf(this.#spans[i]);
      if (rect === undefined || Math.abs(rect.top - here.top) < here.height / 2) continue;
      line ??= rect.top;
      if (Math.abs(rect.top - line) >= here.height / 2) break;
      const across = Math.abs(rect.left - here.left);
      if (across < distance) [found, distance] = [i, across];
    }
    return found;
  }

  #onFocus(target: EventTarget | null): void {
    const index = this.#indexOf(target);
    if (index === -1) return;
    this.#spans[this.#current]?.setAttribute("tabindex", "-1");
    this.#current = index;
    const span = this.#spans[index];
    span?.setAttribute("tabindex", "0");
    span?.setAttribute("aria-selected", "true");
    span?.setAttribute("aria-describedby", "alternatives");
    this.#show(index);
  }

  #onBlur(target: EventTarget | null): void {
    const span = this.#spans[this.#indexOf(target)];
    span?.setAttribute("aria-selected", "false");
    span?.removeAttribute("aria-describedby");
    this.#watcher.hide(false);
  }

  #show(index: number): void {
    const span = this.#spans[index];
    const cell = this.#cells[index];
    if (span !== undefined && cell !== undefined) this.#watcher.show(span, cell);
  }

  #indexOf(target: EventTarget | null): number {
    const span = target instanceof Element ? target.closest<HTMLElement>(".token") : null;
    return span === null ? -1 : this.#spans.indexOf(span);
  }
}

/** White space before a word stays uncoloured: it would leave stripes where lines end. */
function draw(span: HTMLElement, { text, probability }: Cell): void {
  const start = text.length - text.trimStart().length;
  const nSpaces = start === text.length ? 0 : start;
  span.replaceChildren(text.slice(0, nSpaces), make("span", { class: "ink", text: text.slice(nSpaces) }));
  const heat = heatOf(probability);
  if (heat === undefined) delete span.dataset["heat"];
  else span.dataset["heat"] = String(heat);
  const likelihood = probability === undefined ? "" : `, ${formatProbability(probability)}`;
  span.setAttribute("aria-label", `${showSpaces(text)}${likelihood}`);
}

/** Where a token's word begins on the screen; its white space may be on the line before. */
export function placeOf(span: HTMLElement | undefined): DOMRect | undefined {
  return (span?.querySelector(".ink") ?? span)?.getClientRects()[0];
}
