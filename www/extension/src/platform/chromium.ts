import type { BackgroundMessage, Config, ConfigChanged, EngineState } from "../messages.js";
import type { HostLink, Platform } from "../platform.js";

const PAGE = "offscreen.html";

/** The creation that is under way: there may be one such document only, and making a second is an error. */
let creating: Promise<void> | undefined;

/** Chromium: the host is an offscreen document, for the background may be stopped at any time and can start no workers. */
export const platform: Platform = {
  async ensureHost() {
    if (await hasHost()) return;
    // It resolves when the document has run its scripts, and so listens.
    creating ??= chrome.offscreen
      .createDocument({ url: PAGE, reasons: ["WORKERS"], justification: "The language model runs in a worker that all tabs share." })
      .finally(() => (creating = undefined));
    await creating;
  },

  async tellConfigChanged() {
    if (await hasHost()) await chrome.runtime.sendMessage<ConfigChanged>({ type: "config-changed" });
  },

  async openPanel(tab) {
    await chrome.sidePanel.open({ windowId: tab.windowId });
  },

  pagePattern,

  async protectStorage() {
    await chrome.storage.local.setAccessLevel({ accessLevel: "TRUSTED_CONTEXTS" });
  },
};

/** See {@link Platform.pagePattern}. By itself too, for the panel needs no more. */
export function pagePattern(origin: string): string {
  return `${origin}/*`;
}

/** How the offscreen document, which has `chrome.runtime` and no other interface, reaches the background. */
export const hostLink: HostLink = {
  config: () => chrome.runtime.sendMessage<BackgroundMessage, Config>({ type: "config" }),
  async report(state: EngineState) {
    await chrome.runtime.sendMessage<BackgroundMessage>({ type: "state", state });
  },
  leave: () => globalThis.close(),
};

async function hasHost(): Promise<boolean> {
  const contexts = await chrome.runtime.getContexts({ contextTypes: ["OFFSCREEN_DOCUMENT"] });
  return contexts.length > 0;
}
