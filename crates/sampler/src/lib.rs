//! Logits in, token out.
//!
//! [`Sampler`] turns the logits of one step into the next token of one choice: bias, penalties,
//! temperature, top-p and a draw. [`LogProbabilities`] reads a model's own distribution off the
//! same logits, before any of that.
//!
//! The crate knows slices of `f32`, not tensors, models or requests. Settings are taken as they
//! are; checking their ranges is the business of whoever parsed the request. Logits are not
//! trusted: a NaN counts as minus infinity, plus infinity as the largest finite number.

mod exp;
mod log_probabilities;
mod nucleus;
mod sampler;

pub use log_probabilities::{LogProbabilities, MIN_LOG_PROBABILITY, Reported};
pub use sampler::{DrawPlan, SampleError, Sampler, SamplerConfig};

/// A logit as everything here sees it: never NaN and never plus infinity, so that differences to
/// the largest are never NaN.
fn cleaned(logit: f32) -> f32 {
    if logit.is_nan() {
        f32::NEG_INFINITY
    } else {
        logit.min(f32::MAX)
    }
}
