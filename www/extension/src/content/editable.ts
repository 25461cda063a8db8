import type { Around, Field } from "./field.js";
import { insertText } from "./insert.js";
import { pixels, typographyOf, type Box, type Layout } from "./layout.js";

/** An element whose content is edited in place: a page's rich editor. */
export class EditableField implements Field {
  /** Line breaks are the editor's to make: it may want paragraphs, items of a list, or nothing of the kind. */
  readonly stop = ["\n"];

  constructor(readonly element: HTMLElement) {}

  read(): Around | undefined {
    const caret = this.#caret();
    if (caret === undefined) return undefined;
    const { startContainer, startOffset } = caret;
    const before = document.createRange();
    before.setStart(this.element, 0);
    before.setEnd(startContainer, startOffset);
    const after = document.createRange();
    after.setStart(startContainer, startOffset);
    after.setEnd(this.element, this.element.childNodes.length);
    return { before: textOf(before), after: textOf(after) };
  }

  insert(text: string): void {
    // An editor that refuses has its reasons: changing its content behind its back would break it.
    insertText(text);
  }

  layout(): Layout | undefined {
    const caret = this.#caret();
    const text = this.read();
    if (caret === undefined || text === undefined) return undefined;
    const inner = caret.startContainer instanceof Element ? caret.startContainer : caret.startContainer.parentElement;
    if (inner === null) return undefined;
    const block = blockOf(inner, this.element);
    const at = caretBox(caret, inner);
    const computed = getComputedStyle(inner);
    const edges = getComputedStyle(block);
    const rect = block.getBoundingClientRect();
    const left = rect.left + pixels(edges.borderLeftWidth) + pixels(edges.paddingLeft);
    const right = rect.right - pixels(edges.borderRightWidth) - pixels(edges.paddingRight);
    // Lines are higher than their letters, and the caret is as high as these.
    const lineHeight = pixels(computed.lineHeight);
    const top = lineHeight === 0 ? at.top : at.top - Math.floor((lineHeight - at.height) / 2);
    const restOfLine = text.after.split("\n", 1)[0] ?? "";
    const isMoving = edges.direction !== "ltr" || !["start", "left", "justify"].includes(edges.textAlign);
    return {
      box: { left, top, width: right - left, height: Math.max(at.height, lineHeight) },
      scale: 1,
      scroll: { left: 0, top: 0 },
      style: { ...typographyOf(computed), "text-indent": `${at.left - left}px`, "white-space": "pre-wrap", "overflow-wrap": "break-word" },
      lead: "",
      caret: at,
      isCard: restOfLine.trim() !== "" || isMoving,
      room: { right: rect.right, bottom: this.element.getBoundingClientRect().bottom },
      hasBelow: text.after.trim() !== "",
      ink: computed.color,
    };
  }

  /** The caret, if it is in this element and nothing is selected. */
  #caret(): Range | undefined {
    const root = this.element.getRootNode();
    // Chromium tells of selections in a shadow tree on its root only.
    const own = (root as { getSelection?: () => Selection | null }).getSelection;
    const selection = own === undefined ? document.getSelection() : own.call(root);
    if (selection === null || selection.rangeCount === 0 || !selection.isCollapsed) return undefined;
    const range = selection.getRangeAt(0);
    return this.element.contains(range.startContainer) ? range : undefined;
  }
}

/** The text of a range as it is read: a line for each block, and spaces as they are shown. */
function textOf(range: Range): string {
  let text = "";
  let lastBlock: Element | undefined;
  const walker = document.createTreeWalker(range.commonAncestorContainer, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
  for (let node: Node | null = walker.currentNode; node !== null; node = walker.nextNode()) {
    if (!range.intersectsNode(node)) continue;
    const parent = node.parentElement;
    if (node instanceof HTMLBRElement) {
      if (isWithin(range, node)) text += "\n";
      continue;
    }
    if (!(node instanceof Text) || parent === null) continue;
    const block = blockOf(parent, undefined);
    if (lastBlock !== undefined && block !== lastBlock && !text.endsWith("\n")) text += "\n";
    lastBlock = block;
    text += shownText(node, range, parent);
  }
  // A caret in an empty block behind others begins a line.
  const end = range.endContainer instanceof Element ? range.endContainer : range.endContainer.parentElement;
  const isNewLine = end !== null && lastBlock !== undefined && lastBlock !== blockOf(end, undefined) && !text.endsWith("\n");
  return isNewLine && !(end.contains(lastBlock ?? null)) ? `${text}\n` : text;
}

function isWithin(range: Range, node: Node): boolean {
  const { parentNode } = node;
  if (parentNode === null) return false;
  const index = Array.prototype.indexOf.call(parentNode.childNodes, node);
  return range.comparePoint(parentNode, index) === 0 && range.comparePoint(parentNode, index + 1) === 0;
}

function shownText(node: Text, range: Range, parent: Element): string {
  const start = node === range.startContainer ? range.startOffset : 0;
  const end = node === range.endContainer ? range.endOffset : node.length;
  const part = node.data.slice(start, end);
  const isKept = getComputedStyle(parent).whiteSpace.startsWith("pre") || getComputedStyle(parent).whiteSpace === "break-spaces";
  return (isKept ? part : part.replace(/[ \t\n\r]+/g, " ")).replaceAll("\u00a0", " ");
}

/** The nearest block around an element, at most `limit`. */
function blockOf(element: Element, limit: Element | undefined): Element {
  let each = element;
  while (each !== limit && each.parentElement !== null && getComputedStyle(each).display.startsWith("inline")) each = each.parentElement;
  return each;
}

/** Where the caret is. In an empty block it has no rectangle of its own; then it is where the block's text begins. */
function caretBox(caret: Range, inner: Element): Box {
  const rect = caret.getClientRects()[0];
  if (rect !== undefined && rect.height > 0) return rect;
  const child = inner.childNodes[caret.startOffset];
  const around = child instanceof Element ? child.getBoundingClientRect() : undefined;
  if (around !== undefined && around.height > 0) return { left: around.left, top: around.top, width: 0, height: around.height };
  const style = getComputedStyle(inner);
  const box = inner.getBoundingClientRect();
  const height = pixels(style.lineHeight) || pixels(style.fontSize) * 1.2;
  return {
    left: box.left + pixels(style.borderLeftWidth) + pixels(style.paddingLeft),
    top: box.top + pixels(style.borderTopWidth) + pixels(style.paddingTop),
    width: 0,
    height,
  };
}
