/**
 * The WebAssembly module for WebGPU, for those who bring their own worker: call the default export with the address of
 * `cinderlm-webgpu.wasm`, then `initialize`, `load` and `complete`.
 *
 * @packageDocumentation
 */
export { default } from "../generated/webgpu/webgpu.js";
export * from "../generated/webgpu/webgpu.js";
