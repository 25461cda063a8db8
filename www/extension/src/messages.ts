/**
 * Every message between the parts of the extension: pages' scripts, the background, the engine's host and the panel.
 *
 * Ports are opened to the host, one for each call: closing one cancels its call. The background never answers a port, so a stream lives on
 * when the browser stops the background.
 */
import type { Completion, CompletionChunk, DeviceInfo, ErrorBody, LoadProgress } from "cinderlm";
import type { Client } from "./clients.js";
import type { Settings } from "./settings.js";

/** Names of the ports that the host answers. */
export const PORT = { field: "field", call: "call", panel: "panel" } as const;

/** What the host needs to know, which the background reads from the extension's storage. */
export interface Config {
  settings: Settings;
  clients: Client[];
}

/** What the engine does, as the toolbar and the panel show it. */
export type EngineState =
  /** It holds no memory. */
  | { phase: "asleep" }
  | { phase: "loading"; model: string; progress?: LoadProgress }
  | { phase: "ready"; model: string; device: DeviceInfo }
  | { phase: "error"; error: ErrorBody };

/** To the background, by `runtime.sendMessage`. */
export type BackgroundMessage =
  /** From any part of the extension: see to it that the host listens. */
  | { type: "wake" }
  /** From a page's script: how it is to behave. */
  | { type: "behaviour" }
  /** From the host. */
  | { type: "config" }
  | { type: "state"; state: EngineState };

/** To the background, from another extension. */
export interface ExternalMessage {
  type: "cinderlm.wake";
  key?: string;
}

/** Whether a message was met; the reason, where it was not. */
export type Answer = { ok: true } | { ok: false; error: ErrorBody };

/** Answer to `behaviour`. */
export interface Behaviour {
  trigger: Settings["trigger"];
}

/** To the host's context: what the background read before has changed. */
export interface ConfigChanged {
  type: "config-changed";
}

/** A text field asks, on a port of its own. */
export interface FieldRequest {
  type: "ask";
  /** The text before the caret, or the end of it. */
  prompt: string;
  /** Texts at which the suggestion ends. */
  stop: string[];
  /** Pieces that an earlier port gave before it broke: so many fewer tokens are asked for. */
  nReceived: number;
}

/** The host to a text field. */
export type FieldReply =
  | { type: "loading"; state: Extract<EngineState, { phase: "loading" }> }
  | { type: "text"; text: string }
  | { type: "end" }
  | { type: "error"; error: ErrorBody };

/** A page or another extension, on a port of its own. */
export type CallRequest =
  /** `seed` is here when it is a BigInt, which ports cannot carry: in decimal digits. */
  | { type: "complete"; key?: string; params: Record<string, unknown>; seed?: string }
  /** The caller took so many chunks: as many more may be sent. */
  | { type: "taken"; count: number };

/** The host to a page or another extension. */
export type CallReply =
  | { type: "completion"; completion: Completion }
  | { type: "stream" }
  | { type: "chunk"; chunk: CompletionChunk }
  | { type: "end" }
  | { type: "error"; error: ErrorBody };

/** A model file that is kept. */
export interface StoredFile {
  id: string;
  name: string;
  bytes: number;
  total?: number;
  isComplete: boolean;
}

/** What is kept on this machine, in bytes. */
export interface StorageReport {
  files: StoredFile[];
  bytes: number;
  quota?: number;
}

/** What the panel asks of the host; each request carries an `id` that its answer repeats. */
export type PanelRequest = { id: number } & (
  | { type: "load" }
  | { type: "sleep" }
  | { type: "storage" }
  | { type: "delete"; file: string }
);

/** The host to the panel. */
export type PanelReply =
  | { type: "state"; state: EngineState }
  | { type: "done"; id: number; storage?: StorageReport }
  | { type: "failed"; id: number; error: ErrorBody };
