/** Gives a lock back; resolves once another may have it. */
export type Release = () => Promise<void>;

/**
 * Takes a lock that all tabs of this origin know. Where the browser knows no locks, nothing is held.
 *
 * @throws What `signal` was aborted for.
 */
export function takeLock(name: string, mode: LockMode, signal?: AbortSignal): Promise<Release> {
  return request(name, signal === undefined ? { mode } : { mode, signal }) as Promise<Release>;
}

/** As {@link takeLock}, alone, if nobody has it now; undefined otherwise. */
export function tryLock(name: string): Promise<Release | undefined> {
  return request(name, { ifAvailable: true });
}

function request(name: string, options: LockOptions): Promise<Release | undefined> {
  if (globalThis.navigator?.locks === undefined) return Promise.resolve(() => Promise.resolve());
  return new Promise((resolve, reject) => {
    const given = (lock: Lock | null): Promise<void> | undefined => {
      if (lock === null) {
        resolve(undefined);
        return undefined;
      }
      return new Promise((free) => {
        resolve(() => {
          free();
          return held;
        });
      });
    };
    const held: Promise<void> = navigator.locks.request(name, options, given).then(() => undefined);
    held.catch(reject);
  });
}
