//! Reading results back and comparing them.

use burn::tensor::{Device, Tensor, TensorData};
use cinderlm_weights::{Interleave, PackedLayout, PackedTensor};
use thiserror::Error;

use crate::KernelError;

/// Why a case failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SelftestError {
    /// A value is not what the reference has.
    #[error("{what}[{index}] is {actual}, not {expected} within {tolerance}")]
    Differs {
        /// Which result of the case.
        what: &'static str,
        /// Index of the value.
        index: usize,
        /// The kernel's value.
        actual: f32,
        /// The reference's value.
        expected: f32,
        /// The largest difference allowed.
        tolerance: f32,
    },
    /// The result has another length.
    #[error("{what} has {actual} values, not {expected}")]
    Length {
        /// Which result of the case.
        what: &'static str,
        /// The kernel's number of values.
        actual: usize,
        /// The reference's number of values.
        expected: usize,
    },
    /// A buffer could not be made.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The result could not be read back.
    #[error("reading {what} back: {message}")]
    Read {
        /// Which result of the case.
        what: &'static str,
        /// What the backend said.
        message: String,
    },
}

/// Compares a tensor with the reference; `tolerance` gives the largest difference allowed at an index.
pub(super) async fn compare<const D: usize>(
    what: &'static str,
    actual: Tensor<D>,
    expected: &[f32],
    tolerance: impl Fn(usize) -> f32,
) -> Result<(), SelftestError> {
    let actual = read(what, actual).await?;
    if actual.len() != expected.len() {
        return Err(SelftestError::Length {
            what,
            actual: actual.len(),
            expected: expected.len(),
        });
    }
    for (index, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let tolerance = tolerance(index);
        // Written so that NaN fails.
        let close = (actual - expected).abs() <= tolerance;
        if !close {
            return Err(SelftestError::Differs {
                what,
                index,
                actual,
                expected,
                tolerance,
            });
        }
    }
    Ok(())
}

/// Reads a tensor back without blocking.
pub(super) async fn read<const D: usize>(
    what: &'static str,
    tensor: Tensor<D>,
) -> Result<Vec<f32>, SelftestError> {
    let failed = |message: String| SelftestError::Read { what, message };
    let data = tensor
        .into_data_async()
        .await
        .map_err(|error| failed(error.to_string()))?;
    data.try_into_vec()
        .map_err(|error| failed(error.to_string()))
}

/// A matrix on the device.
pub(super) fn matrix(values: &[f32], width: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), [values.len() / width, width]),
        device,
    )
}

/// A vector on the device.
pub(super) fn vector(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// The same tensor with its rows in another order.
pub(super) fn interleaved(tensor: &PackedTensor, interleave: Interleave) -> PackedTensor {
    let old = tensor.layout;
    let new = PackedLayout { interleave, ..old };
    let mut words = vec![0; new.n_words()];
    for (from, to) in old.sections().into_iter().zip(new.sections()) {
        let words_per_row = from.words_per_row;
        for row in 0..old.n_rows {
            for w in 0..words_per_row {
                let word = tensor.words[from.offset + old.word_in_section(words_per_row, row, w)];
                words[to.offset + new.word_in_section(words_per_row, row, w)] = word;
            }
        }
    }
    PackedTensor { layout: new, words }
}
