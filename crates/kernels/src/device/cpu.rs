//! Tensors in host memory.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};

pub(crate) use crate::flex::Tape;

/// A tensor of these bytes.
pub(super) fn hold(bytes: Bytes, len: usize, dtype: DType) -> FlexTensor {
    FlexTensor::new(bytes, Layout::contiguous(Shape::new([len])), dtype)
}

/// A tensor of f32, whose contents are unspecified.
pub(super) fn empty_floats(n_values: usize) -> FlexTensor {
    FlexTensor::empty(Shape::new([n_values]), DType::F32)
}
