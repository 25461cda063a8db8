//! What stands for steps that the CPU recorded where the CPU is not built in: there are none.

use burn::tensor::Tensor;

use crate::{KvCache, Step};

/// None is ever made.
#[derive(Debug)]
pub(crate) enum Tape {}

impl Tape {
    /// Runs the step and records nothing.
    pub(crate) fn record(
        step: &Step,
        caches: &mut [KvCache],
        run: impl FnOnce(&Step, &mut [KvCache]) -> Tensor<2>,
    ) -> (Tensor<2>, Option<Self>) {
        (run(step, caches), None)
    }

    pub(crate) fn replay(&mut self, _words: &[u32], _caches: &mut [KvCache]) -> Tensor<2> {
        match *self {}
    }
}
