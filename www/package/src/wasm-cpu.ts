/**
 * The WebAssembly module for the CPU, on one thread, for those who bring their own worker: call the default export with the address of
 * `cinderlm-cpu.wasm`, then `initialize`, `load` and `complete`.
 *
 * @packageDocumentation
 */
export { default } from "../generated/cpu/cpu.js";
export * from "../generated/cpu/cpu.js";
