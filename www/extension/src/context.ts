/** Characters of text before the caret that the model reads at least, where there are as many. */
const MIN_CHARS = 1200;
/** The start of what it reads moves in steps of about this many characters. */
const STEP_CHARS = 800;

/** What is asked of the model for a text, and how its answer joins the text. */
export interface Context {
  prompt: string;
  /** The text ends with spaces that the prompt leaves out: models write the space before a word themselves. */
  endsWithSpace: boolean;
}

/**
 * The end of the text before the caret, from a paragraph's or a word's start.
 *
 * The start stays where it is while the text grows, and then moves by a whole step. The engine reads only what differs from an earlier
 * prompt, and prompts that begin a character later each time would differ from their first token on.
 */
export function cutContext(before: string): Context {
  const start = startOf(before);
  const prompt = before.slice(start).replace(/[ \t\u00a0]+$/, "");
  return { prompt, endsWithSpace: start + prompt.length < before.length };
}

/** The suggestion without the space that is there already. */
export function joinSuggestion(text: string, { endsWithSpace }: Context): string {
  return endsWithSpace ? text.replace(/^ +/, "") : text;
}

function startOf(before: string): number {
  const nSteps = Math.floor((before.length - MIN_CHARS) / STEP_CHARS);
  if (nSteps <= 0) return 0;
  const earliest = nSteps * STEP_CHARS;
  // Both searches end before the part that has to be read; a text without any space is cut where it may be.
  const window = before.slice(earliest, earliest + STEP_CHARS / 2);
  const paragraph = window.search(/\n+(?=[^\n])/);
  if (paragraph >= 0) return earliest + paragraph + (/\n+/.exec(window.slice(paragraph))?.[0].length ?? 0);
  const space = window.search(/\s(?=\S)/);
  if (space >= 0) return earliest + space + 1;
  // Not between the halves of a surrogate pair.
  return /[\udc00-\udfff]/.test(before.charAt(earliest)) ? earliest + 1 : earliest;
}
