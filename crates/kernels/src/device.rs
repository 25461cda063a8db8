//! Buffers on either device, and what the device says about its memory.

use burn::backend::DispatchDevice;
use burn::tensor::{Bytes, DType, Device, Int, Shape, Tensor};
use burn_cubecl::{CubeBackend, CubeDevice, tensor::CubeTensor};
use burn_flex::{Flex, FlexTensor, Layout};
use cubecl::server::Handle;

use crate::KernelError;

/// How long a buffer lives, which decides the memory pool of a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lifetime {
    /// Weights and caches: a buffer of exactly this size, which stays until [`memory_cleanup`] finds it unused.
    Persistent,
    /// Inputs of one step: pooled.
    Step,
}

/// The largest buffer that a kernel on `device` can bind, in bytes.
pub fn max_buffer_bytes(device: &Device) -> u64 {
    match device.as_dispatch() {
        DispatchDevice::Cube(cube) => cube.client().properties().memory.max_page_size,
        DispatchDevice::Flex(_) => isize::MAX as u64,
    }
}

/// Fails when `n_bytes` is more than the device can bind.
pub(crate) fn check_buffer(n_bytes: u64, device: &Device) -> Result<(), KernelError> {
    let max_bytes = max_buffer_bytes(device);
    if n_bytes > max_bytes {
        return Err(KernelError::BufferTooLarge { n_bytes, max_bytes });
    }
    Ok(())
}

/// Gives buffers that nothing refers to any more back to the system. On a GPU, freed weights and caches stay reserved until this
/// is called; on the CPU it does nothing.
pub fn memory_cleanup(device: &Device) {
    device.memory_cleanup();
}

/// Bytes of GPU buffers in use, or `None` on the CPU, whose memory is the process's own.
pub fn gpu_bytes_in_use(device: &Device) -> Option<u64> {
    device.memory_pool_usage().map(|usage| usage.bytes_in_use)
}

/// Bytes of GPU buffers held, in use or kept for reuse, or `None` on the CPU.
pub fn gpu_bytes_reserved(device: &Device) -> Option<u64> {
    device.memory_pool_usage().map(|usage| usage.bytes_reserved)
}

/// A vector of weights such as those of a norm or a bias, `[values.len()]`, in persistent memory.
///
/// # Errors
/// [`KernelError::BufferTooLarge`].
pub fn weight_vector(values: Vec<f32>, device: &Device) -> Result<Tensor<1>, KernelError> {
    check_buffer(values.len() as u64 * 4, device)?;
    let n_values = values.len();
    let bytes = Bytes::from_elems(values);
    Ok(match device.as_dispatch() {
        DispatchDevice::Cube(cube) => Tensor::from_primitive::<CubeBackend>(upload(
            bytes,
            n_values,
            DType::F32,
            Lifetime::Persistent,
            cube,
        )),
        DispatchDevice::Flex(_) => Tensor::from_primitive::<Flex>(FlexTensor::new(
            bytes,
            Layout::contiguous(Shape::new([n_values])),
            DType::F32,
        )),
    })
}

/// A tensor of `u32` words, without conversion or, on the CPU, copy.
pub(crate) fn words_tensor(words: Vec<u32>, lifetime: Lifetime, device: &Device) -> Tensor<1, Int> {
    let n_words = words.len();
    let bytes = Bytes::from_elems(words);
    match device.as_dispatch() {
        DispatchDevice::Cube(cube) => Tensor::from_primitive::<CubeBackend>(upload(
            bytes,
            n_words,
            DType::U32,
            lifetime,
            cube,
        )),
        DispatchDevice::Flex(_) => Tensor::from_primitive::<Flex>(FlexTensor::new(
            bytes,
            Layout::contiguous(Shape::new([n_words])),
            DType::U32,
        )),
    }
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
    pub(crate) fn write(&self, first: usize, words: &[u32]) {
        let after = self.n_words - first - words.len();
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

/// Bytes from the start of one [`WordBuffer`] to that of the next: WebGPU promises that bindings may start at multiples of 256 bytes.
pub(crate) const fn aligned_bytes(n_words: usize) -> usize {
    (n_words * 4).next_multiple_of(256)
}

fn empty_persistent(n_bytes: usize, device: &CubeDevice) -> Handle {
    let client = device.client();
    client.memory_persistent_allocation((), |()| client.empty(n_bytes))
}

/// A tensor of f32 in persistent memory, whose contents are unspecified.
pub(crate) fn empty_floats(n_values: usize, device: &Device) -> Tensor<1> {
    let shape = Shape::new([n_values]);
    match device.as_dispatch() {
        DispatchDevice::Cube(cube) => {
            let handle = empty_persistent(n_values * 4, cube);
            Tensor::from_primitive::<CubeBackend>(CubeTensor::new_contiguous(
                cube.client(),
                cube.clone(),
                shape,
                handle,
                DType::F32,
            ))
        }
        DispatchDevice::Flex(_) => {
            Tensor::from_primitive::<Flex>(FlexTensor::empty(shape, DType::F32))
        }
    }
}

fn upload(
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
