import { Host } from "../host/host.js";
import type { Platform } from "../platform.js";

/** What the types of Chromium's interface leave out. */
declare const browser: { sidebarAction: { open(): Promise<void> } };

let host: Host | undefined;

/** Firefox: the background is a page, which may start workers, so the host lives in it. */
export const platform: Platform = {
  ensureHost(link) {
    host ??= new Host(link);
    host.listen();
    return Promise.resolve();
  },

  async tellConfigChanged() {
    await host?.configChanged();
  },

  openPanel: () => browser.sidebarAction.open(),

  pagePattern,

  // Scripts in pages read `storage.local` here. Nothing secret is in it: of keys there are only hashes.
  protectStorage: () => Promise.resolve(),
};

/**
 * See {@link Platform.pagePattern}. Patterns have no ports here. The bridge is then there for other ports too, but the key is bound to the
 * whole origin.
 */
export function pagePattern(origin: string): string {
  const { protocol, hostname } = new URL(origin);
  return `${protocol}//${hostname}/*`;
}
