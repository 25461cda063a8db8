//! Buffers on either kind of device, and what the device says about its memory.
//!
//! The kinds that are built in are chosen by the features `webgpu` and `cpu`; this file and its neighbours are where that shows.

#[cfg(feature = "cpu")]
mod cpu;
#[cfg(not(feature = "cpu"))]
#[path = "device/no_cpu.rs"]
mod cpu;
#[cfg(feature = "webgpu")]
mod gpu;
#[cfg(not(feature = "webgpu"))]
#[path = "device/no_gpu.rs"]
mod gpu;

use burn::backend::{DispatchDevice, ExecutionError};
use burn::tensor::{Bytes, DType, Device, Int, Tensor};

use crate::KernelError;
pub(crate) use cpu::Tape;
pub(crate) use gpu::{Graph, Recorder, WordBuffer, read_now};

/// How long a buffer lives, which decides the memory pool of a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lifetime {
    /// Weights and caches: a buffer of exactly this size, which stays until [`memory_cleanup`] finds it unused.
    Persistent,
    /// Inputs of one step: pooled.
    Step,
}

/// Whether `device` is the CPU.
pub(crate) fn is_cpu(device: &Device) -> bool {
    match device.as_dispatch() {
        #[cfg(feature = "webgpu")]
        DispatchDevice::Cube(_) => false,
        #[cfg(feature = "cpu")]
        DispatchDevice::Flex(_) => true,
    }
}

/// The largest buffer that a kernel on `device` can bind, in bytes.
pub fn max_buffer_bytes(device: &Device) -> u64 {
    match device.as_dispatch() {
        #[cfg(feature = "webgpu")]
        DispatchDevice::Cube(cube) => gpu::max_buffer_bytes(cube),
        #[cfg(feature = "cpu")]
        DispatchDevice::Flex(_) => isize::MAX as u64,
    }
}

/// Most invocations of a workgroup; no limit on the CPU.
pub(crate) fn max_units(device: &Device) -> usize {
    match device.as_dispatch() {
        #[cfg(feature = "webgpu")]
        DispatchDevice::Cube(cube) => gpu::max_units(cube),
        #[cfg(feature = "cpu")]
        DispatchDevice::Flex(_) => usize::MAX,
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
        #[cfg(feature = "webgpu")]
        DispatchDevice::Cube(cube) => Tensor::from_primitive::<burn_cubecl::CubeBackend>(
            gpu::upload(bytes, n_values, DType::F32, Lifetime::Persistent, cube),
        ),
        #[cfg(feature = "cpu")]
        DispatchDevice::Flex(_) => {
            Tensor::from_primitive::<burn_flex::Flex>(cpu::hold(bytes, n_values, DType::F32))
        }
    })
}

/// A tensor of `u32` words, without conversion or, on the CPU, copy.
pub(crate) fn words_tensor(words: Vec<u32>, lifetime: Lifetime, device: &Device) -> Tensor<1, Int> {
    let n_words = words.len();
    let bytes = Bytes::from_elems(words);
    match device.as_dispatch() {
        #[cfg(feature = "webgpu")]
        DispatchDevice::Cube(cube) => Tensor::from_primitive::<burn_cubecl::CubeBackend>(
            gpu::upload(bytes, n_words, DType::U32, lifetime, cube),
        ),
        #[cfg(feature = "cpu")]
        DispatchDevice::Flex(_) => {
            // Host memory has one pool.
            let _ = lifetime;
            Tensor::from_primitive::<burn_flex::Flex>(cpu::hold(bytes, n_words, DType::U32))
        }
    }
}

/// A tensor of f32 in persistent memory, whose contents are unspecified.
pub(crate) fn empty_floats(n_values: usize, device: &Device) -> Tensor<1> {
    match device.as_dispatch() {
        #[cfg(feature = "webgpu")]
        DispatchDevice::Cube(cube) => {
            Tensor::from_primitive::<burn_cubecl::CubeBackend>(gpu::empty_floats(n_values, cube))
        }
        #[cfg(feature = "cpu")]
        DispatchDevice::Flex(_) => {
            Tensor::from_primitive::<burn_flex::Flex>(cpu::empty_floats(n_values))
        }
    }
}

/// Hands everything that was sent to the device so far, launches and uploads, to the system. Until then uploads wait in host memory for the
/// next kernel, and launches for a reading or for each other.
///
/// # Errors
/// The device is lost, or failed at what came before.
pub fn submit(device: &Device) -> Result<(), ExecutionError> {
    match device.as_dispatch() {
        #[cfg(feature = "webgpu")]
        DispatchDevice::Cube(cube) => gpu::submit(cube),
        #[cfg(feature = "cpu")]
        DispatchDevice::Flex(_) => Ok(()),
    }
}

/// Waits until everything that was sent to the device so far has been done. Until then a browser keeps its own copy of each upload.
///
/// # Errors
/// The device is lost, or failed at what came before.
pub async fn finish_uploads(device: &Device) -> Result<(), ExecutionError> {
    match device.as_dispatch() {
        #[cfg(feature = "webgpu")]
        DispatchDevice::Cube(cube) => gpu::finish_uploads(cube).await,
        #[cfg(feature = "cpu")]
        DispatchDevice::Flex(_) => Ok(()),
    }
}

/// Bytes from the start of one [`WordBuffer`] to that of the next: WebGPU promises that bindings may start at multiples of 256 bytes.
pub(crate) const fn aligned_bytes(n_words: usize) -> usize {
    (n_words * 4).next_multiple_of(256)
}
