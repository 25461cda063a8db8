const MINUTE_MILLIS = 60_000;

/** Tells when nothing has run for a while. */
export class Idle {
  readonly #minutes: () => Promise<number>;
  readonly #onIdle: () => Promise<void>;
  #nRunning = 0;
  /** Counts touches: a timer that was set before the last one means nothing. */
  #nTouches = 0;

  /** `minutes` is asked each time, so that a changed setting holds at once. */
  constructor(minutes: () => Promise<number>, onIdle: () => Promise<void>) {
    this.#minutes = minutes;
    this.#onIdle = onIdle;
  }

  /** Work began. */
  begin(): void {
    this.#nRunning += 1;
    this.#nTouches += 1;
  }

  /** Work ended. */
  end(): void {
    this.#nRunning -= 1;
    this.touch();
  }

  /** Begins to wait anew. */
  touch(): void {
    const touch = ++this.#nTouches;
    if (this.#nRunning > 0) return;
    this.#wait(touch).catch((error: unknown) => console.error("cinderlm: the engine could not be ended", error));
  }

  async #wait(touch: number): Promise<void> {
    const millis = (await this.#minutes()) * MINUTE_MILLIS;
    await new Promise((resolve) => setTimeout(resolve, millis));
    if (touch === this.#nTouches) await this.#onIdle();
  }
}
