//! The operations of a forward step on plain slices, for the CPU. No tensor type appears here: a backend lends its buffers.
//!
//! # Layout
//! Matrices are row-major. Activations are `[rows, width]` f32, one row per token of the step. Weights are the packed words of
//! `cinderlm-weights` in row order (`Interleave::Rows`). The KV cache is `[blocks, n_kv_heads, block_tokens, head_dim]` f32, once for keys and
//! once for values, a slot being `block * block_tokens + offset`; [`StepRows`] says which slots a row writes and reads.
//!
//! # Rounding
//! A product with quantised weights rounds its activations first: each block of 32 to signed 16-bit integers, `round(x * 32767 / max|x|)`,
//! ties to even, under one f32 scale `max|x| / 32767`. Weights are used exactly as stored: quanta multiply quanta as integers, without
//! rounding, and only the scaled block sums are floats. Sixteen bits cost nothing over eight: WebAssembly's widest integer dot product
//! takes 16-bit operands, so weights and activations are widened to them in any case. So per output the error against exact arithmetic is at most
//! `sum over blocks of (max|x| / 65534) * sum|w|`, plus f32 round-off. A block whose largest activation is below 1e-30 counts as zero;
//! one that holds an infinity or NaN makes the row's outputs NaN. Products with float weights (F32, F16, BF16)
//! and everything else are f32 throughout.
//!
//! # Order of addition
//! Each output element is added up in an order that depends on the widths alone, and in attention on the position and the blocks of the
//! cache as well: never on how many rows the step has, nor on where in the step a row stands. So a token's result is the same, bit for bit, in
//! a batch, in a prompt and alone. Vector lanes follow the order documented at each function, with no fused multiply-add, on every target;
//! results agree bit for bit between targets, except those of [`rope_append`], whose sine and cosine come from the standard library.
//!
//! # Threads
//! The larger kernels cut their results into parts and share them with the threads of [`pool`], if there are any. Each output element is
//! computed by one thread in the order above, or in attention from what several threads have of fixed chunks of positions; so the number of
//! threads changes no bit.
//!
//! # Memory
//! Kernels that need room take a [`Scratch`], which grows to the largest step seen and is then reused; each thread that helps has room of its
//! own. Nothing else allocates.

mod activations;
mod attention;
mod embed;
mod exp;
mod floats;
mod linear;
mod norm;
mod packed_rows;
pub mod pool;
mod quantized;
mod rope;
mod scales;
pub mod selftest;
mod share;
mod simd;
mod step;
mod swiglu;
#[cfg(test)]
mod tests;
mod unpack;

pub use attention::{AttentionConfig, attention};
pub use embed::embed;
pub use linear::{Matrix, gated_linear, has_normal_scales, linear};
pub use norm::rms_norm;
pub use rope::{RopeConfig, RopePairs, rope_append};
pub use step::StepRows;
pub use swiglu::swiglu;

use std::cell::RefCell;

/// Room that kernels reuse from call to call.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Activations rounded to 16 bits, for [`linear`].
    activations: activations::QuantizedRows,
    /// What queries get from each chunk of their positions, where threads share these, for [`attention`].
    partials: Vec<f32>,
    /// What the last step turned by, for [`rope_append`].
    turns: rope::Turns,
    own: Own,
}

/// Room that each thread has for itself.
#[derive(Debug, Default)]
struct Own {
    /// Scales of a few rows of weights, for [`linear`] and [`embed`].
    scales: scales::Scales,
    /// Attention weights of heads that share a key-value head, for [`attention`].
    scores: Vec<f32>,
    /// What these heads get from one chunk of positions, and from those before it, for [`attention`].
    partials: Vec<f32>,
}

/// Runs `f` with this thread's scratch. Nested calls would find it taken, so `f` must not call this again.
///
/// # Panics
/// When nested.
pub fn with_scratch<T>(f: impl FnOnce(&mut Scratch) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(f)
}
