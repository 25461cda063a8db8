// Chunks of a streamed completion, put in order for a terminal or folded into one completion.

/** Writes choices one after another, each as it comes: a choice waits until those before it have ended. */
export class TerminalText {
  #write;
  #current = 0;
  #waiting = new Map();
  #ended = new Set();

  /** `write` takes the next piece of text. */
  constructor(write) {
    this.#write = write;
  }

  /** Takes a chunk, or a whole completion. */
  take({ choices }) {
    for (const { index, text, finish_reason } of choices) {
      if (index === this.#current) this.#write(text);
      else this.#waiting.set(index, (this.#waiting.get(index) ?? "") + text);
      if (finish_reason !== null) this.#ended.add(index);
      this.#advance();
    }
  }

  /** Writes what still waits. */
  end() {
    for (const [index, text] of [...this.#waiting].sort(([a], [b]) => a - b)) this.#write(`\n--- choice ${index}\n${text}`);
    this.#waiting.clear();
    this.#write("\n");
  }

  #advance() {
    while (this.#ended.has(this.#current) && this.#waiting.has(this.#current + 1)) {
      this.#current += 1;
      this.#write(`\n--- choice ${this.#current}\n${this.#waiting.get(this.#current)}`);
      this.#waiting.delete(this.#current);
    }
  }
}

/** The completion that the chunks of a stream add up to. */
export function foldChunks(chunks) {
  const choices = [];
  let rest = {};
  for (const { choices: parts, usage, ...fields } of chunks) {
    rest = { ...rest, ...fields, ...(usage == null ? {} : { usage }) };
    for (const part of parts) choices[part.index] = foldChoice(choices[part.index], part);
  }
  const { id, object, created, model, system_fingerprint, usage, ...others } = rest;
  return { id, object, created, model, system_fingerprint, choices, usage, ...others };
}

function foldChoice(choice, part) {
  if (choice === undefined) return part;
  const { index, text, logprobs, finish_reason } = choice;
  return { index, text: text + part.text, logprobs: foldLogprobs(logprobs, part.logprobs), finish_reason: part.finish_reason ?? finish_reason };
}

function foldLogprobs(left, right) {
  if (left === null || right === null) return left ?? right;
  const joined = Object.keys(left).map((key) => [key, left[key] === null ? right[key] : [...left[key], ...(right[key] ?? [])]]);
  return Object.fromEntries(joined);
}
