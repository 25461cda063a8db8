import { cutContext, joinSuggestion, type Context } from "../context.js";
import { compareTyped, nextWord } from "../suggestion.js";
import { ask } from "./ask.js";
import type { Around, Field } from "./field.js";
import type { Overlay } from "./overlay.js";

/** How long typing must rest before a suggestion is made anew. */
const PAUSE_MILLIS = 350;

/**
 * A suggestion in one field, from the asking to its end. It follows the text: what is typed as it was suggested comes off its front, and after
 * other typing it is asked for anew.
 */
export class Session {
  readonly #field: Field;
  readonly #overlay: Overlay;
  readonly #onClose: (failed: boolean) => void;
  /** The text that the shown part follows. */
  #text: Around = { before: "", after: "" };
  #context: Context = { prompt: "", endsWithSpace: false };
  #received = "";
  #nTaken = 0;
  #isWhole = false;
  #notice: string | undefined;
  /** The notice is the last word: of a failure, or that there is nothing. */
  #isOver = false;
  #hasFailed = false;
  #cancel = (): void => undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #frame: number | undefined;
  readonly #watchers: { disconnect(): void }[] = [];

  constructor(field: Field, overlay: Overlay, onClose: (failed: boolean) => void) {
    this.#field = field;
    this.#overlay = overlay;
    this.#onClose = onClose;
    this.#watch();
    this.#ask();
  }

  get element(): HTMLElement {
    return this.#field.element;
  }

  /** What is offered now. */
  get shown(): string {
    return joinSuggestion(this.#received, this.#context).slice(this.#nTaken);
  }

  /** Takes all that is offered. */
  takeAll(): void {
    const { shown } = this;
    this.close();
    this.#field.insert(shown);
  }

  /** Takes the next word. What the field says then moves the suggestion on, as if the word had been typed. */
  takeWord(): void {
    this.#field.insert(nextWord(this.shown));
  }

  /** The text or the caret may have changed; `wasTyped` when the user did it to the text. */
  changed(wasTyped: boolean): void {
    const now = this.#field.read();
    if (now === undefined) return this.close();
    const isSame = now.before === this.#text.before && now.after === this.#text.after;
    if (isSame) return;
    if (this.#isOver) return this.close();
    const change = now.after === this.#text.after ? compareTyped(this.#text.before, now.before, this.shown) : ({ type: "differs" } as const);
    if (change.type === "agrees") {
      this.#text = now;
      this.#nTaken += change.length;
      if (this.shown === "" && this.#isWhole) this.close();
      else this.draw();
      return;
    }
    const isMoved = now.before + now.after === this.#text.before + this.#text.after;
    if (isMoved || !wasTyped || now.before.trim() === "") return this.close();
    this.#text = now;
    this.#later();
  }

  /** Draws what is to be seen where the caret is now. */
  draw(): void {
    // Many things ask for it at a time.
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = undefined;
      const layout = this.#field.layout();
      if (layout === undefined || !isSeen(this.element)) return this.close();
      if (this.#notice !== undefined) this.#overlay.notice(layout, this.#notice);
      else if (this.shown !== "") this.#overlay.suggest(layout, this.shown, this.#isWhole);
      else this.#overlay.close();
    });
  }

  /** Ends it, and takes what it shows out of the page. */
  close(): void {
    this.#cancel();
    clearTimeout(this.#timer);
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame);
    for (const watcher of this.#watchers.splice(0)) watcher.disconnect();
    this.#overlay.close();
    this.#onClose(this.#hasFailed);
  }

  #later(): void {
    this.#cancel();
    this.#reset();
    this.#overlay.close();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), PAUSE_MILLIS);
  }

  #reset(): void {
    this.#received = "";
    this.#nTaken = 0;
    this.#isWhole = false;
    this.#notice = undefined;
  }

  #ask(): void {
    const text = this.#field.read();
    if (text === undefined) return this.close();
    this.#text = text;
    this.#context = cutContext(text.before);
    this.#cancel = ask(this.#context.prompt, this.#field.stop, {
      loading: (model, share) => this.#say(`Loading ${model}${share === undefined ? "…" : `: ${Math.floor(100 * share)}%`}`),
      text: (piece) => {
        this.#notice = undefined;
        this.#received += piece;
        this.draw();
      },
      end: () => {
        this.#isWhole = true;
        if (this.shown.trim() !== "") return this.draw();
        this.#isOver = true;
        this.#say("Nothing to suggest here.");
      },
      error: ({ message }) => {
        this.#isOver = true;
        this.#hasFailed = true;
        this.#say(message);
      },
    });
  }

  #say(message: string): void {
    this.#notice = message;
    this.draw();
  }

  /** Sees the field resized, and taken out of the page, of which there is no event. */
  #watch(): void {
    const resized = new ResizeObserver(() => this.draw());
    resized.observe(this.element);
    const removed = new MutationObserver(() => {
      if (!this.element.isConnected) this.close();
    });
    for (let root: Node = this.element.getRootNode(); ; root = root.host.getRootNode()) {
      removed.observe(root, { childList: true, subtree: true });
      if (!(root instanceof ShadowRoot)) break;
    }
    this.#watchers.push(resized, removed);
  }
}

/** Whether any part of an element is in the viewport. */
function isSeen(element: Element): boolean {
  const { top, bottom, left, right } = element.getBoundingClientRect();
  return bottom > 0 && right > 0 && top < innerHeight && left < innerWidth;
}
