import type { ErrorBody } from "cinderlm";

/** The failures that the extension itself finds, with status and type as the completion contract has them. */
const FAMILIES = {
  invalid_type: [400, "invalid_request_error"],
  missing_api_key: [401, "authentication_error"],
  invalid_api_key: [401, "authentication_error"],
  not_found: [404, "invalid_request_error"],
  model_not_found: [404, "invalid_request_error"],
  internal: [500, "runtime_error"],
} as const;

/** Makes a failure that is found before or beside the engine. */
export function failure(code: keyof typeof FAMILIES, message: string, param: string | null = null): ErrorBody {
  const [status, type] = FAMILIES[code];
  return { status, type, code, param, message };
}

/** What a caller without a valid key is told: the same whether the key is unknown, revoked or another's. */
export const INVALID_KEY = failure("invalid_api_key", "The key is not one that this caller may use.");

/** What a caller without any key is told. */
export const MISSING_KEY = failure("missing_api_key", "A key is needed: the user makes one in cinderlm’s panel.");

/** What was thrown, as a message to show or to log. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
