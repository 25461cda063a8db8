/** The next word of a suggestion, with the spaces before it; the marks behind it stay for the next take. */
export function nextWord(text: string): string {
  return /^\s*(?:[\p{L}\p{N}\p{M}_'’-]+|[^\s\p{L}\p{N}\p{M}_]+)?/u.exec(text)?.[0] || text;
}

/** How a text came to be after another one. */
export type Change =
  /** So many characters of the suggestion were typed. */
  | { type: "agrees"; length: number }
  | { type: "differs" };

/** Compares the text before the caret with the one that the suggestion was made for. */
export function compareTyped(base: string, now: string, suggestion: string): Change {
  if (!now.startsWith(base)) return { type: "differs" };
  const typed = now.slice(base.length);
  return suggestion.startsWith(typed) ? { type: "agrees", length: typed.length } : { type: "differs" };
}
