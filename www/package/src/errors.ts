/** The family of a {@link CompletionError}. */
export type ErrorType =
  | "invalid_request_error"
  | "authentication_error"
  | "rate_limit_error"
  | "runtime_error"
  | "model_load_error";

/** A {@link CompletionError} as it crosses the worker boundary. */
export interface ErrorBody {
  status: number;
  type: ErrorType;
  code: ErrorCode;
  param: string | null;
  message: string;
  retry_after?: number | null;
}

/** Why a request failed, in the terms of the completion API. */
export class CompletionError extends Error {
  override readonly name = "CompletionError";
  /** The HTTP status that a server would answer. */
  readonly status: number;
  readonly type: ErrorType;
  readonly code: ErrorCode;
  /** The request field that was wrong, for instance `stop[2]`, or null. */
  readonly param: string | null;
  /** Seconds to wait before another try, where that helps. */
  readonly retry_after: number | undefined;

  constructor(body: ErrorBody) {
    super(body.message);
    this.status = body.status;
    this.type = body.type;
    this.code = body.code;
    this.param = body.param;
    this.retry_after = body.retry_after ?? undefined;
  }
}

/** Status and type of each code, as the contract has them. */
const FAMILIES = {
  invalid_type: [400, "invalid_request_error"],
  out_of_range: [400, "invalid_request_error"],
  unknown_parameter: [400, "invalid_request_error"],
  unsupported_parameter: [400, "invalid_request_error"],
  context_length_exceeded: [400, "invalid_request_error"],
  conflicting_parameters: [400, "invalid_request_error"],
  missing_api_key: [401, "authentication_error"],
  invalid_api_key: [401, "authentication_error"],
  model_not_found: [404, "invalid_request_error"],
  not_found: [404, "invalid_request_error"],
  method_not_allowed: [405, "invalid_request_error"],
  queue_full: [429, "rate_limit_error"],
  user_limit: [429, "rate_limit_error"],
  device_unavailable: [503, "runtime_error"],
  device_lost: [500, "runtime_error"],
  out_of_memory: [500, "runtime_error"],
  internal: [500, "runtime_error"],
  download_failed: [502, "model_load_error"],
  integrity_mismatch: [502, "model_load_error"],
  corrupt_model: [502, "model_load_error"],
  unsupported_model: [502, "model_load_error"],
  storage_full: [502, "model_load_error"],
  remote_failed: [502, "model_load_error"],
} as const satisfies Record<string, readonly [number, ErrorType]>;

/** The machine-readable reason of a {@link CompletionError}. */
export type ErrorCode = keyof typeof FAMILIES;

/** Every machine-readable reason there is. @internal */
export const ERROR_CODES = Object.keys(FAMILIES) as ErrorCode[];

/** Makes the body of an error that is found before or beside the engine. */
export function errorBody(code: ErrorCode, message: string, param: string | null = null): ErrorBody {
  const [status, type] = FAMILIES[code];
  return { status, type, code, param, message };
}

/** Makes an error that is found before or beside the engine. */
export function completionError(code: ErrorCode, message: string, param: string | null = null): CompletionError {
  return new CompletionError(errorBody(code, message, param));
}

/** Tells a body that crossed the worker boundary from any other thrown value. */
export function isErrorBody(value: unknown): value is ErrorBody {
  return (
    typeof value === "object" &&
    value !== null &&
    typeof (value as ErrorBody).status === "number" &&
    typeof (value as ErrorBody).code === "string" &&
    typeof (value as ErrorBody).message === "string"
  );
}
