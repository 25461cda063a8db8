/**
 * The seam between browsers: what Chromium has and Firefox lacks, and the other way round. `#platform` is one of the two
 * implementations in `platform/`, which the build chooses; nothing else asks which browser it is.
 */
import type { Config, EngineState } from "./messages.js";

/** What the engine's host needs of the background. */
export interface HostLink {
  /** The settings and clients as they are now. */
  config(): Promise<Config>;
  /** Tells what the engine does, for the toolbar. */
  report(state: EngineState): Promise<void>;
  /** The engine has been idle: gives back what the host's context holds. */
  leave(): void;
}

/** What the background needs of the browser. */
export interface Platform {
  /** Makes sure that the engine's host listens to ports. `link` is for a host that lives in the background's own context. */
  ensureHost(link: HostLink): Promise<void>;
  /** Tells a host that runs that its configuration has changed. */
  tellConfigChanged(): Promise<void>;
  /** Shows the panel; to be called at once when the user has clicked. */
  openPanel(tab: chrome.tabs.Tab): Promise<void>;
  /** The pattern of a page's origin, for permissions and content scripts. */
  pagePattern(origin: string): string;
  /** Keeps what is stored from scripts in pages. */
  protectStorage(): Promise<void>;
}
