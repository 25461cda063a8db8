//! What stands for buffers in a GPU's memory where no GPU is built in: there are none.

use burn::tensor::{Device, Int, Tensor};

/// No such buffer is ever made.
#[derive(Debug)]
pub(crate) enum WordBuffer {}

impl WordBuffer {
    /// None: the device is no GPU.
    pub(crate) fn on_gpu(_n_words: &[usize], _device: &Device) -> Option<Vec<Self>> {
        None
    }

    pub(crate) fn write(&mut self, _first: usize, _words: &[u32]) {
        match *self {}
    }

    pub(crate) fn into_tensor(self) -> Tensor<1, Int> {
        match self {}
    }
}
