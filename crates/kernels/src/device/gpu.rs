//! Tensors and buffers in a GPU's memory.

use burn::backend::{DispatchDevice, ExecutionError};
use burn::tensor::{Bytes, DType, Device, Int, Shape, Tensor, TensorData};
use burn_cubecl::{CubeBackend, CubeDevice, tensor::CubeTensor};
use cubecl::server::{CopyDescriptor, Handle, ServerError};

use super::{Lifetime, aligned_bytes};

/// The largest buffer that a kernel can bind, in bytes.
pub(super) fn max_buffer_bytes(device: &CubeDevice) -> u64 {
    device.client().properties().memory.max_page_size
}

/// Most invocations of a workgroup.
pub(super) fn max_units(device: &CubeDevice) -> usize {
    device.client().properties().hardware.max_units_per_cube as usize
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

/// See [`submit`](super::submit).
pub(super) fn submit(device: &CubeDevice) -> Result<(), ExecutionError> {
    device.client().flush().map_err(execution_error)
}

/// See [`finish_uploads`](super::finish_uploads).
pub(super) async fn finish_uploads(device: &CubeDevice) -> Result<(), ExecutionError> {
    device.client().sync().await.map_err(execution_error)
}

/// Reads a tensor's values as they are when it is first polled; `None` when the device is no GPU.
pub(crate) fn read_now<const D: usize>(
    tensor: Tensor<D>,
) -> Option<impl Future<Output = Result<TensorData, ExecutionError>>> {
    let tensor = tensor.try_into_primitive::<CubeBackend>().ok()?;
    let (shape, strides) = (tensor.meta.shape().clone(), tensor.meta.strides().clone());
    let (elem_size, dtype) = (tensor.elem_size(), tensor.dtype);
    Some(async move {
        let CubeTensor { client, handle, .. } = tensor;
        let source = CopyDescriptor::new(handle.binding(), shape.clone(), strides, elem_size);
        let read = client.read_one_tensor_async(source).await;
        let bytes = read.map_err(execution_error)?;
        Ok(TensorData::from_bytes(bytes, shape, dtype))
    })
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
    ///
    /// # Panics
    /// They do not fit.
    pub(crate) fn write(&self, first: usize, words: &[u32]) {
        let after = self.n_words.checked_sub(first + words.len());
        let after = after.expect("room for the words");
        let part = (self.handle.clone())
            .offset_start(first as u64 * 4)
            .offset_end(after as u64 * 4);
        let bytes = Bytes::from_elems(words.to_vec());
        self.device.client().write(&part, bytes);
    }

    /// The buffer as a tensor, which sees what is written later.
    pub(crate) fn tensor(&self) -> Tensor<1, Int> {
        Tensor::from_primitive::<CubeBackend>(CubeTensor::new_contiguous(
            self.device.client(),
            self.device.clone(),
            Shape::new([self.n_words]),
            self.handle.clone(),
            DType::U32,
        ))
    }
}

/// Has a GPU's launches recorded.
pub(crate) struct Recorder(cubecl::client::Client);

/// Recorded launches.
#[derive(Debug)]
pub(crate) struct Graph(cubecl::client::Graph);

impl Recorder {
    /// `None` when the device is no GPU.
    pub(crate) fn on_gpu(device: &Device) -> Option<Self> {
        #[allow(
            irrefutable_let_patterns,
            reason = "without the CPU there is no other device"
        )]
        let DispatchDevice::Cube(cube) = device.as_dispatch() else {
            return None;
        };
        Some(Self(cube.client()))
    }

    /// Makes ready: what is launched from here on is still run.
    pub(crate) fn prepare(&self) -> Result<(), ExecutionError> {
        self.0.graph_prepare().map_err(execution_error)
    }

    /// From here on launches are recorded, and not run.
    pub(crate) fn start(&self) -> Result<(), ExecutionError> {
        self.0.start_capture().map_err(|error| {
            // Undoes what was prepared; that there is nothing to stop is no news.
            let _ = self.0.stop_capture();
            execution_error(error)
        })
    }

    /// What was recorded.
    pub(crate) fn stop(self) -> Result<Graph, ExecutionError> {
        self.0.stop_capture().map(Graph).map_err(execution_error)
    }
}

impl Graph {
    /// Runs the launches.
    ///
    /// # Safety
    /// As [`Recording::replay`](crate::Recording::replay).
    pub(crate) unsafe fn replay(&self) -> Result<(), ExecutionError> {
        // SAFETY: the caller's.
        unsafe { self.0.replay() }.map_err(execution_error)
    }
}
