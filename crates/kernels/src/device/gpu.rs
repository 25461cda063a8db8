//! Tensors and buffers in a GPU's memory.

use burn::backend::{DispatchDevice, ExecutionError};
use burn::tensor::{Bytes, DType, Device, Int, Shape, Tensor};
use burn_cubecl::{CubeBackend, CubeDevice, tensor::CubeTensor};
use cubecl::server::{Handle, ServerError};

use super::{Lifetime, aligned_bytes};

/// The largest buffer that a kernel can bind, in bytes.
pub(super) fn max_buffer_bytes(device: &CubeDevice) -> u64 {
    device.client().properties().memory.max_page_size
}

/// A tensor of these bytes.
pub(super) fn upload(
    bytes: Bytes,
    len: usize,
    dtype: DType,
    lifetime: Lifetime,
    device: &CubeDevice,
) -> CubeTensor {
    let client = device.client();
    let handle: Handle = match lifetime {
        Lifetime::Persistent => {
            client.memory_persistent_allocation(bytes, |bytes| client.create(bytes))
        }
        Lifetime::Step => client.create(bytes),
    };
    CubeTensor::new_contiguous(client, device.clone(), Shape::new([len]), handle, dtype)
}

/// A tensor of f32 in persistent memory, whose contents are unspecified.
pub(super) fn empty_floats(n_values: usize, device: &CubeDevice) -> CubeTensor {
    CubeTensor::new_contiguous(
        device.client(),
        device.clone(),
        Shape::new([n_values]),
        empty_persistent(n_values * 4, device),
        DType::F32,
    )
}

/// See [`start_uploads`](super::start_uploads).
pub(super) fn start_uploads(device: &CubeDevice) -> Result<(), ExecutionError> {
    device.client().flush().map_err(execution_error)
}

/// See [`finish_uploads`](super::finish_uploads).
pub(super) async fn finish_uploads(device: &CubeDevice) -> Result<(), ExecutionError> {
    device.client().sync().await.map_err(execution_error)
}

fn execution_error(error: ServerError) -> ExecutionError {
    match error.is_device_poisoned() {
        true => ExecutionError::device_poisoned(error.to_string()),
        false => ExecutionError::with_context(error.to_string()),
    }
}

fn empty_persistent(n_bytes: usize, device: &CubeDevice) -> Handle {
    let client = device.client();
    client.memory_persistent_allocation((), |()| client.empty(n_bytes))
}

/// Part of a buffer of words in a GPU's persistent memory, to be written piece by piece.
#[derive(Debug)]
pub(crate) struct WordBuffer {
    handle: Handle,
    n_words: usize,
    device: CubeDevice,
}

impl WordBuffer {
    /// Buffers of these many words, of unspecified contents and side by side in one allocation, or `None` when the device is no GPU.
    pub(crate) fn on_gpu(n_words: &[usize], device: &Device) -> Option<Vec<Self>> {
        #[allow(
            irrefutable_let_patterns,
            reason = "without the CPU there is no other device"
        )]
        let DispatchDevice::Cube(cube) = device.as_dispatch() else {
            return None;
        };
        let n_bytes = n_words.iter().map(|&n_words| aligned_bytes(n_words)).sum();
        let all = empty_persistent(n_bytes, cube);
        let mut start = 0;
        let part = |&n_words: &usize| {
            let end = start + n_words * 4;
            let handle = (all.clone())
                .offset_start(start as u64)
                .offset_end((n_bytes - end) as u64);
            start += aligned_bytes(n_words);
            Self {
                handle,
                n_words,
                device: cube.clone(),
            }
        };
        Some(n_words.iter().map(part).collect())
    }

    /// Writes `words` from word `first` on. Kernels that are launched later see them.
    pub(crate) fn write(&mut self, first: usize, words: &[u32]) {
        let after = self.n_words - first - words.len();
        let part = (self.handle.clone())
            .offset_start(first as u64 * 4)
            .offset_end(after as u64 * 4);
        let bytes = Bytes::from_elems(words.to_vec());
        self.device.client().write(&part, bytes);
    }

    pub(crate) fn into_tensor(self) -> Tensor<1, Int> {
        let Self {
            handle,
            n_words,
            device,
        } = self;
        let shape = Shape::new([n_words]);
        Tensor::from_primitive::<CubeBackend>(CubeTensor::new_contiguous(
            device.client(),
            device,
            shape,
            handle,
            DType::U32,
        ))
    }
}
