/**
 * Takes a lock that all tabs of this origin know; resolves to what gives it back. Where the browser knows no locks, nothing is held.
 *
 * @throws What `signal` was aborted for.
 */
export function takeLock(name: string, mode: LockMode, signal?: AbortSignal): Promise<() => void> {
  if (globalThis.navigator?.locks === undefined) return Promise.resolve(() => undefined);
  return new Promise((resolve, reject) => {
    const options = signal === undefined ? { mode } : { mode, signal };
    navigator.locks.request(name, options, () => new Promise<void>((release) => resolve(release))).catch(reject);
  });
}

/** As {@link takeLock}, alone, if nobody has it now; undefined otherwise. */
export function tryLock(name: string): Promise<(() => void) | undefined> {
  if (globalThis.navigator?.locks === undefined) return Promise.resolve(() => undefined);
  return new Promise((resolve, reject) => {
    navigator.locks
      .request(name, { ifAvailable: true }, (lock) => (lock === null ? resolve(undefined) : new Promise<void>((release) => resolve(release))))
      .catch(reject);
  });
}
