/** The engine's host in Chromium: an offscreen document that lives while the engine has work or memory. */
import { hostLink } from "../platform/chromium.js";
import type { ConfigChanged } from "../messages.js";
import { Host } from "./host.js";

const host = new Host(hostLink);
host.listen();

chrome.runtime.onMessage.addListener((message: ConfigChanged | { type: string }, sender) => {
  // Scripts in pages have a tab; the background has none.
  if (sender.id !== chrome.runtime.id || sender.tab !== undefined || message.type !== "config-changed") return;
  host.configChanged().catch((error: unknown) => console.error("cinderlm: the changed settings could not be read", error));
});
