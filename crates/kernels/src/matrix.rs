//! Packed weight matrices on a device.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::{Device, Int, Tensor};
use cinderlm_weights::packed::BLOCK;
use cinderlm_weights::{Interleave, PackedLayout, PackedTensor};

use crate::KernelError;
use crate::cpu::has_normal_scales;
use crate::device::{Lifetime, check_buffer, is_cpu, words_tensor};

/// A weight matrix `[n_rows (outputs), n_cols (inputs)]` that stays packed on its device.
///
/// It is a module without parameters: burn neither trains nor records it, and reading weights is the loader's business.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    pub(crate) words: Tensor<1, Int>,
    pub(crate) layout: PackedLayout,
    /// See [`cpu::has_normal_scales`](crate::cpu::has_normal_scales); on a GPU nothing is known.
    pub(crate) has_normal_scales: bool,
}

impl PackedMatrix {
    /// The order of rows that the kernels of `device` read.
    pub fn interleave_for(device: &Device) -> Interleave {
        if is_cpu(device) {
            Interleave::Rows
        } else {
            Interleave::Tiles32
        }
    }

    /// Whether a matrix of this layout fits the device. Cheap: to be asked before the weights are read.
    ///
    /// # Errors
    /// [`KernelError::PartialBlock`], [`KernelError::WrongInterleave`], [`KernelError::BufferTooLarge`].
    pub fn check(layout: &PackedLayout, device: &Device) -> Result<(), KernelError> {
        if !layout.n_cols.is_multiple_of(BLOCK) {
            return Err(KernelError::PartialBlock {
                n_cols: layout.n_cols,
            });
        }
        let expected = Self::interleave_for(device);
        if layout.interleave != expected {
            return Err(KernelError::WrongInterleave {
                expected,
                actual: layout.interleave,
            });
        }
        check_buffer(layout.n_words() as u64 * 4, device)
    }

    /// Moves a packed tensor to the device.
    ///
    /// # Errors
    /// As [`check`](Self::check), and [`KernelError::WordCount`].
    pub fn from_packed(tensor: PackedTensor, device: &Device) -> Result<Self, KernelError> {
        let PackedTensor { layout, words } = tensor;
        Self::check(&layout, device)?;
        let (expected, actual) = (layout.n_words(), words.len());
        if actual != expected {
            return Err(KernelError::WordCount { expected, actual });
        }
        Ok(Self {
            has_normal_scales: is_cpu(device) && has_normal_scales(&layout, &words),
            words: words_tensor(words, Lifetime::Persistent, device),
            layout,
        })
    }

    /// Outputs of a linear layer, or tokens of an embedding.
    pub fn n_rows(&self) -> usize {
        self.layout.n_rows
    }

    /// Inputs of a linear layer, or width of an embedding.
    pub fn n_cols(&self) -> usize {
        self.layout.n_cols
    }

    /// Bytes that the matrix takes on its device.
    pub fn n_bytes(&self) -> u64 {
        self.layout.n_words() as u64 * 4
    }

    /// Format, shape and order of the words.
    pub fn layout(&self) -> &PackedLayout {
        &self.layout
    }
}

/// Only moving between devices means anything for packed words; the rest of the trait is about trainable parameters.
impl Module for PackedMatrix {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.words.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.to_device(device)
    }

    /// # Panics
    /// Kernels of the other kind of device read another order of rows, so a matrix cannot move there: it is loaded again.
    fn to_device(self, device: &Device) -> Self {
        assert_eq!(
            self.layout.interleave,
            Self::interleave_for(device),
            "packed for another kind of device"
        );
        Self {
            words: self.words.to_device(device),
            ..self
        }
    }

    fn visit<V: ModuleVisitor>(&self, _visitor: &mut V) {}

    fn map<M: ModuleMapper>(self, _mapper: &mut M) -> Self {
        self
    }

    fn train(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn materialize(self) -> Self {
        self
    }
}

impl ModuleDisplayDefault for PackedMatrix {
    fn content(&self, content: Content) -> Option<Content> {
        let PackedLayout {
            format,
            n_rows,
            n_cols,
            ..
        } = self.layout;
        content
            .add_formatted(&format!("{} [{n_rows}, {n_cols}]", format.block_type))
            .optional()
    }
}

impl ModuleDisplay for PackedMatrix {}
