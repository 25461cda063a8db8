//! Small reads over a [`ByteSource`], gathered into larger ones.

use super::GgufError;
use crate::ByteSource;

/// Bytes read at a time, where the file is known to have them.
const BUFFER_BYTES: usize = 64 * 1024;

/// A position in a file that only moves forward. Every byte is asked of the source at most once.
#[derive(Debug)]
pub(super) struct Cursor<S> {
    source: S,
    /// The source's length, asked once: for some sources the question leaves the wasm module.
    len: Option<u64>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that have been handed out.
    used: usize,
    /// File offset of the next byte to be handed out.
    position: u64,
}

impl<S: ByteSource> Cursor<S> {
    pub(super) fn new(source: S) -> Self {
        Self {
            len: source.len(),
            source,
            buffer: Vec::new(),
            used: 0,
            position: 0,
        }
    }

    pub(super) fn into_source(self) -> S {
        self.source
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn len(&self) -> Option<u64> {
        self.len
    }

    /// Fails, without reading, if the file is known to have fewer than `wanted` bytes left.
    pub(super) fn expect(&self, wanted: u64) -> Result<(), GgufError> {
        match self.len {
            Some(len) if wanted > len.saturating_sub(self.position) => Err(GgufError::Truncated {
                offset: self.position,
                wanted,
                len,
            }),
            _ => Ok(()),
        }
    }

    /// Moves on to `position`, which must not lie behind.
    pub(super) fn advance_to(&mut self, position: u64) {
        debug_assert!(position >= self.position, "the cursor only moves forward");
        let ahead = position.saturating_sub(self.position);
        let buffered = self.buffer.len() - self.used;
        self.used += usize::try_from(ahead).map_or(buffered, |ahead| ahead.min(buffered));
        self.position = position;
    }

    /// Fills `out` with the next bytes.
    pub(super) async fn read(&mut self, out: &mut [u8]) -> Result<(), GgufError> {
        self.expect(out.len() as u64)?;
        let buffered = (self.buffer.len() - self.used).min(out.len());
        let (head, rest) = out.split_at_mut(buffered);
        head.copy_from_slice(&self.buffer[self.used..self.used + buffered]);
        self.used += buffered;
        self.position += buffered as u64;
        if rest.len() >= BUFFER_BYTES {
            self.source.read(self.position, rest).await?;
            self.position += rest.len() as u64;
        } else if !rest.is_empty() {
            self.fill(rest.len()).await?;
            rest.copy_from_slice(&self.buffer[..rest.len()]);
            self.used = rest.len();
            self.position += rest.len() as u64;
        }
        Ok(())
    }

    /// Reads the next `wanted` bytes into the empty buffer, and more if the file is known to have more.
    async fn fill(&mut self, wanted: usize) -> Result<(), GgufError> {
        let left = self.len.map_or(0, |len| len.saturating_sub(self.position));
        let n_bytes = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .clamp(wanted, BUFFER_BYTES);
        // Out of `self` for the time of the read: where that fails or is dropped, no half-filled buffer stays behind.
        let mut buffer = std::mem::take(&mut self.buffer);
        self.used = 0;
        buffer.clear();
        buffer.resize(n_bytes, 0);
        self.source.read(self.position, &mut buffer).await?;
        self.buffer = buffer;
        Ok(())
    }

    pub(super) async fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.read(&mut bytes).await?;
        Ok(bytes)
    }

    pub(super) async fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array().await?))
    }

    pub(super) async fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array().await?))
    }

    /// The next `n_bytes` bytes. The buffer grows as they arrive, not by what the file claims.
    pub(super) async fn bytes(&mut self, n_bytes: u64) -> Result<Vec<u8>, GgufError> {
        self.expect(n_bytes)?;
        let mut bytes = Vec::new();
        let mut left = n_bytes;
        while left > 0 {
            let start = bytes.len();
            let step = left.min(BUFFER_BYTES as u64);
            bytes.resize(start + step as usize, 0);
            self.read(&mut bytes[start..]).await?;
            left -= step;
        }
        Ok(bytes)
    }

    /// A string of at most `max` bytes behind its length.
    pub(super) async fn string(&mut self, max: u64) -> Result<String, GgufError> {
        let n_bytes = self.u64().await?;
        let offset = self.position;
        if n_bytes > max {
            return Err(GgufError::StringTooLong {
                offset,
                n_bytes,
                max,
            });
        }
        let bytes = self.bytes(n_bytes).await?;
        String::from_utf8(bytes).map_err(|_| GgufError::InvalidUtf8 { offset })
    }
}
