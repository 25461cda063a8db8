/** A record whose changes are told to all who listen. */
export class Store<T extends object> {
  #state: T;
  readonly #listeners = new Set<(state: T, before: T) => void>();

  constructor(state: T) {
    this.#state = state;
  }

  get state(): Readonly<T> {
    return this.#state;
  }

  /** Changes some fields. */
  set(changes: Partial<T>): void {
    const before = this.#state;
    this.#state = { ...before, ...changes };
    for (const listener of this.#listeners) listener(this.#state, before);
  }

  /** Calls the listener now and after each change. */
  watch(listener: (state: T, before: T) => void): void {
    this.#listeners.add(listener);
    listener(this.#state, this.#state);
  }
}
