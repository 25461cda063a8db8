//! The threads of the CPU's kernels, in a module with atomics: workers that were given this module and its memory.

use cinderlm_kernels::cpu::pool;
use wasm_bindgen::prelude::*;

/// Takes a share of the work of every kernel from now on, and never returns: to be called in a worker of its own.
#[wasm_bindgen(js_name = "serveThread")]
pub fn serve_thread() {
    pool::serve();
}

/// Says that [`serve_thread`] failed in this worker. What waits for it then fails too, where it would wait for ever.
#[wasm_bindgen(js_name = "abandonThread")]
pub fn abandon_thread() {
    pool::abandon();
}

/// Threads that kernels run on, the caller's own among them.
#[wasm_bindgen(js_name = "nThreads")]
pub fn n_threads() -> usize {
    pool::n_threads()
}
