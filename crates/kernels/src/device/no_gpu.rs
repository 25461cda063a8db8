//! What stands for a GPU's buffers and recordings where no GPU is built in: there are none.

use std::future::Ready;

use burn::backend::ExecutionError;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// No such buffer is ever made.
#[derive(Debug)]
pub(crate) enum WordBuffer {}

impl WordBuffer {
    /// None: the device is no GPU.
    pub(crate) fn on_gpu(_n_words: &[usize], _device: &Device) -> Option<Vec<Self>> {
        None
    }

    pub(crate) fn write(&self, _first: usize, _words: &[u32]) {
        match *self {}
    }

    pub(crate) fn tensor(&self) -> Tensor<1, Int> {
        match *self {}
    }
}

/// None: the device is no GPU.
pub(crate) fn read_now<const D: usize>(
    _tensor: Tensor<D>,
) -> Option<Ready<Result<TensorData, ExecutionError>>> {
    None
}

/// None is ever made.
pub(crate) enum Recorder {}

/// Nothing is ever recorded.
#[derive(Debug)]
pub(crate) enum Graph {}

impl Recorder {
    /// None: the device is no GPU.
    pub(crate) fn on_gpu(_device: &Device) -> Option<Self> {
        None
    }

    pub(crate) fn prepare(&self) -> Result<(), ExecutionError> {
        match *self {}
    }

    pub(crate) fn start(&self) -> Result<(), ExecutionError> {
        match *self {}
    }

    pub(crate) fn stop(self) -> Result<Graph, ExecutionError> {
        match self {}
    }
}

impl Graph {
    pub(crate) unsafe fn replay(&self) -> Result<(), ExecutionError> {
        match *self {}
    }
}
