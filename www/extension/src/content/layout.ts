/** A rectangle in the viewport, in CSS pixels. */
export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** How text behind a caret is drawn: as the browser draws the text before it. */
export interface Layout {
  /** The box that lines are broken in. */
  box: Box;
  /** How much larger than its own pixels the page draws the field. */
  scale: number;
  /** How far the field's text is scrolled. */
  scroll: { left: number; top: number };
  /** Styles of the text, by property. */
  style: Record<string, string>;
  /** The field's text before the caret, which is laid out unseen so that what follows is where it belongs. */
  lead: string;
  /** The caret, where the field tells it; otherwise it is where `lead` ends. */
  caret?: Box;
  /** Text stands behind the caret in its line, or it cannot be told where the line goes: the suggestion is shown on a card. */
  isCard: boolean;
  /** Where text may show, in the viewport; a suggestion that does not fit is shown on a card, rather than over what the page has there. */
  room: { right: number; bottom: number };
  /** Something stands in the lines below: only the caret's own line is free. */
  hasBelow: boolean;
  /** The colour of its text. */
  ink: string;
}

/** The styles that decide where letters stand. */
const TYPOGRAPHY = [
  "direction",
  "font-family",
  "font-feature-settings",
  "font-kerning",
  "font-size",
  "font-stretch",
  "font-style",
  "font-variant",
  "font-variation-settings",
  "font-weight",
  "letter-spacing",
  "line-height",
  "tab-size",
  "text-align",
  "text-indent",
  "text-rendering",
  "text-transform",
  "word-spacing",
];

/** An element's typography, as it is computed. */
export function typographyOf(style: CSSStyleDeclaration): Record<string, string> {
  return Object.fromEntries(TYPOGRAPHY.map((property) => [property, style.getPropertyValue(property)]));
}

/** Pixels of a computed length. */
export function pixels(length: string): number {
  const value = Number.parseFloat(length);
  return Number.isFinite(value) ? value : 0;
}
