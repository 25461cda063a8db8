/**
 * Text completions that never leave the browser.
 *
 * @packageDocumentation
 */
export { modelAddress } from "./address.js";
export { Cinder } from "./cinder.js";
export { CompletionError, type ErrorBody, type ErrorCode, type ErrorType } from "./errors.js";
export { complete, configure } from "./shared.js";
export type { CompletionStream } from "./stream.js";
export type { ModelCache } from "./cache.js";
export type { GpuWork } from "./gpu-meter.js";
export type { CachedFile, CacheUsage, StorageBackend, StorageEntry, StorageNotice } from "./storage.js";
export type * from "./types.js";
