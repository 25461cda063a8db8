/** Over how long a rate is taken: shorter is nervous, longer is late. */
const WINDOW_MILLIS = 3000;
/** Less than this tells nothing. */
const MIN_MILLIS = 200;

/** How fast something goes of late, and how long the rest takes. */
export class Pace {
  readonly #now: () => number;
  readonly #marks: { at: number; bytes: number }[];

  /** Begins at `bytes`. */
  constructor(bytes = 0, now = () => performance.now()) {
    this.#now = now;
    this.#marks = [{ at: now(), bytes }];
  }

  /** Takes how far it has come. */
  at(bytes: number, total: number | undefined): { rate?: number; secondsLeft?: number } {
    const now = this.#now();
    const marks = this.#marks;
    marks.push({ at: now, bytes });
    // One mark from before the window stays, so that there is always a stretch to measure.
    while (marks.length > 2 && now - (marks[1]?.at ?? now) >= WINDOW_MILLIS) marks.shift();
    const first = marks[0] ?? { at: now, bytes };
    const millis = now - first.at;
    if (millis < MIN_MILLIS || bytes <= first.bytes) return {};
    const rate = (1000 * (bytes - first.bytes)) / millis;
    return total === undefined ? { rate } : { rate, secondsLeft: Math.max(0, total - bytes) / rate };
  }
}
