import { platform } from "#platform";
import { readClients } from "./clients.js";

/** Marks the scripts that are registered here. */
const PREFIX = "bridge ";

/** The change that is under way: two at a time would register the same script twice. */
let last: Promise<void> = Promise.resolve();

/** Has the bridge in the pages of the origins that the user allowed, and in no others. */
export function syncBridges(): Promise<void> {
  last = last.catch(() => undefined).then(sync); // Its caller has heard of an earlier failure.
  return last;
}

async function sync(): Promise<void> {
  const clients = await readClients();
  const wanted = new Set(clients.filter(({ kind }) => kind === "page").map(({ who }) => who));
  const registered = (await chrome.scripting.getRegisteredContentScripts()).map(({ id }) => id).filter((id) => id.startsWith(PREFIX));
  const gone = registered.filter((id) => !wanted.has(id.slice(PREFIX.length)));
  if (gone.length > 0) await chrome.scripting.unregisterContentScripts({ ids: gone });
  const missing = [...wanted].filter((origin) => !registered.includes(PREFIX + origin));
  if (missing.length === 0) return;
  await chrome.scripting.registerContentScripts(
    missing.map((origin) => ({
      id: PREFIX + origin,
      matches: [platform.pagePattern(origin)],
      js: ["bridge.js"],
      runAt: "document_start",
      persistAcrossSessions: true,
    })),
  );
}
