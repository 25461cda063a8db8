/** What the user has chosen. It is kept in the extension's storage, which pages and their scripts cannot read. */

/** A model file: at an address, or picked from this machine and copied into the extension's own file system. */
export type ModelChoice = { id: string; url: string } | { id: string; file: string };

/** Everything that the panel lets one choose. */
export interface Settings {
  /** Null until one is chosen: nothing is downloaded before. */
  model: ModelChoice | null;
  device: "auto" | "webgpu" | "cpu";
  /** Tokens of a suggestion at most. */
  maxTokens: number;
  temperature: number;
  /** Whether suggestions come with the shortcut only, or also after a pause in typing, in tabs where the extension was called once. */
  trigger: "shortcut" | "pause";
  /** Minutes without work after which the engine gives its memory back. */
  idleMinutes: number;
}

/** What holds before anything is chosen. */
export const DEFAULTS: Settings = { model: null, device: "auto", maxTokens: 40, temperature: 0.2, trigger: "shortcut", idleMinutes: 10 };

const KEY = "settings";

/** Reads what is stored, field by field: what is missing or out of its range is as it was by default. */
export function parseSettings(value: unknown): Settings {
  const stored = isRecord(value) ? value : {};
  return {
    model: parseModel(stored["model"]),
    device: oneOf(stored["device"], ["auto", "webgpu", "cpu"], DEFAULTS.device),
    maxTokens: Math.round(numberIn(stored["maxTokens"], 1, 512, DEFAULTS.maxTokens)),
    temperature: numberIn(stored["temperature"], 0, 2, DEFAULTS.temperature),
    trigger: oneOf(stored["trigger"], ["shortcut", "pause"], DEFAULTS.trigger),
    idleMinutes: numberIn(stored["idleMinutes"], 0, 24 * 60, DEFAULTS.idleMinutes),
  };
}

/** The settings as they are stored now. */
export async function readSettings(): Promise<Settings> {
  return parseSettings((await chrome.storage.local.get(KEY))[KEY]);
}

/** Stores what is given and leaves the rest as it is. */
export async function changeSettings(changed: Partial<Settings>): Promise<Settings> {
  const settings = parseSettings({ ...(await readSettings()), ...changed });
  await chrome.storage.local.set({ [KEY]: settings });
  return settings;
}

function parseModel(value: unknown): ModelChoice | null {
  if (!isRecord(value) || typeof value["id"] !== "string" || value["id"] === "") return null;
  if (typeof value["url"] === "string") return { id: value["id"], url: value["url"] };
  return typeof value["file"] === "string" ? { id: value["id"], file: value["file"] } : null;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function oneOf<T extends string>(value: unknown, allowed: readonly T[], fallback: T): T {
  return allowed.find((each) => each === value) ?? fallback;
}

function numberIn(value: unknown, min: number, max: number, fallback: number): number {
  return typeof value === "number" && value >= min && value <= max ? value : fallback;
}
