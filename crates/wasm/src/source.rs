//! A model file that JavaScript hands over from front to back.

use cinderlm_weights::gguf::PartFiles;
use cinderlm_weights::{ByteSource, SourceError};
use js_sys::Uint8Array;
use sha2::{Digest, Sha256};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(typescript_custom_section)]
const SOURCE_TYPE: &str = r"
/** A model file, read once from front to back. */
export interface ForwardSource {
  /** Size of the file in bytes, where known. */
  readonly size: number | undefined;
  /** The next bytes, or undefined at the end. */
  next(): Promise<Uint8Array | undefined>;
  /** All of it was read, and this is its hexadecimal SHA-256. Rejecting ends the load. */
  end(sha256: string): Promise<void>;
}

/** The files of a model: one, or the parts that it was split into, in order. */
export interface ModelFiles {
  readonly count: number;
  /** Opens a part, to be read from its start. The one before is not read any more. A part may be opened twice. */
  open(part: number): Promise<ForwardSource>;
}
";

#[wasm_bindgen]
extern "C" {
    /// A [`ForwardSource`] of the TypeScript side.
    #[wasm_bindgen(typescript_type = "ForwardSource")]
    pub type ForwardSource;

    #[wasm_bindgen(method, getter, catch)]
    fn size(this: &ForwardSource) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn next(this: &ForwardSource) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn end(this: &ForwardSource, sha256: &str) -> Result<JsValue, JsValue>;

    /// A [`ModelFiles`] of the TypeScript side.
    #[wasm_bindgen(typescript_type = "ModelFiles")]
    pub type ModelFiles;

    #[wasm_bindgen(method, getter, catch)]
    fn count(this: &ModelFiles) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(method, catch)]
    async fn open(this: &ModelFiles, part: u32) -> Result<JsValue, JsValue>;
}

/// Parts that a model may have: as many as their names can tell.
const MAX_PARTS: f64 = 99_999.0;

/// The files of a model, and what is known of those that have been read.
pub(crate) struct HashedFiles {
    files: ModelFiles,
    n_parts: usize,
    pub(crate) whole: Vec<WholeFile>,
}

impl HashedFiles {
    /// The files that JavaScript hands over; `None` if it has none.
    pub(crate) fn new(files: ModelFiles) -> Option<Self> {
        let count = if files.is_object() {
            files.count().ok()?.as_f64()?
        } else {
            return None;
        };
        let is_count = count.fract() == 0.0 && (1.0..=MAX_PARTS).contains(&count);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be a small count"
        )]
        let n_parts = is_count.then_some(count as usize)?;
        Some(Self {
            files,
            n_parts,
            whole: Vec::new(),
        })
    }
}

impl PartFiles for HashedFiles {
    type Part = ForwardReader;

    fn n_parts(&self) -> usize {
        self.n_parts
    }

    async fn open(&mut self, part: usize) -> Result<ForwardReader, SourceError> {
        let part = u32::try_from(part).unwrap_or(u32::MAX);
        let source = self.files.open(part).await.map_err(source_error)?;
        if !source.is_object() {
            return Err(SourceError::Io {
                message: format!("expected a part of the model, got {source:?}"),
            });
        }
        Ok(ForwardReader::new(source.unchecked_into()))
    }

    async fn finish(&mut self, _part: usize, source: ForwardReader) -> Result<(), SourceError> {
        self.whole.push(source.finish().await?);
        Ok(())
    }
}

/// What is known of a file that was read to its end.
pub(crate) struct WholeFile {
    pub(crate) n_bytes: u64,
    /// Lower-case hexadecimal.
    pub(crate) sha256: String,
}

/// Reads a [`ForwardSource`] and hashes every byte that passes.
pub(crate) struct ForwardReader {
    source: ForwardSource,
    len: Option<u64>,
    /// The bytes that JavaScript handed over last, and how many of them were used.
    piece: Option<(Uint8Array, u32)>,
    offset: u64,
    hash: Sha256,
    scratch: Vec<u8>,
}

impl ForwardReader {
    pub(crate) fn new(source: ForwardSource) -> Self {
        let len = source.size().ok().and_then(|size| size.as_f64());
        Self {
            source,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a file size, checked to be one"
            )]
            len: len
                .filter(|len| len.is_finite() && *len >= 0.0)
                .map(|len| len as u64),
            piece: None,
            offset: 0,
            hash: Sha256::new(),
            scratch: Vec::new(),
        }
    }

    /// Reads what is left of the file, so that all of it is hashed, and tells JavaScript the hash.
    async fn finish(mut self) -> Result<WholeFile, SourceError> {
        while self.fill().await? {
            self.skip(u64::MAX);
        }
        let digest = self.hash.finalize();
        let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.source.end(&sha256).await.map_err(source_error)?;
        Ok(WholeFile {
            n_bytes: self.offset,
            sha256,
        })
    }

    /// Makes sure that there are bytes to use; false at the end of the file.
    async fn fill(&mut self) -> Result<bool, SourceError> {
        while self.piece.is_none() {
            let next = self.source.next().await.map_err(source_error)?;
            if next.is_undefined() || next.is_null() {
                return Ok(false);
            }
            let piece = next
                .dyn_into::<Uint8Array>()
                .map_err(|other| SourceError::Io {
                    message: format!("expected a Uint8Array, got {other:?}"),
                })?;
            if piece.length() > 0 {
                self.piece = Some((piece, 0));
            }
        }
        Ok(true)
    }

    /// Uses up to `max` of the bytes at hand without handing them on.
    fn skip(&mut self, max: u64) {
        let Some((piece, used)) = self.piece.take() else {
            return;
        };
        let left = piece.length() - used;
        let n = u32::try_from(max).unwrap_or(u32::MAX).min(left);
        self.scratch.resize(n as usize, 0);
        piece.subarray(used, used + n).copy_to(&mut self.scratch);
        self.hash.update(&self.scratch);
        self.advance(piece, used, n);
    }

    /// Copies up to `out.len()` of the bytes at hand; returns how many.
    fn take(&mut self, out: &mut [u8]) -> usize {
        let Some((piece, used)) = self.piece.take() else {
            return 0;
        };
        let left = piece.length() - used;
        let n = u32::try_from(out.len()).unwrap_or(u32::MAX).min(left);
        let out = &mut out[..n as usize];
        piece.subarray(used, used + n).copy_to(out);
        self.hash.update(&*out);
        self.advance(piece, used, n);
        n as usize
    }

    fn advance(&mut self, piece: Uint8Array, used: u32, n: u32) {
        self.offset += u64::from(n);
        if used + n < piece.length() {
            self.piece = Some((piece, used + n));
        }
    }
}

impl ByteSource for ForwardReader {
    fn len(&self) -> Option<u64> {
        self.len
    }

    async fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let wanted = out.len() as u64;
        let truncated = |len| SourceError::Truncated {
            offset,
            wanted,
            len,
        };
        let mut to_skip = offset
            .checked_sub(self.offset)
            .ok_or_else(|| SourceError::Io {
                message: format!("cannot go back from {} to {offset}", self.offset),
            })?;
        while to_skip > 0 {
            if !self.fill().await? {
                return Err(truncated(self.offset));
            }
            let before = self.offset;
            self.skip(to_skip);
            to_skip -= self.offset - before;
        }
        let mut filled = 0;
        while filled < out.len() {
            if !self.fill().await? {
                return Err(truncated(self.offset));
            }
            filled += self.take(&mut out[filled..]);
        }
        Ok(())
    }
}

/// Why JavaScript could not go on. The source keeps the details for its own side, which prefers them to this.
fn source_error(reason: JsValue) -> SourceError {
    let name = reason
        .dyn_ref::<js_sys::Error>()
        .map(|error| String::from(error.name()));
    match name.as_deref() {
        Some("AbortError") => SourceError::Cancelled,
        _ => SourceError::Io {
            message: format!("{reason:?}"),
        },
    }
}
