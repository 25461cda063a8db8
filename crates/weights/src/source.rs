//! Where the bytes of a model come from.

use thiserror::Error;

/// Why bytes could not be had.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SourceError {
    /// The network, the disk or the browser failed.
    #[error("reading the model failed: {message}")]
    Io {
        /// What the platform said.
        message: String,
    },
    /// The bytes end before the range that was asked for.
    #[error("{wanted} bytes wanted at {offset}, but there are only {len}")]
    Truncated {
        /// Start of the range.
        offset: u64,
        /// Length of the range.
        wanted: u64,
        /// Bytes that there are in all.
        len: u64,
    },
    /// The caller called the load off.
    #[error("reading the model was cancelled")]
    Cancelled,
}

/// A model file as bytes to be read once, from front to back.
///
/// Readers in this crate ask for strictly ascending ranges that do not overlap, though there may be gaps between them. A
/// forward-only stream, such as a network response, serves as well as a file; skipping a gap is the source's business, and so is
/// buffering, where a read costs much.
#[allow(
    async_fn_in_trait,
    reason = "everything runs on one thread, so no caller needs the futures to be Send"
)]
#[allow(
    clippy::len_without_is_empty,
    reason = "the length may be unknown, so emptiness may be as well"
)]
pub trait ByteSource {
    /// Bytes in all, where this is known. Claims in the file are held against it before they are believed.
    fn len(&self) -> Option<u64>;

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// The range is not there in full, it cannot be read, or the load was called off.
    async fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), SourceError>;
}

/// Bytes that are all in memory.
#[derive(Clone, Debug)]
pub struct MemorySource {
    bytes: Vec<u8>,
}

impl MemorySource {
    /// A source over `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
}

impl ByteSource for MemorySource {
    fn len(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    async fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let truncated = SourceError::Truncated {
            offset,
            wanted: out.len() as u64,
            len: self.bytes.len() as u64,
        };
        let range = usize::try_from(offset)
            .ok()
            .and_then(|start| self.bytes.get(start..start.checked_add(out.len())?))
            .ok_or(truncated)?;
        out.copy_from_slice(range);
        Ok(())
    }
}
