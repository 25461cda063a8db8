import { failure } from "./errors.js";
import type { ErrorBody } from "cinderlm";
import type { CallRequest, FieldRequest } from "./messages.js";

/** Bounds of what one request may carry, long before the model's own: a page must not fill the host's memory. */
const MAX_CHARS = 1 << 20;
const MAX_VALUES = 1 << 18;
const MAX_DEPTH = 4;
const MAX_STOPS = 4;

/** What was received, or why it is refused. */
export type Parsed<T> = { ok: true; value: T } | { ok: false; error: ErrorBody };

/**
 * Reads a request of a page or of another extension, which may send anything. What the fields mean is the engine's to check; here they are
 * held to plain data of a bounded size.
 */
export function parseCall(message: unknown): Parsed<CallRequest> {
  if (!isRecord(message)) return refuse("A request must be an object.");
  const { type, key, params, seed, count } = message;
  if (type === "taken") {
    const isCount = typeof count === "number" && Number.isSafeInteger(count) && count > 0;
    return isCount ? accept({ type, count }) : refuse("`count` must be a positive integer.");
  }
  if (type !== "complete") return refuse("A request must be of the type `complete`.");
  if (key !== undefined && typeof key !== "string") return refuse("`key` must be a string.");
  if (seed !== undefined && (typeof seed !== "string" || !/^-?\d{1,20}$/.test(seed))) return refuse("`seed` must be an integer.", "seed");
  if (!isRecord(params)) return refuse("The parameters must be an object.");
  const fault = findFault(params, "", 0, { nChars: 0, nValues: 0 });
  if (fault !== undefined) return refuse(fault.message, fault.name);
  return accept({ type, params, ...(key === undefined ? {} : { key }), ...(seed === undefined ? {} : { seed }) });
}

/** Reads a request of a text field. It comes from the extension's own script, but out of a process that runs the page's as well. */
export function parseField(message: unknown): Parsed<FieldRequest> {
  if (!isRecord(message) || message["type"] !== "ask") return refuse("A field's request must be of the type `ask`.");
  const { prompt, stop, nReceived } = message;
  if (typeof prompt !== "string" || prompt.length > MAX_CHARS) return refuse("`prompt` must be a text.", "prompt");
  if (!Array.isArray(stop) || stop.length > MAX_STOPS || !stop.every((text) => typeof text === "string" && text !== "")) {
    return refuse("`stop` must be a list of at most four texts.", "stop");
  }
  if (typeof nReceived !== "number" || !Number.isSafeInteger(nReceived) || nReceived < 0) return refuse("`nReceived` must be a count.");
  return accept({ type: "ask", prompt, stop: stop.map(String), nReceived });
}

/** Takes a BigInt out of the parameters, which the browser's ports between contexts cannot carry. */
export function packParams(params: Record<string, unknown>): { params: Record<string, unknown>; seed?: string } {
  const { seed, ...others } = params;
  return typeof seed === "bigint" ? { params: others, seed: String(seed) } : { params };
}

interface Fault {
  name: string;
  message: string;
}

/** The first value that is no plain data: a text, a finite number, a truth value, null, a list or a plain object. */
function findFault(value: unknown, name: string, depth: number, sum: { nChars: number; nValues: number }): Fault | undefined {
  sum.nValues += 1;
  if (typeof value === "string") sum.nChars += value.length;
  if (sum.nValues > MAX_VALUES || sum.nChars > MAX_CHARS) return { name, message: "The request is too large." };
  if (value === null || value === undefined || typeof value === "string" || typeof value === "boolean") return undefined;
  if (typeof value === "number") {
    // A port would turn it into null, and so into the default.
    return Number.isFinite(value) ? undefined : { name, message: `\`${name}\` must be a finite number.` };
  }
  const isPlain = Array.isArray(value) || Object.prototype.toString.call(value) === "[object Object]";
  if (!isPlain || depth === MAX_DEPTH) return { name, message: `\`${name}\` must be plain data.` };
  for (const [key, inner] of Object.entries(value)) {
    const path = name === "" ? key : Array.isArray(value) ? `${name}[${key}]` : `${name}.${key}`;
    const fault = findFault(inner, path, depth + 1, sum);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function accept<T>(value: T): Parsed<T> {
  return { ok: true, value };
}

function refuse<T>(message: string, param: string | null = null): Parsed<T> {
  return { ok: false, error: failure("invalid_type", message, param) };
}
