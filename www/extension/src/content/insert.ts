/**
 * Writes at the caret of the focused field as typing would. The command fires the events that pages listen to, as trusted ones, and goes
 * into the history of undo; nothing else that a script can call does.
 */
export function insertText(text: string): boolean {
  return document.execCommand("insertText", false, text);
}

/** Tells the page that its field has another value. */
export function fireInput(element: HTMLElement, text: string): void {
  element.dispatchEvent(new InputEvent("input", { bubbles: true, composed: true, inputType: "insertText", data: text }));
}
