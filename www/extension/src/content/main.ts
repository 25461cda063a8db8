/**
 * Completion in text fields. It is injected when the user calls the extension in a tab: the first time it sets itself up in each frame, and
 * every time the field that has the focus asks for a suggestion.
 *
 * Only what the user does counts: events that a page makes up are not trusted, and are passed over.
 */
import { isOrphaned } from "../connect.js";
import type { BackgroundMessage, Behaviour } from "../messages.js";
import { focusedField } from "./field.js";
import { Overlay } from "./overlay.js";
import { Session } from "./session.js";

/** How long typing must rest before a suggestion comes by itself, if the user wants that. */
const PAUSE_MILLIS = 700;
const isMac = /mac/i.test(navigator.platform);

class Fields {
  readonly #overlay = new Overlay();
  #session: Session | undefined;
  #trigger: Behaviour["trigger"] = "shortcut";
  #pause: ReturnType<typeof setTimeout> | undefined;
  /** A suggestion that came by itself failed: others wait until the user calls. */
  #isMuted = false;
  /** The user has changed the text since it was last looked at. */
  #wasTyped = false;

  constructor() {
    const options = { capture: true };
    const hear = <K extends keyof WindowEventMap>(type: K, run: (event: WindowEventMap[K]) => void): void =>
      window.addEventListener(type, (event) => void (event.isTrusted && run(event)), options);
    hear("keydown", (event) => this.#key(event));
    hear("beforeinput", () => (this.#wasTyped = true));
    hear("input", () => this.#typed());
    hear("compositionstart", () => this.#session?.close());
    hear("focusout", () => this.#session?.close());
    hear("blur", (event) => void (event.target === window && this.#session?.close()));
    hear("scroll", () => this.#session?.draw());
    hear("resize", () => this.#session?.draw());
    hear("pagehide", () => this.#session?.close());
    document.addEventListener("selectionchange", (event) => void (event.isTrusted && this.#looked()), options);
  }

  /** Asks for a suggestion in the field that has the focus, if there is one. */
  ask(): void {
    this.#isMuted = false;
    this.#begin();
    this.#learn().catch((error: unknown) => console.warn("cinderlm:", error));
  }

  async #learn(): Promise<void> {
    this.#trigger = (await chrome.runtime.sendMessage<BackgroundMessage, Behaviour>({ type: "behaviour" })).trigger;
  }

  #begin(): void {
    clearTimeout(this.#pause);
    this.#session?.close();
    const field = focusedField();
    const text = field?.read();
    if (field === undefined || text === undefined || text.before.trim() === "") return;
    this.#session = new Session(field, this.#overlay, (failed) => {
      this.#session = undefined;
      this.#isMuted ||= failed;
    });
  }

  #key(event: KeyboardEvent): void {
    const session = this.#session;
    if (session === undefined || event.isComposing) return;
    const { ctrlKey, altKey, shiftKey, metaKey, key } = event;
    const mark = [ctrlKey && "Ctrl", altKey && "Alt", shiftKey && "Shift", metaKey && "Meta", key].filter(Boolean).join("+");
    if (mark === "Escape") session.close();
    else if (session.shown === "") return;
    else if (mark === "Tab") session.takeAll();
    else if (mark === (isMac ? "Alt+ArrowRight" : "Ctrl+ArrowRight")) session.takeWord();
    else return;
    // The page would do something of its own.
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  #typed(): void {
    this.#wasTyped = true;
    this.#looked();
    clearTimeout(this.#pause);
    if (this.#trigger === "pause" && this.#session === undefined && !this.#isMuted && !isOrphaned()) {
      this.#pause = setTimeout(() => this.#begin(), PAUSE_MILLIS);
    }
  }

  #looked(): void {
    const wasTyped = this.#wasTyped;
    this.#wasTyped = false;
    this.#session?.changed(wasTyped);
  }
}

// This world is the extension's own: the page cannot see the variable.
declare global {
  var cinderlmFields: Fields | undefined;
}

globalThis.cinderlmFields ??= new Fields();
globalThis.cinderlmFields.ask();
