/** What the page is told of its service worker. */
export interface OfflineHooks {
  /** Everything that the page needs is stored. */
  onReady(): void;
  /** A new version waits; `activate` reloads the page into it. */
  onUpdate(activate: () => void): void;
  onFailure(message: string): void;
}

/** Registers the service worker, where the browser has them. */
export async function initOffline(hooks: OfflineHooks): Promise<void> {
  if (!("serviceWorker" in navigator)) return hooks.onFailure("This browser cannot keep the page for offline use.");
  try {
    const registration = await navigator.serviceWorker.register("sw.js");
    watch(registration, hooks);
    await navigator.serviceWorker.ready;
    hooks.onReady();
  } catch (error) {
    hooks.onFailure(`The page cannot be kept for offline use: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function watch(registration: ServiceWorkerRegistration, hooks: OfflineHooks): void {
  const offer = (worker: ServiceWorker): void =>
    hooks.onUpdate(() => {
      navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
      worker.postMessage("activate");
    });
  if (registration.waiting !== null) offer(registration.waiting);
  registration.addEventListener("updatefound", () => {
    const worker = registration.installing;
    worker?.addEventListener("statechange", () => {
      // Without an active one it is the first version, which nobody needs to be told of.
      if (worker.state === "installed" && registration.active !== null) offer(worker);
    });
  });
}
