/** Chunks that may be on their way to a caller who has not taken them. */
const WINDOW = 32;

/** Holds a stream back while its caller takes nothing. */
export class Credit {
  #left = WINDOW;
  #wake: (() => void) | undefined;

  /** The caller took so many. */
  add(count: number): void {
    this.#left = Math.min(WINDOW, this.#left + count);
    this.#wake?.();
  }

  /** Counts one that was sent, and waits until another may be. */
  async take(signal: AbortSignal): Promise<void> {
    this.#left -= 1;
    while (this.#left <= 0) {
      signal.throwIfAborted();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }
}
