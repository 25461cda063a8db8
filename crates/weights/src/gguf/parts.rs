//! Models that were split into several files.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::{GgufError, GgufHeader, GgufReader};
use crate::{ByteSource, SourceError};

/// How many parts there are, in each part.
const COUNT_KEY: &str = "split.count";
/// Which of them a part is, counted from 0.
const NUMBER_KEY: &str = "split.no";

/// The files of a model: one, or the parts that it was split into, as llama.cpp's `gguf-split` does. Each is a GGUF file of its own;
/// the first has the model's metadata.
#[allow(
    async_fn_in_trait,
    reason = "everything runs on one thread, so no caller needs the futures to be Send"
)]
pub trait PartFiles {
    /// An open part.
    type Part: ByteSource;

    /// How many there are; at least one.
    fn n_parts(&self) -> usize;

    /// Opens a part, to be read from its start, in place of the one that was open. Of several parts each is opened twice: for its header
    /// and, when its turn comes, for its tensors.
    ///
    /// # Errors
    /// It cannot be had.
    async fn open(&mut self, part: usize) -> Result<Self::Part, SourceError>;

    /// Takes back a part of which nothing more is wanted. Called once for each, in order.
    ///
    /// # Errors
    /// It is not what it should be.
    async fn finish(&mut self, part: usize, source: Self::Part) -> Result<(), SourceError>;
}

/// The parts of a model, one behind the other without their padding, as if they were one file.
#[derive(Debug)]
pub struct JoinedParts<F: PartFiles> {
    files: F,
    /// Where each part starts.
    starts: Vec<u64>,
    current: Option<(usize, F::Part)>,
    /// The first part that [`PartFiles::finish`] has not had.
    unfinished: usize,
}

impl<F: PartFiles> JoinedParts<F> {
    /// Hands back every part that has not been, those without tensors too, and then the files.
    ///
    /// # Errors
    /// A part cannot be had or is not what it should be.
    pub async fn finish(mut self) -> Result<F, SourceError> {
        self.finish_before(self.files.n_parts()).await?;
        Ok(self.files)
    }

    async fn finish_before(&mut self, end: usize) -> Result<(), SourceError> {
        while self.unfinished < end {
            let part = self.unfinished;
            let source = self.take(part).await?;
            self.files.finish(part, source).await?;
            self.unfinished += 1;
        }
        Ok(())
    }

    async fn take(&mut self, part: usize) -> Result<F::Part, SourceError> {
        match self.current.take() {
            Some((open, source)) if open == part => Ok(source),
            _ => self.files.open(part).await,
        }
    }
}

impl<F: PartFiles> ByteSource for JoinedParts<F> {
    /// Known of a single file only: what lies ahead in the next part must not be read early.
    fn len(&self) -> Option<u64> {
        let single = (self.starts.len() == 1).then_some(self.current.as_ref());
        single.flatten().and_then(|(_, source)| source.len())
    }

    async fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let part = self.starts.partition_point(|start| *start <= offset) - 1;
        self.finish_before(part).await?;
        let mut source = self.take(part).await?;
        let read = source.read(offset - self.starts[part], out).await;
        self.current = Some((part, source));
        read
    }
}

impl<F: PartFiles> GgufReader<JoinedParts<F>> {
    /// Reads the headers of all parts and joins them: the metadata is the first part's, and the tensors are those of all parts, in the order
    /// of the parts, with their offsets in the [`JoinedParts`].
    ///
    /// # Errors
    /// A part is malformed or beyond what is supported, it does not belong with the others, or its bytes cannot be had.
    pub async fn open_parts(mut files: F) -> Result<Self, GgufError> {
        if files.n_parts() == 1 {
            let source = files.open(0).await?;
            let reader = Self::open(joined(files, vec![0], Some((0, source)))).await?;
            check_part(reader.header(), 0, 1)?;
            return Ok(reader);
        }
        let mut headers = Vec::new();
        for part in 0..files.n_parts() {
            let mut cursor = Cursor::new(files.open(part).await?);
            let header = GgufHeader::read(&mut cursor).await?;
            check_part(&header, part, files.n_parts())?;
            headers.push(header);
        }
        let (header, starts) = join(headers)?;
        let source = joined(files, starts, None);
        Ok(Self::with_header(Cursor::new(source), header))
    }
}

fn joined<F: PartFiles>(
    files: F,
    starts: Vec<u64>,
    current: Option<(usize, F::Part)>,
) -> JoinedParts<F> {
    JoinedParts {
        files,
        starts,
        current,
        unfinished: 0,
    }
}

/// Whether the header is that of this part of so many. A file that does not say is taken for a whole model.
fn check_part(header: &GgufHeader, part: usize, n_parts: usize) -> Result<(), GgufError> {
    let claimed: u32 = header.metadata.find(COUNT_KEY)?.unwrap_or(1);
    if claimed as usize != n_parts {
        return Err(GgufError::PartCount { n_parts, claimed });
    }
    let number: u32 = header.metadata.find(NUMBER_KEY)?.unwrap_or(0);
    if number as usize != part {
        return Err(GgufError::PartNumber {
            part,
            claimed: number,
        });
    }
    Ok(())
}

/// Joins the headers of parts; returns where each part starts, too.
fn join(headers: Vec<GgufHeader>) -> Result<(GgufHeader, Vec<u64>), GgufError> {
    let mut names = HashSet::new();
    let mut starts = Vec::new();
    let mut start = 0_u64;
    let mut all: Option<GgufHeader> = None;
    for mut header in headers {
        starts.push(start);
        let mut end = start.checked_add(header.data_offset);
        for tensor in &mut header.tensors {
            if !names.insert(tensor.name.clone()) {
                return Err(GgufError::DuplicateTensor {
                    tensor: tensor.name.clone(),
                });
            }
            let offset = start.checked_add(tensor.offset);
            end = offset.and_then(|offset| offset.checked_add(tensor.n_bytes));
            tensor.offset =
                offset
                    .filter(|_| end.is_some())
                    .ok_or_else(|| GgufError::OffsetOverflow {
                        tensor: tensor.name.clone(),
                        offset: tensor.offset,
                    })?;
        }
        // Tensors are in the order of their data, so the last one ends the part.
        start = end.unwrap_or(u64::MAX);
        match &mut all {
            None => all = Some(header),
            Some(all) => all.tensors.append(&mut header.tensors),
        }
    }
    let header = all.ok_or(GgufError::PartCount {
        n_parts: 0,
        claimed: 1,
    })?;
    Ok((header, starts))
}
