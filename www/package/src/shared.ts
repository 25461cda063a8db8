import { Cinder } from "./cinder.js";
import type { CompletionStream } from "./stream.js";
import type { CallOptions, CinderOptions, Completion, CompletionChunk, CompletionParams, StreamingCompletionParams, WholeCompletionParams } from "./types.js";

let shared: Cinder | undefined;

/** Sets up the instance that the top-level {@link complete} uses, in place of an earlier one. */
export function configure(options: CinderOptions): Cinder {
  const earlier = shared;
  shared = new Cinder(options); // First: options that are refused leave the earlier one as it is.
  void earlier?.dispose();
  return shared;
}

/** Completes a prompt on the shared instance, which {@link configure} sets up. */
export function complete(params: StreamingCompletionParams, options?: CallOptions): Promise<CompletionStream>;
export function complete(params: WholeCompletionParams, options?: CallOptions): Promise<Completion>;
export function complete(params: CompletionParams, options?: CallOptions): Promise<Completion | AsyncIterableIterator<CompletionChunk>>;
export function complete(params: CompletionParams, options?: CallOptions): Promise<Completion | AsyncIterableIterator<CompletionChunk>> {
  shared ??= new Cinder();
  return shared.complete(params, options);
}
