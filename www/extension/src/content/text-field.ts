import type { Around, Field } from "./field.js";
import { fireInput, insertText } from "./insert.js";
import { pixels, typographyOf, type Layout } from "./layout.js";

/** A `<textarea>` or `<input>`. */
export class TextField implements Field {
  readonly stop: string[];

  constructor(readonly element: HTMLTextAreaElement | HTMLInputElement) {
    // A suggestion is a paragraph where there may be several, and otherwise a line.
    this.stop = element instanceof HTMLTextAreaElement ? ["\n\n"] : ["\n"];
  }

  read(): Around | undefined {
    const { value, selectionStart, selectionEnd } = this.element;
    if (selectionStart === null || selectionStart !== selectionEnd) return undefined;
    return { before: value.slice(0, selectionStart), after: value.slice(selectionStart) };
  }

  insert(text: string): void {
    if (insertText(text)) return;
    const { selectionStart, selectionEnd } = this.element;
    this.element.setRangeText(text, selectionStart ?? 0, selectionEnd ?? 0, "end");
    fireInput(this.element, text);
  }

  layout(): Layout | undefined {
    const text = this.read();
    const { element } = this;
    const rect = element.getBoundingClientRect();
    if (text === undefined || element.offsetWidth === 0) return undefined;
    const isInput = element instanceof HTMLInputElement;
    const computed = getComputedStyle(element);
    const scale = rect.width / element.offsetWidth;
    const padding = ["top", "right", "bottom", "left"].map((side) => [`padding-${side}`, computed.getPropertyValue(`padding-${side}`)] as const);
    const style: Record<string, string> = { ...typographyOf(computed), ...Object.fromEntries(padding) };
    if (isInput) {
      // The browser centres the one line of an input.
      const inner = element.clientHeight - pixels(computed.paddingTop) - pixels(computed.paddingBottom);
      Object.assign(style, { "line-height": `${inner}px`, "white-space": "pre" });
    } else {
      Object.assign(style, { "white-space": element.wrap === "off" ? "pre" : "pre-wrap", "overflow-wrap": "break-word" });
    }
    const restOfLine = text.after.split("\n", 1)[0] ?? "";
    // What is centred or on the right moves as it grows: grey text beside it could not stand where the black one does.
    const isMoving = !["start", "left"].includes(computed.textAlign) && !(computed.textAlign === "justify" && !isInput);
    const box = {
      left: rect.left + element.clientLeft * scale,
      top: rect.top + element.clientTop * scale,
      width: element.clientWidth,
      height: element.clientHeight,
    };
    return {
      box,
      scale,
      scroll: { left: element.scrollLeft, top: element.scrollTop },
      style,
      lead: text.before,
      isCard: restOfLine.trim() !== "" || isMoving,
      room: { right: box.left + box.width * scale, bottom: box.top + box.height * scale },
      hasBelow: text.after.trim() !== "",
      ink: computed.color,
    };
  }
}
