//! Cases that hold a device's kernels against the [`reference`](crate::reference): the same list natively and in a browser.
//!
//! Each case makes its own random inputs, runs one operation on the device and compares every value. Nothing blocks.
//!
//! # Tolerances
//! A product may be off by 2e-6 of the largest it could be, `sum|x| * max|w|` of the row: f32 round-off in any order. On the CPU, whose
//! kernels round activations to 16 bits, quantised products may be off by `max|x| / 65534 * sum|w|` besides, the most that rounding can
//! amount to. All else may be off by 2e-6, absolutely for results that do not grow with their inputs and relative to the largest input
//! otherwise.

mod cases;
mod compare;
mod run;

pub use cases::{Case, cases};
pub use compare::SelftestError;

use burn::tensor::Device;

use crate::Profile;

/// Runs these cases on `device`; gives the name and the error of those that fail.
pub async fn run_cases(
    cases: impl IntoIterator<Item = Case>,
    device: &Device,
    profile: Profile,
) -> Vec<(String, SelftestError)> {
    let mut failures = Vec::new();
    for case in cases {
        if let Err(error) = case.run(device, profile).await {
            failures.push((case.to_string(), error));
        }
    }
    failures
}
