import { matchKey, type Caller } from "../clients.js";
import { PORT, type EngineState, type PanelReply } from "../messages.js";
import type { HostLink } from "../platform.js";
import { parseUrl } from "../url.js";
import { Engine } from "./engine.js";
import { Idle } from "./idle.js";
import { serveCall } from "./serve-call.js";
import { serveField } from "./serve-field.js";
import { servePanel } from "./serve-panel.js";

/** A call that runs: who made it, and what ends it. */
export interface Running {
  caller?: Caller;
  key?: string;
  abort: AbortController;
}

/**
 * Holds the engine for all tabs, and answers the ports that they open. It trusts what the browser tells of a port's other end, and nothing
 * that the other end says of itself.
 */
export class Host {
  readonly link: HostLink;
  readonly engine: Engine;
  readonly #idle: Idle;
  readonly #running = new Set<Running>();
  readonly #panels = new Set<chrome.runtime.Port>();
  /** Fields that wait for a model hear how far it is. */
  readonly #waiting = new Set<(state: EngineState) => void>();
  #isListening = false;

  constructor(link: HostLink) {
    this.link = link;
    this.engine = new Engine((state) => this.#told(state));
    this.#idle = new Idle(async () => (await link.config()).settings.idleMinutes, () => this.sleep());
  }

  /** Begins to answer ports. */
  listen(): void {
    if (this.#isListening) return;
    this.#isListening = true;
    chrome.runtime.onConnect.addListener((port) => this.#accept(port));
    chrome.runtime.onConnectExternal.addListener((port) => this.#acceptExternal(port));
    this.#idle.touch();
  }

  /** Runs work that keeps the engine awake, until it ends or `port` closes. */
  async run(port: chrome.runtime.Port, running: Running, work: () => Promise<void>): Promise<void> {
    const left = (): void => running.abort.abort();
    port.onDisconnect.addListener(left);
    this.#running.add(running);
    this.#idle.begin();
    try {
      await work();
    } finally {
      port.onDisconnect.removeListener(left);
      this.#running.delete(running);
      this.#idle.end();
    }
  }

  /** Has `hear` told of the engine's state while `work` goes on. */
  async whileHearing<T>(hear: (state: EngineState) => void, work: Promise<T>): Promise<T> {
    this.#waiting.add(hear);
    try {
      return await work;
    } finally {
      this.#waiting.delete(hear);
    }
  }

  /** Ends the calls of those whose keys were revoked. */
  async configChanged(): Promise<void> {
    const { clients } = await this.link.config();
    for (const { caller, key, abort } of [...this.#running]) {
      if (caller === undefined || key === undefined) continue;
      if ((await matchKey(clients, caller, key)) === undefined) abort.abort();
    }
  }

  /** Frees all memory, and in browsers where the host has a document of its own closes that. */
  async sleep(): Promise<void> {
    await this.engine.end();
    await this.link.report({ phase: "asleep" });
    this.link.leave();
  }

  #accept(port: chrome.runtime.Port): void {
    const { sender } = port;
    if (sender?.id !== chrome.runtime.id) return port.disconnect();
    const own = chrome.runtime.getURL("");
    if (port.name === PORT.panel && sender.url?.startsWith(`${own}panel.html`)) {
      this.#panels.add(port);
      port.onDisconnect.addListener(() => this.#panels.delete(port));
      servePanel(this, port);
      return;
    }
    // All others are scripts in a frame of a tab.
    const origin = originOf(sender);
    if (sender.tab?.id === undefined || sender.frameId === undefined || origin === undefined) return port.disconnect();
    if (port.name === PORT.field) serveField(this, port, origin);
    else if (port.name === PORT.call) serveCall(this, port, { kind: "page", who: origin });
    else port.disconnect();
  }

  #acceptExternal(port: chrome.runtime.Port): void {
    const id = port.sender?.id;
    if (id === undefined || port.name !== PORT.call) port.disconnect();
    else serveCall(this, port, { kind: "extension", who: id });
  }

  #told(state: EngineState): void {
    for (const panel of this.#panels) panel.postMessage({ type: "state", state } satisfies PanelReply);
    for (const hear of this.#waiting) hear(state);
    if (state.phase === "asleep") return; // `sleep` reports it before the context may go.
    this.link.report(state).catch((error: unknown) => console.error("cinderlm: the toolbar could not be told", error));
  }
}

/** The origin of a frame. Those without one, such as sandboxed frames, get one that no other frame shares. */
function originOf({ origin, url, documentId }: chrome.runtime.MessageSender): string | undefined {
  const known = origin ?? parseUrl(url ?? "")?.origin;
  if (known !== "null") return known;
  return documentId === undefined ? undefined : `opaque:${documentId}`;
}
