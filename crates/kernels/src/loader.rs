//! From the blocks of a file, as they arrive, to packed matrices on a device.

use std::collections::VecDeque;
use std::ops::Range;

use burn::tensor::Device;
use cinderlm_weights::{PackError, PackedLayout, Packer, RunPacker};

use crate::device::{WordBuffer, aligned_bytes, check_buffer};
use crate::{KernelError, PackedMatrix};

/// Bytes of an allocation that small matrices share. Browsers round buffers below 4 MiB up to powers of two (Dawn's buddy allocator
/// does), which would cost a model of small layers half its size again.
const SHARED_BYTES: usize = 16 << 20;

/// Memory for the matrices of a model, in the order in which they will be loaded.
#[derive(Debug)]
pub struct WeightMemory {
    device: Device,
    left: VecDeque<PackedLayout>,
    /// Buffers of the allocation begun last.
    buffers: VecDeque<WordBuffer>,
}

impl WeightMemory {
    /// Plans memory for `layouts` on `device`; takes none yet.
    ///
    /// # Errors
    /// As [`PackedMatrix::check`].
    pub fn new(
        layouts: impl IntoIterator<Item = PackedLayout>,
        device: &Device,
    ) -> Result<Self, KernelError> {
        let left: VecDeque<_> = layouts.into_iter().collect();
        for layout in &left {
            PackedMatrix::check(layout, device)?;
        }
        Ok(Self {
            device: device.clone(),
            left,
            buffers: VecDeque::new(),
        })
    }

    /// Memory for the next matrix, ready to be filled.
    ///
    /// # Errors
    /// [`KernelError::Pack`]: there is no memory to pack it.
    ///
    /// # Panics
    /// Every matrix has been asked for.
    pub fn next_matrix(&mut self) -> Result<MatrixLoader, KernelError> {
        let layout = *self.left.front().expect("a matrix is left");
        if self.buffers.is_empty() {
            self.buffers = self.allocate();
        }
        self.left.pop_front();
        MatrixLoader::new(layout, self.buffers.pop_front(), &self.device)
    }

    /// Buffers for as many of the next matrices as share an allocation; none where matrices stay in host memory.
    fn allocate(&self) -> VecDeque<WordBuffer> {
        let mut n_bytes = 0;
        let mut n_words = Vec::new();
        for layout in &self.left {
            n_bytes += aligned_bytes(layout.n_words());
            if !n_words.is_empty()
                && (n_bytes > SHARED_BYTES || check_buffer(n_bytes as u64, &self.device).is_err())
            {
                break;
            }
            n_words.push(layout.n_words());
        }
        WordBuffer::on_gpu(&n_words, &self.device).map_or_else(VecDeque::new, VecDeque::from)
    }
}

/// Fills a matrix from the blocks of a file, as they arrive.
///
/// On a GPU each run of rows goes to the device's buffer as soon as it is packed, so that host memory never holds a whole matrix: a
/// module's memory does not shrink again, and a browser copies each upload more than once.
#[derive(Debug)]
pub struct MatrixLoader {
    layout: PackedLayout,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Host(Packer, Device),
    Gpu(RunPacker, WordBuffer),
}

impl MatrixLoader {
    fn new(
        layout: PackedLayout,
        buffer: Option<WordBuffer>,
        device: &Device,
    ) -> Result<Self, KernelError> {
        let target = match buffer {
            Some(buffer) => Target::Gpu(RunPacker::new(layout)?, buffer),
            None => Target::Host(Packer::new(layout)?, device.clone()),
        };
        Ok(Self { layout, target })
    }

    /// The bytes that follow are those of `rows`, of a matrix that is stacked from several of a file. As
    /// [`Packer::begin`](cinderlm_weights::Packer::begin).
    ///
    /// # Errors
    /// There is no memory to pack them.
    ///
    /// # Panics
    /// The part before is incomplete, there are no such rows, or they start inside a tile of rows.
    pub fn begin(&mut self, rows: Range<usize>) -> Result<(), PackError> {
        match &mut self.target {
            Target::Host(packer, _) => packer.begin(rows),
            Target::Gpu(packer, _) => packer.begin(rows)?,
        }
        Ok(())
    }

    /// Takes the next bytes of the matrix, or of the part that was begun, in the blocks of the file.
    ///
    /// # Errors
    /// They are more than the matrix holds, or there is no memory to pack them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        match &mut self.target {
            Target::Host(packer, _) => packer.push(bytes),
            Target::Gpu(packer, buffer) => {
                packer.push(bytes, |first, words| buffer.write(first, words))
            }
        }
    }

    /// The matrix, once every byte has been pushed.
    ///
    /// # Errors
    /// [`KernelError::Pack`]: bytes are missing.
    pub fn finish(self) -> Result<PackedMatrix, KernelError> {
        let Self { layout, target } = self;
        match target {
            Target::Host(packer, device) => PackedMatrix::from_packed(packer.finish()?, &device),
            Target::Gpu(packer, buffer) => {
                packer.finish()?;
                let words = buffer.tensor();
                Ok(PackedMatrix {
                    words,
                    layout,
                    has_normal_scales: false,
                })
            }
        }
    }
}
