import type { Box, Layout } from "./layout.js";
import { OVERLAY_STYLE } from "./overlay.css.js";

const GAP = 6;

/**
 * What is drawn over the page, in a closed shadow tree on an element of its own: the page's content is not touched, and the page cannot read
 * what is suggested. While nothing is shown, nothing of it is in the page.
 */
export class Overlay {
  readonly #host = document.createElement("cinderlm-suggestion");
  readonly #frame = make("div", "frame");
  readonly #text = make("div", "text");
  readonly #lead = make("span", "lead");
  readonly #break = document.createElement("wbr");
  readonly #ghost = make("span", "ghost");
  readonly #key = make("span", "key");
  readonly #card = make("div", "card");
  readonly #cardText = make("span", "body");
  readonly #cardHint = make("span", "hint");
  readonly #status = make("div", "unseen");

  constructor() {
    const shadow = this.#host.attachShadow({ mode: "closed" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(OVERLAY_STYLE);
    shadow.adoptedStyleSheets = [sheet];
    this.#key.textContent = "Tab";
    // Without a place to break, the first letters of the suggestion would draw the word that they end to the next line with them.
    this.#text.append(this.#lead, this.#break, this.#ghost);
    this.#frame.append(this.#text);
    this.#card.append(this.#cardText, this.#cardHint);
    this.#frame.setAttribute("aria-hidden", "true");
    this.#card.setAttribute("aria-hidden", "true");
    this.#status.setAttribute("role", "status");
    shadow.append(this.#frame, this.#card, this.#status);
  }

  /** Draws a suggestion. `isWhole` when nothing will be added to it. */
  suggest(layout: Layout, suggestion: string, isWhole: boolean): void {
    this.#open();
    this.#mirror(layout);
    set(this.#ghost, { color: `color-mix(in srgb, ${layout.ink} 52%, transparent)` });
    this.#ghost.replaceChildren(suggestion);
    const isCard = layout.isCard || !this.#fits(layout);
    if (isWhole && !isCard) {
      this.#ghost.append(this.#key);
      if (!this.#fits(layout)) this.#key.remove();
    }
    this.#card.hidden = !isCard;
    if (isCard) this.#drawCard(layout.caret ?? this.#leadEnd(), suggestion, isWhole ? "Tab takes it, Esc drops it" : "");
    this.#frame.hidden = isCard;
    this.#announce(isWhole ? `Suggestion: ${suggestion}. Tab takes it.` : "");
  }

  /** Shows a sentence beside the caret. */
  notice(layout: Layout, message: string): void {
    this.#open();
    this.#mirror(layout);
    this.#ghost.replaceChildren();
    this.#card.hidden = false;
    this.#drawCard(layout.caret ?? this.#leadEnd(), message, "");
    this.#frame.hidden = true;
    this.#announce(message);
  }

  /** Takes everything out of the page. */
  close(): void {
    this.#host.remove();
    this.#status.textContent = "";
  }

  #open(): void {
    if (this.#host.isConnected) return;
    document.documentElement.append(this.#host);
    // Above everything, modal dialogs of the page included.
    this.#host.popover = "manual";
    this.#host.showPopover();
  }

  /** Lays the field's text out once more, unseen, so that what follows it is where it belongs. */
  #mirror({ box, scale, scroll, style, lead, room }: Layout): void {
    this.#frame.hidden = false;
    set(this.#frame, {
      left: `${box.left}px`,
      top: `${box.top}px`,
      width: `${box.width}px`,
      height: `${Math.max(box.height, (room.bottom - box.top) / scale)}px`,
      transform: `scale(${scale})`,
    });
    this.#text.removeAttribute("style"); // Of another field, perhaps.
    set(this.#text, { ...style, width: `${box.width}px`, transform: `translate(${-scroll.left}px, ${-scroll.top}px)` });
    this.#lead.textContent = lead;
    this.#break.hidden = style["white-space"] === "pre";
  }

  /** Whether the suggestion is where nothing else of the page's is. */
  #fits({ room, hasBelow }: Layout): boolean {
    const { top, right, bottom, height } = this.#ghost.getBoundingClientRect();
    const line = this.#ghost.getClientRects()[0];
    const isOneLine = line === undefined || (height < 2 * line.height && line.top === top);
    return right <= room.right + 1 && bottom <= room.bottom + 1 && (isOneLine || !hasBelow);
  }

  #leadEnd(): Box {
    const rects = this.#lead.getClientRects();
    const last = rects[rects.length - 1] ?? this.#text.getBoundingClientRect();
    return { left: rects.length === 0 ? last.left : last.right, top: last.top, width: 0, height: last.height };
  }

  /** Below the caret, or above it where there is no room. */
  #drawCard(caret: Box, message: string, hint: string): void {
    this.#cardText.textContent = message;
    this.#cardHint.textContent = hint;
    this.#cardHint.hidden = hint === "";
    set(this.#card, { left: "0", top: "0" });
    const { width, height } = this.#card.getBoundingClientRect();
    const below = caret.top + caret.height + GAP;
    const top = below + height <= innerHeight ? below : Math.max(0, caret.top - GAP - height);
    set(this.#card, { left: `${Math.max(GAP, Math.min(caret.left, innerWidth - width - GAP))}px`, top: `${top}px` });
  }

  /** Only when it is new, or screen readers would repeat it. */
  #announce(message: string): void {
    if (this.#status.textContent !== message) this.#status.textContent = message;
  }
}

function make(tag: string, name: string): HTMLElement {
  const element = document.createElement(tag);
  element.className = name;
  return element;
}

/** Sets styles one by one through the object model, which a page's policy does not forbid as it does style attributes. */
function set(element: HTMLElement, styles: Record<string, string>): void {
  for (const [property, value] of Object.entries(styles)) element.style.setProperty(property, value);
}
