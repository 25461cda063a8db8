/** Every machine-readable reason there is. @internal */
export const ERROR_CODES = [
  "invalid_type",
  "out_of_range",
  "unknown_parameter",
  "unsupported_parameter",
  "context_length_exceeded",
  "conflicting_parameters",
  "missing_api_key",
  "invalid_api_key",
  "model_not_found",
  "not_found",
  "method_not_allowed",
  "queue_full",
  "user_limit",
  "device_unavailable",
  "device_lost",
  "out_of_memory",
  "internal",
  "download_failed",
  "integrity_mismatch",
  "corrupt_model",
  "unsupported_model",
  "storage_full",
  "remote_failed",
] as const;

/** The machine-readable reason of a {@link CompletionError}. */
export type ErrorCode = (typeof ERROR_CODES)[number];

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

const FAMILIES = {
  invalid_type: [400, "invalid_request_error"],
  out_of_range: [400, "invalid_request_error"],
  unknown_parameter: [400, "invalid_request_error"],
  conflicting_parameters: [400, "invalid_request_error"],
  missing_api_key: [401, "authentication_error"],
  invalid_api_key: [401, "authentication_error"],
  model_not_found: [404, "invalid_request_error"],
  not_found: [404, "invalid_request_error"],
  method_not_allowed: [405, "invalid_request_error"],
  user_limit: [429, "rate_limit_error"],
  device_unavailable: [503, "runtime_error"],
  device_lost: [500, "runtime_error"],
  internal: [500, "runtime_error"],
  download_failed: [502, "model_load_error"],
  remote_failed: [502, "model_load_error"],
} as const satisfies Partial<Record<ErrorCode, readonly [number, ErrorType]>>;

/** The codes that TypeScript raises by itself; all others come from Rust. */
export type LocalErrorCode = keyof typeof FAMILIES;

/** Makes the body of an error that is found before or beside the engine. */
export function errorBody(code: LocalErrorCode, message: string, param: string | null = null): ErrorBody {
  const [status, type] = FAMILIES[code];
  return { status, type, code, param, message };
}

/** Makes an error that is found before or beside the engine. */
export function completionError(code: LocalErrorCode, message: string, param: string | null = null): CompletionError {
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
