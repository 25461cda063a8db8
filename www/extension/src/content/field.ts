import { EditableField } from "./editable.js";
import type { Layout } from "./layout.js";
import { TextField } from "./text-field.js";

/** The text around the caret. */
export interface Around {
  before: string;
  after: string;
}

/** Where text is written, and how to read it, add to it and draw beside its caret. */
export interface Field {
  readonly element: HTMLElement;
  /** Texts at which a suggestion for this field ends. */
  readonly stop: string[];
  /** The text around the caret; undefined while something is selected, or the caret is elsewhere. */
  read(): Around | undefined;
  /** Writes at the caret as typing would: the page hears of it, and it can be undone. */
  insert(text: string): void;
  /** How to draw text behind the caret; undefined when the caret is nowhere to be seen. */
  layout(): Layout | undefined;
}

/** Types of `<input>` that hold plain text and tell where the caret is. */
const INPUT_TYPES = new Set(["text", "search", "url", "tel"]);
/** What `autocomplete` says of fields whose text is nobody's business. */
const PRIVATE = /(?:^|\s)(?:cc-[a-z-]+|one-time-code|current-password|new-password)(?:\s|$)/i;

/** The field that has the focus, in this frame and the open shadow trees in it, if suggestions may be made there. */
export function focusedField(): Field | undefined {
  if (!document.hasFocus()) return undefined;
  let element = document.activeElement;
  while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
  if (element instanceof HTMLTextAreaElement || element instanceof HTMLInputElement) return isOpen(element) ? new TextField(element) : undefined;
  if (element instanceof HTMLElement && element.isContentEditable && !isPrivate(element)) return new EditableField(element);
  return undefined;
}

function isOpen(element: HTMLTextAreaElement | HTMLInputElement): boolean {
  if (element.readOnly || element.disabled || isPrivate(element)) return false;
  return element instanceof HTMLTextAreaElement || INPUT_TYPES.has(element.type);
}

function isPrivate(element: HTMLElement): boolean {
  // Some pages make password fields out of plain ones with a style that draws dots.
  const masked = getComputedStyle(element).getPropertyValue("-webkit-text-security");
  return PRIVATE.test(element.getAttribute("autocomplete") ?? "") || (masked !== "" && masked !== "none");
}
