//! For tests, here and in other crates: tiny GGUF files, sound or broken on purpose, and sources that are strict or that fail.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::{BlockType, ByteSource, MemorySource, SourceError};

/// Drives a future that never has to wait, as those over [`MemorySource`].
///
/// # Panics
/// The future is pending.
pub fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits for something"),
    }
}

/// Writes a GGUF file. Every field is open, and nothing is checked, so that each kind of malformed file can be made.
#[derive(Clone, Debug)]
pub struct GgufBuilder {
    /// Four bytes that start the file.
    pub magic: [u8; 4],
    /// The version behind them.
    pub version: u32,
    /// The number of tensors to claim instead of the true one.
    pub claimed_tensors: Option<u64>,
    /// The number of metadata keys to claim instead of the true one.
    pub claimed_keys: Option<u64>,
    /// Metadata in order: encoded key (without length), type identifier, encoded value.
    pub keys: Vec<(Vec<u8>, u32, Vec<u8>)>,
    /// Tensors in order.
    pub tensors: Vec<TensorSpec>,
    /// What data is padded to. It is written to the metadata only by [`GgufBuilder::key`].
    pub alignment: usize,
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// Its name, which need not be UTF-8.
    pub name: Vec<u8>,
    /// Its shape, the contiguous dimension first.
    pub shape: Vec<u64>,
    /// Its `ggml_type` identifier.
    pub type_id: u32,
    /// The offset in the data section to claim instead of the true one.
    pub claimed_offset: Option<u64>,
    /// Its data.
    pub data: Vec<u8>,
}

impl Default for GgufBuilder {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            claimed_tensors: None,
            claimed_keys: None,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
        }
    }
}

impl GgufBuilder {
    /// An empty file of version 3.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata value.
    #[must_use]
    pub fn key(self, key: &str, value: impl Encode) -> Self {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        self.raw_key(key.as_bytes(), value.type_id(), bytes)
    }

    /// Adds a metadata value that may be nonsense.
    #[must_use]
    pub fn raw_key(mut self, key: &[u8], type_id: u32, value: Vec<u8>) -> Self {
        self.keys.push((key.to_vec(), type_id, value));
        self
    }

    /// Adds a tensor; `shape` has the contiguous dimension first.
    #[must_use]
    pub fn tensor(
        mut self,
        name: &str,
        shape: &[u64],
        block_type: BlockType,
        data: Vec<u8>,
    ) -> Self {
        self.tensors.push(TensorSpec {
            name: name.as_bytes().to_vec(),
            shape: shape.to_vec(),
            type_id: block_type.ggml_id(),
            claimed_offset: None,
            data,
        });
        self
    }

    /// Adds a tensor of single-precision floats.
    #[must_use]
    pub fn f32_tensor(self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        let data = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.tensor(name, shape, BlockType::F32, data)
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let mut out = Vec::from(self.magic);
        out.extend(self.version.to_le_bytes());
        let n_tensors = self.claimed_tensors.unwrap_or(self.tensors.len() as u64);
        out.extend(n_tensors.to_le_bytes());
        let n_keys = self.claimed_keys.unwrap_or(self.keys.len() as u64);
        out.extend(n_keys.to_le_bytes());
        for (key, type_id, value) in &self.keys {
            encode_bytes(key, &mut out);
            out.extend(type_id.to_le_bytes());
            out.extend(value);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            encode_bytes(&tensor.name, &mut out);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            out.extend(tensor.shape.iter().flat_map(|n| n.to_le_bytes()));
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(tensor.claimed_offset.unwrap_or(offset).to_le_bytes());
            offset += tensor.data.len().next_multiple_of(self.alignment) as u64;
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.data);
        }
        out
    }
}

/// A value that GGUF metadata can hold.
pub trait Encode {
    /// Its `gguf_metadata_value_type`.
    fn type_id(&self) -> u32;
    /// Appends its encoding.
    fn encode(&self, out: &mut Vec<u8>);
}

macro_rules! encode_numbers {
    ($($number:ty = $id:literal),*) => {$(
        impl Encode for $number {
            fn type_id(&self) -> u32 {
                $id
            }

            fn encode(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
        }
    )*};
}

encode_numbers!(
    u8 = 0,
    i8 = 1,
    u16 = 2,
    i16 = 3,
    u32 = 4,
    i32 = 5,
    f32 = 6,
    u64 = 10,
    i64 = 11,
    f64 = 12
);

impl Encode for bool {
    fn type_id(&self) -> u32 {
        7
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Encode for &str {
    fn type_id(&self) -> u32 {
        8
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), out);
    }
}

/// Arrays must not be empty: the first element names the type.
impl<T: Encode> Encode for Vec<T> {
    fn type_id(&self) -> u32 {
        9
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let type_id = self.first().map_or(0, Encode::type_id);
        out.extend(type_id.to_le_bytes());
        out.extend((self.len() as u64).to_le_bytes());
        for element in self {
            element.encode(out);
        }
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

/// A source like a network stream: it refuses to go back, and may not know its length.
#[derive(Clone, Debug)]
pub struct ForwardSource {
    inner: MemorySource,
    knows_length: bool,
    /// Where the next read may start.
    position: u64,
}

impl ForwardSource {
    /// A stream of `bytes`.
    pub fn new(bytes: Vec<u8>, knows_length: bool) -> Self {
        Self {
            inner: MemorySource::new(bytes),
            knows_length,
            position: 0,
        }
    }
}

impl ByteSource for ForwardSource {
    fn len(&self) -> Option<u64> {
        self.inner.len().filter(|_| self.knows_length)
    }

    async fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        if offset < self.position {
            let message = format!("read at {offset} after {}", self.position);
            return Err(SourceError::Io { message });
        }
        self.position = offset + out.len() as u64;
        self.inner.read(offset, out).await
    }
}

/// A source that fails once `n_bytes` have been read, for cancelled and broken loads.
#[derive(Clone, Debug)]
pub struct FailingSource {
    /// The bytes before the failure.
    pub inner: MemorySource,
    /// Bytes that may still be read.
    pub n_bytes: u64,
    /// What happens then.
    pub error: SourceError,
}

impl ByteSource for FailingSource {
    fn len(&self) -> Option<u64> {
        self.inner.len()
    }

    async fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        self.n_bytes = self
            .n_bytes
            .checked_sub(out.len() as u64)
            .ok_or_else(|| self.error.clone())?;
        self.inner.read(offset, out).await
    }
}
