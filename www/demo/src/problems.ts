import { CompletionError, type ErrorCode } from "cinderlm";

/** A failure, as it is shown. */
export interface Problem {
  message: string;
  /** The contract's code, where it is one of its errors. */
  code: ErrorCode | undefined;
  /** The field of the request that is wrong. */
  param: string | undefined;
  /** What the visitor can do. */
  advice: string;
  /** Whether the same may work when it is tried again. */
  isRetriable: boolean;
}

/** Codes that a second try may get past, or that say what else to do. */
const ADVICE: Partial<Record<ErrorCode, readonly [advice: string, isRetriable: boolean]>> = {
  download_failed: ["Check the connection and the address, then try again. What has arrived is kept.", true],
  integrity_mismatch: ["The file differs from what was expected. Delete it under Storage, then try again.", true],
  corrupt_model: ["The file is no whole GGUF file. Choose another model.", false],
  unsupported_model: ["Choose a model of the Llama family, Mistral or Qwen, without IQ quantisation.", false],
  storage_full: ["Delete a model under Storage, then try again.", true],
  out_of_memory: ["Choose a smaller model, fewer choices or a shorter text.", true],
  device_unavailable: ["Choose Automatic or CPU under Device.", false],
  device_lost: ["The browser took the GPU away. Try again: the model is loaded anew.", true],
  internal: ["Try again: the runtime starts anew.", true],
  queue_full: ["Wait for what runs, then try again.", true],
  model_not_found: ["Choose a model.", false],
};

/** What to show of anything that was thrown. */
export function problemOf(error: unknown): Problem {
  if (!(error instanceof CompletionError)) {
    const message = error instanceof Error ? error.message : String(error);
    return { message, code: undefined, param: undefined, advice: "Try again; reload the page if that does not help.", isRetriable: true };
  }
  const { message, code, param, status } = error;
  const [advice, isRetriable] = ADVICE[code] ?? ["Change the request.", status >= 500];
  return { message, code, param: param ?? undefined, advice, isRetriable };
}
