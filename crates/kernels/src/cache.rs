//! Keys and values of one layer, in blocks of tokens.

use burn::tensor::{Device, Tensor};

#[cfg(feature = "testing")]
use crate::device::weight_vector;
use crate::device::{Lifetime, check_buffer, empty_floats, words_tensor};
use crate::{KernelError, ops};

/// The shape of a layer's cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KvLayout {
    /// Tokens in a block.
    pub block_tokens: usize,
    /// Key-value heads of the layer.
    pub n_kv_heads: usize,
    /// Values of a head: a multiple of 4 up to 256.
    pub head_dim: usize,
}

impl KvLayout {
    /// Values that one token takes, for keys or for values.
    pub const fn width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Bytes of one block, keys and values together.
    pub const fn block_bytes(&self) -> u64 {
        2 * 4 * self.block_tokens as u64 * self.width() as u64
    }

    /// Checks that the kernels can address a cache of `n_blocks` blocks.
    fn check(&self, n_blocks: usize) -> Result<(), KernelError> {
        let Self {
            block_tokens,
            n_kv_heads,
            head_dim,
        } = *self;
        if head_dim == 0 || head_dim > MAX_HEAD_DIM || !head_dim.is_multiple_of(4) {
            return Err(KernelError::HeadDim { head_dim });
        }
        let n_values = [n_blocks, block_tokens, n_kv_heads, head_dim]
            .iter()
            .try_fold(1u32, |product, &n| {
                product.checked_mul(u32::try_from(n).ok()?)
            });
        if block_tokens == 0 || n_kv_heads == 0 || n_values.is_none() {
            return Err(KernelError::CacheShape {
                n_blocks,
                block_tokens,
                n_kv_heads,
            });
        }
        Ok(())
    }
}

/// The widest head that attention kernels take: each invocation keeps a whole head in registers.
pub const MAX_HEAD_DIM: usize = 256;

/// Keys and values of one layer: two tensors `[n_blocks, n_kv_heads, block_tokens, head_dim]` f32, flat: what attention reads of a head at neighbouring
/// positions lies together.
///
/// A token's *slot* is `block * block_tokens + offset`. Which blocks belong to which sequence is the owner's business; kernels read it
/// from each step's block tables. The tensors are written in place, which is sound because the cache is their only owner: it cannot be
/// cloned and lends them to kernels alone.
#[derive(Debug)]
pub struct KvCache {
    layout: KvLayout,
    n_blocks: usize,
    device: Device,
    /// Keys and values; `None` while there are no blocks.
    buffers: Option<Buffers>,
}

/// Keys and values of a cache that has blocks.
#[derive(Debug)]
pub(crate) struct Buffers {
    pub(crate) k: Tensor<1>,
    pub(crate) v: Tensor<1>,
}

impl KvCache {
    /// A cache of `n_blocks` blocks with unspecified contents. With 0 blocks it takes no memory until it grows.
    ///
    /// # Errors
    /// [`KernelError::HeadDim`], [`KernelError::CacheShape`], [`KernelError::BufferTooLarge`].
    pub fn new(layout: KvLayout, n_blocks: usize, device: &Device) -> Result<Self, KernelError> {
        layout.check(n_blocks)?;
        let mut cache = Self {
            layout,
            n_blocks: 0,
            device: device.clone(),
            buffers: None,
        };
        cache.grow(n_blocks)?;
        Ok(cache)
    }

    /// A cache with these contents, for tests.
    #[cfg(feature = "testing")]
    pub(crate) fn from_values(
        layout: KvLayout,
        k: &[f32],
        v: &[f32],
        device: &Device,
    ) -> Result<Self, KernelError> {
        let n_blocks = k.len() / (layout.block_tokens * layout.width());
        layout.check(n_blocks)?;
        let buffers = Buffers {
            k: weight_vector(k.to_vec(), device)?,
            v: weight_vector(v.to_vec(), device)?,
        };
        Ok(Self {
            layout,
            n_blocks,
            device: device.clone(),
            buffers: Some(buffers),
        })
    }

    /// Takes memory for `n_blocks` blocks in all; contents and block ids stay. For a moment old and new buffers exist side by side.
    /// A number no larger than the present one changes nothing.
    ///
    /// # Errors
    /// As [`new`](Self::new); the cache is then as it was.
    pub fn grow(&mut self, n_blocks: usize) -> Result<(), KernelError> {
        if n_blocks <= self.n_blocks {
            return Ok(());
        }
        self.layout.check(n_blocks)?;
        let n_values = n_blocks * self.layout.block_tokens * self.layout.width();
        check_buffer(n_values as u64 * 4, &self.device)?;
        let grown = |old: Option<Tensor<1>>| {
            let new = empty_floats(n_values, &self.device);
            match old {
                Some(old) => ops::copy_into(old, new),
                None => new,
            }
        };
        let (k, v) = self.buffers.take().map(|old| (old.k, old.v)).unzip();
        // Keys first, so that their old buffer is free before the values' new one is taken.
        let k = grown(k);
        let v = grown(v);
        self.buffers = Some(Buffers { k, v });
        self.n_blocks = n_blocks;
        Ok(())
    }

    /// Gives up all blocks and their contents.
    pub fn clear(&mut self) {
        self.buffers = None;
        self.n_blocks = 0;
    }

    /// Copies whole blocks within the cache, in keys and values: `(from, to)` pairs. No block may be the target of one pair and part of
    /// another.
    ///
    /// # Panics
    /// A block id is not below [`n_blocks`](Self::n_blocks).
    pub fn copy_blocks(&mut self, pairs: &[(u32, u32)]) {
        if pairs.is_empty() {
            return;
        }
        let n_blocks = self.n_blocks;
        assert!(
            pairs
                .iter()
                .all(|&(from, to)| (from.max(to) as usize) < n_blocks),
            "{pairs:?} in a cache of {n_blocks} blocks"
        );
        let words = pairs.iter().flat_map(|&(from, to)| [from, to]).collect();
        let pairs = words_tensor(words, Lifetime::Step, &self.device);
        let block_values = self.layout.block_tokens * self.layout.width();
        let buffers = self.take_buffers();
        self.put_buffers(ops::copy_blocks(buffers, pairs, block_values));
    }

    /// The shape of a block.
    pub fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// Blocks that memory is taken for.
    pub fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// Bytes of keys and values together.
    pub fn n_bytes(&self) -> u64 {
        self.n_blocks as u64 * self.layout.block_bytes()
    }

    /// Keys and values for reading.
    pub(crate) fn buffers(&self) -> &Buffers {
        self.buffers.as_ref().expect("the cache has blocks")
    }

    /// Takes keys and values out, so that a kernel is their only owner while it writes. [`put_buffers`](Self::put_buffers) follows.
    pub(crate) fn take_buffers(&mut self) -> Buffers {
        self.buffers.take().expect("the cache has blocks")
    }

    pub(crate) fn put_buffers(&mut self, buffers: Buffers) {
        self.buffers = Some(buffers);
    }
}
