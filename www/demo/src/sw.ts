/// <reference lib="webworker" />
// Keeps the app itself, so that the page opens without a network. Models are none of its business: the package stores them.
export {};

declare const self: ServiceWorkerGlobalScope;
/** Set by build.mjs: changes when any file of the app does. */
declare const SHELL_VERSION: string;
declare const SHELL_FILES: string[];
/** SHA-256 of each module, by name. A visitor needs one, that of the device: the page says which. */
declare const MODULE_DIGESTS: Record<string, string>;

// Caches belong to the origin, which may have this page in several places.
const PREFIX = `cinderlm-demo ${new URL(self.registration.scope).pathname} `;
const CACHE = `${PREFIX}${SHELL_VERSION}`;
// By its folder: some hosts redirect from index.html to that, and an answer that was redirected opens no page.
const start = self.registration.scope;
const startFile = new URL("index.html", start).href;
const shell = new Set(SHELL_FILES.map((name) => new URL(name, start).href).map((url) => (url === startFile ? start : url)));
const modules = new Map(Object.entries(MODULE_DIGESTS).map(([name, digest]) => [new URL(name, start).href, digest]));

/** All files or none: a half-stored app would fail offline, where nothing can be done about it. With them the modules that the version before kept. */
async function install(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll([...shell].map((url) => new Request(url, { cache: "reload" })));
  for (const url of modules.keys()) {
    if ((await matchAnywhere(url)) && !(await keepModule(url))) throw new Error(`${url} is not there`);
  }
}

async function matchAnywhere(url: string): Promise<boolean> {
  const names = (await caches.keys()).filter((name) => name.startsWith(PREFIX));
  const matches = await Promise.all(names.map(async (name) => (await caches.open(name)).match(url)));
  return matches.some((match) => match !== undefined);
}

/** A module from the network; an error if that has another version's by now, which does not fit this version's scripts. */
async function fetchModule(url: string): Promise<Response> {
  const response = await fetch(url, { cache: "no-cache" });
  if (!response.ok) return response;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await response.clone().arrayBuffer()));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex === modules.get(url) ? response : Response.error();
}

/** Keeps the module that the page runs on; resolves to whether that worked. */
async function keepModule(url: string): Promise<boolean> {
  if (!modules.has(url)) return false;
  try {
    const cache = await caches.open(CACHE);
    if ((await cache.match(url)) !== undefined) return true;
    const response = await fetchModule(url);
    if (response.ok) await cache.put(url, response);
    return response.ok;
  } catch {
    return false; // No network, or no room.
  }
}

async function activate(): Promise<void> {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function fromShell(url: string, request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  return (await cache.match(url)) ?? (modules.has(url) ? fetchModule(url) : fetch(request));
}

/** The file of the app that a request is for; undefined for all else, downloads of models and other origins above all. */
function shellFile(request: Request): string | undefined {
  if (request.method !== "GET") return undefined;
  const url = new URL(request.url);
  url.search = "";
  url.hash = "";
  if (request.mode === "navigate") return url.href === start || url.href === startFile ? start : undefined;
  return shell.has(url.href) || modules.has(url.href) ? url.href : undefined;
}

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("fetch", (event) => {
  const url = shellFile(event.request);
  if (url !== undefined) event.respondWith(fromShell(url, event.request));
});
self.addEventListener("message", (event) => {
  // The visitor wants the new version now.
  if (event.data === "activate") event.waitUntil(self.skipWaiting());
  const { keep } = event.data as { keep?: string };
  if (keep !== undefined) event.waitUntil(keepModule(new URL(keep, start).href).then((isKept) => event.ports[0]?.postMessage(isKept)));
});
