import { completionError, type CompletionError } from "./errors.js";

/** No request of the contract nests deeper. */
const MAX_DEPTH = 8;
const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

/**
 * A plain copy of a request's parameters: what the caller does to them later changes nothing, and proxies, which cannot cross to a worker,
 * become the values that they show.
 *
 * @throws CompletionError `invalid_type` or `out_of_range` that names what JSON cannot say.
 */
export function snapshot<T>(params: T): T {
  return copy(params, "", 0) as T;
}

function copy(value: unknown, path: string, depth: number): unknown {
  switch (typeof value) {
    case "bigint":
      if (value < INT64_MIN || value > INT64_MAX) throw refusal("out_of_range", path, "an integer of 64 bits", String(value));
      return value;
    case "function":
    case "symbol":
      throw refusal("invalid_type", path, "a JSON value", `a ${typeof value}`);
    case "object":
      return value === null ? null : copyObject(value, path, depth);
    default:
      return value;
  }
}

function copyObject(value: object, path: string, depth: number): unknown {
  if (depth >= MAX_DEPTH) throw refusal("invalid_type", path, `values nested at most ${MAX_DEPTH} deep`, "a deeper one");
  if (value instanceof ArrayBuffer || value instanceof DataView || value instanceof Map || value instanceof Set || value instanceof Blob) {
    throw refusal("invalid_type", path, "a JSON value", value.constructor.name);
  }
  const isList = Array.isArray(value) || ArrayBuffer.isView(value);
  try {
    if (isList) return Array.from(value as ArrayLike<unknown>, (item, index) => copy(item, `${path}[${index}]`, depth + 1));
    const entries = Object.entries(value).map(([key, item]) => [key, copy(item, path === "" ? key : `${path}.${key}`, depth + 1)]);
    return Object.fromEntries(entries) as unknown;
  } catch (error) {
    if (error instanceof Error && error.name === "CompletionError") throw error;
    throw refusal("invalid_type", path, "values that can be read", String(error));
  }
}

function refusal(code: "invalid_type" | "out_of_range", path: string, expected: string, actual: string): CompletionError {
  return completionError(code, `${path || "The request"}: expected ${expected}, got ${actual}.`, path || null);
}
