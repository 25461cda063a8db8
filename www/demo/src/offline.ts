import type { DeviceInfo } from "cinderlm";

/** What the page is told of its service worker. */
export interface OfflineHooks {
  /** A new version waits; `activate` reloads the page into it. */
  onUpdate(activate: () => void): void;
  onFailure(message: string): void;
}

/** Registers the service worker, where the browser has them. Resolves to whether all of the page but its module is stored. */
export async function initOffline(hooks: OfflineHooks): Promise<boolean> {
  if (!("serviceWorker" in navigator)) {
    hooks.onFailure("This browser cannot keep the page for offline use.");
    return false;
  }
  try {
    const registration = await navigator.serviceWorker.register("sw.js");
    watch(registration, hooks);
    await navigator.serviceWorker.ready;
    return true;
  } catch (error) {
    hooks.onFailure(`The page cannot be kept for offline use: ${error instanceof Error ? error.message : String(error)}`);
    return false;
  }
}

/** The module that a device runs on. */
export function moduleOf({ kind, threads }: DeviceInfo): string {
  return `cinderlm-${kind === "webgpu" ? "webgpu" : threads > 1 ? "cpu-threads" : "cpu"}.wasm`;
}

/** Has the service worker keep a module. Resolves to whether it could. */
export async function keepModule(name: string): Promise<boolean> {
  const { active } = await navigator.serviceWorker.ready;
  const { port1, port2 } = new MessageChannel();
  const kept = new Promise<boolean>((resolve) => (port1.onmessage = ({ data }) => resolve(data === true)));
  active?.postMessage({ keep: name }, [port2]);
  return kept;
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
