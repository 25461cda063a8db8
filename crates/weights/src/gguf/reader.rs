//! Reading a file: the header first, then tensor after tensor.

use super::cursor::Cursor;
use super::{GgufError, GgufHeader, Metadata, TensorInfo};
use crate::codec::decode_blocks;
use crate::{ByteSource, Interleave, PackError, PackedTensor, Packer};

/// The most bytes of a tensor that are read at a time.
pub const PIECE_BYTES: usize = 1 << 18;

/// A GGUF file being read from front to back.
#[derive(Debug)]
pub struct GgufReader<S> {
    cursor: Cursor<S>,
    header: GgufHeader,
    next_tensor: usize,
    piece: Vec<u8>,
}

impl<S: ByteSource> GgufReader<S> {
    /// Reads the header.
    ///
    /// # Errors
    /// The file is malformed or beyond what is supported, or its bytes cannot be had.
    pub async fn open(source: S) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(source);
        let header = GgufHeader::read(&mut cursor).await?;
        Ok(Self::with_header(cursor, header))
    }

    /// A reader of the data that `header` describes, from a cursor that stands before it.
    pub(super) fn with_header(cursor: Cursor<S>, header: GgufHeader) -> Self {
        Self {
            cursor,
            header,
            next_tensor: 0,
            piece: Vec::new(),
        }
    }

    /// The file's header.
    pub fn header(&self) -> &GgufHeader {
        &self.header
    }

    /// The metadata, for whoever needs some of it to themselves.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.header.metadata
    }

    /// The next tensor in the order of the data, or `None` after the last. One that is dropped unread is skipped.
    pub fn next_tensor(&mut self) -> Option<TensorStream<'_, S>> {
        let info = self.header.tensors.get(self.next_tensor)?;
        self.next_tensor += 1;
        self.cursor.advance_to(info.offset);
        Some(TensorStream {
            cursor: &mut self.cursor,
            piece: &mut self.piece,
            info,
            left_bytes: info.n_bytes,
        })
    }

    /// Gives the source back, which may have been read further than the data that was handed out.
    pub fn into_source(self) -> S {
        self.cursor.into_source()
    }
}

/// The data of one tensor, as it arrives.
#[derive(Debug)]
pub struct TensorStream<'a, S> {
    cursor: &'a mut Cursor<S>,
    piece: &'a mut Vec<u8>,
    info: &'a TensorInfo,
    left_bytes: u64,
}

impl<'a, S: ByteSource> TensorStream<'a, S> {
    /// Which tensor this is.
    pub fn info(&self) -> &'a TensorInfo {
        self.info
    }

    /// Its next bytes, at most [`PIECE_BYTES`], or `None` after the last.
    ///
    /// # Errors
    /// The bytes cannot be had.
    pub async fn next_piece(&mut self) -> Result<Option<&[u8]>, GgufError> {
        let n_bytes = self.left_bytes.min(PIECE_BYTES as u64);
        if n_bytes == 0 {
            return Ok(None);
        }
        self.piece.resize(n_bytes as usize, 0);
        self.cursor.read(self.piece).await?;
        self.left_bytes -= n_bytes;
        Ok(Some(self.piece))
    }

    /// Reads the tensor into its packed form.
    ///
    /// # Errors
    /// The tensor is too large for the layout or for memory, or its bytes cannot be had.
    pub async fn pack(mut self, interleave: Interleave) -> Result<PackedTensor, GgufError> {
        let info = self.info;
        let failed = |source| GgufError::Pack {
            tensor: info.name.clone(),
            source,
        };
        let layout = info.packed_layout(interleave).map_err(failed)?;
        let mut packer = Packer::new(layout).map_err(failed)?;
        while let Some(bytes) = self.next_piece().await? {
            packer.push(bytes).map_err(failed)?;
        }
        packer.finish().map_err(failed)
    }

    /// Reads the tensor as plain floats in the order of the file, for the small ones that are used so: norms, biases, factors.
    ///
    /// # Errors
    /// The tensor is too large for memory, or its bytes cannot be had.
    pub async fn read_f32(mut self) -> Result<Vec<f32>, GgufError> {
        let (info, block_type) = (self.info, self.info.block_type);
        let mut values = Vec::new();
        // Pieces need not end with a block: what is left over waits here for the next.
        let mut blocks: Vec<u8> = Vec::new();
        while let Some(bytes) = self.next_piece().await? {
            blocks.extend_from_slice(bytes);
            let n_blocks = blocks.len() / block_type.block_bytes();
            let (start, n_values) = (values.len(), n_blocks * block_type.block_len());
            values.try_reserve(n_values).map_err(|_| GgufError::Pack {
                tensor: info.name.clone(),
                source: PackError::OutOfMemory {
                    n_bytes: info
                        .n_cols()
                        .saturating_mul(info.n_rows())
                        .saturating_mul(4),
                },
            })?;
            values.resize(start + n_values, 0.0);
            let whole = n_blocks * block_type.block_bytes();
            decode_blocks(block_type, &blocks[..whole], &mut values[start..]);
            blocks.drain(..whole);
        }
        Ok(values)
    }
}
