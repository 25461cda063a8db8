/**
 * The WebAssembly module itself, for those who bring their own worker: call the default export with the module's address, then
 * `initialize`, `load` and `complete`.
 *
 * @packageDocumentation
 */
export { default } from "../generated/cinderlm_wasm.js";
export * from "../generated/cinderlm_wasm.js";
