//! The rows of one forward step, and where their sequences' keys and values lie.

use burn::tensor::{Device, Int, Tensor};

use crate::KernelError;
use crate::device::{Lifetime, WordBuffer, check_buffer, is_cpu, words_tensor};

/// One token of a forward step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StepRow {
    /// Token id.
    pub token: u32,
    /// Position in its sequence, from 0. The row attends to positions `0..=position`.
    pub position: u32,
    /// Cache slot that takes the row's key and value: `block * block_tokens + position % block_tokens`.
    pub slot: u32,
    /// Where the sequence's list of block ids begins: a word offset from the start of the step's data, see [`Step::table_offset`].
    pub table: u32,
}

/// Words that a row takes in the step's data.
pub(crate) const ROW_WORDS: usize = 4;

/// Positions in a chunk of a context, at least: attention over more is shared by several workgroups.
pub(crate) const CHUNK_POSITIONS: usize = 256;

/// Most chunks of a context.
pub(crate) const MAX_CHUNKS: usize = 32;

/// Chunks into which the longest context of these rows is cut on a GPU, up to the next power of two. A step that is recorded serves for steps of as many.
/// On the CPU, whose kernels see to that themselves, always 1.
pub fn n_chunks(rows: &[StepRow], device: &Device) -> usize {
    if is_cpu(device) {
        return 1;
    }
    let longest = rows.iter().map(|row| row.position as usize + 1).max();
    let n_chunks = longest.unwrap_or(1).div_ceil(CHUNK_POSITIONS);
    n_chunks.next_power_of_two().min(MAX_CHUNKS)
}

/// The rows of one forward step on a device, with the block tables of their sequences.
///
/// One buffer of `u32` words: `[token, position, slot, table]` per row, then all tables. It is the only input that changes its size
/// with the context length, and kernels find everything in it, so that of the context
/// they depend on the number of its chunks alone, a power of two.
#[derive(Clone, Debug)]
pub struct Step {
    pub(crate) data: Tensor<1, Int>,
    pub(crate) n_rows: usize,
    pub(crate) n_chunks: usize,
}

impl Step {
    /// Puts the rows and `tables`, the block ids of all sequences one list after another, on the device.
    ///
    /// The caller vouches for the numbers: tokens below the vocabulary size, slots and block ids inside the cache, and tables that
    /// reach as far as each row's position. Kernels do not check them again.
    ///
    /// # Panics
    /// `rows` is empty.
    pub fn new(rows: &[StepRow], tables: &[u32], device: &Device) -> Self {
        Self {
            data: words_tensor(step_words(rows, tables), Lifetime::Step, device),
            n_rows: rows.len(),
            n_chunks: n_chunks(rows, device),
        }
    }

    /// A step of these rows and tables that is to be recorded, and then filled again and again by way of its
    /// [`Recording`](crate::Recording): with as many rows, no more [`n_chunks`], and on a GPU up to `n_table_words` words of tables.
    ///
    /// # Errors
    /// [`KernelError::BufferTooLarge`].
    ///
    /// # Panics
    /// `rows` is empty, or `tables` has more words on a GPU.
    pub fn reserve(
        rows: &[StepRow],
        tables: &[u32],
        n_table_words: usize,
        device: &Device,
    ) -> Result<ReservedStep, KernelError> {
        let (n_rows, n_chunks) = (rows.len(), n_chunks(rows, device));
        let n_words = ROW_WORDS * n_rows + n_table_words;
        check_buffer(n_words as u64 * 4, device)?;
        let words = step_words(rows, tables);
        let buffers = WordBuffer::on_gpu(&[n_words], device);
        let (data, words) = match buffers.and_then(|buffers| buffers.into_iter().next()) {
            Some(buffer) => {
                buffer.write(0, &words);
                (buffer.tensor(), Words::OnGpu(buffer))
            }
            None => {
                let data = words_tensor(words.clone(), Lifetime::Step, device);
                (data, Words::OnHost(words))
            }
        };
        Ok(ReservedStep {
            step: Self {
                data,
                n_rows,
                n_chunks,
            },
            buffer: StepBuffer {
                words,
                n_rows,
                n_chunks,
                device: device.clone(),
            },
        })
    }

    /// Has a GPU put the tokens of `drawn`, what [`DrawBuffer::draw`](crate::DrawBuffer::draw) gives for as many rows, in the place of the rows' own. A row of which
    /// every token was ruled out gets token 0.
    ///
    /// # Panics
    /// `drawn` has another number of rows, or lies on another device.
    pub fn take_tokens(&self, drawn: &Tensor<2>) {
        assert_eq!(drawn.dims()[0], self.n_rows, "rows of a step");
        take_tokens(drawn.clone(), self.data.clone());
    }

    /// Rows of the step.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The [`StepRow::table`] of a list of block ids that begins at `index` in the `tables` of a step with `n_rows` rows.
    pub const fn table_offset(n_rows: usize, index: usize) -> u32 {
        (ROW_WORDS * n_rows + index) as u32
    }
}

#[cfg(feature = "webgpu")]
fn take_tokens(drawn: Tensor<2>, step: Tensor<1, Int>) {
    use burn_cubecl::CubeBackend;

    let drawn = drawn.try_into_primitive::<CubeBackend>();
    let step = step.try_into_primitive::<CubeBackend>();
    crate::cube::take_tokens::launch(
        drawn.expect("what was drawn lies on a GPU"),
        step.expect("the step lies on a GPU"),
    );
}

/// Never called: where no GPU is built in, nothing is drawn.
#[cfg(not(feature = "webgpu"))]
fn take_tokens(_: Tensor<2>, _: Tensor<1, Int>) {}

/// A step that is filled again and again.
#[derive(Debug)]
pub struct ReservedStep {
    /// On the CPU it has the words that it was reserved with.
    pub(crate) step: Step,
    pub(crate) buffer: StepBuffer,
}

/// The words of a reserved step.
#[derive(Debug)]
pub(crate) struct StepBuffer {
    words: Words,
    n_rows: usize,
    n_chunks: usize,
    device: Device,
}

/// Where they lie.
#[derive(Debug)]
enum Words {
    OnGpu(WordBuffer),
    OnHost(Vec<u32>),
}

impl StepBuffer {
    /// Puts the rows and tables where kernels that are launched or replayed later find them. As [`Step::new`].
    ///
    /// # Panics
    /// There are more or fewer rows than were reserved or, on a GPU, more chunks of a context or more words of tables.
    pub(crate) fn write(&mut self, rows: &[StepRow], tables: &[u32]) {
        let new = self.new_words(rows, tables);
        match &mut self.words {
            Words::OnGpu(buffer) => buffer.write(0, &new),
            // As long as they are: kernels hold tables against the end.
            Words::OnHost(words) => *words = new,
        }
    }

    /// The same on a GPU, but for the tokens, which stay as [`Step::take_tokens`] has put them.
    ///
    /// # Panics
    /// As [`write`](Self::write), and on the CPU, where steps take no tokens.
    pub(crate) fn write_around_tokens(&mut self, rows: &[StepRow], tables: &[u32]) {
        let new = self.new_words(rows, tables);
        let Words::OnGpu(buffer) = &self.words else {
            panic!("tokens are put in their places on a GPU alone");
        };
        let (of_rows, tables) = new.split_at(ROW_WORDS * rows.len());
        for (i, words) in of_rows.chunks_exact(ROW_WORDS).enumerate() {
            buffer.write(ROW_WORDS * i + 1, &words[1..]);
        }
        buffer.write(of_rows.len(), tables);
    }

    /// The words that lie in host memory: none on a GPU.
    pub(crate) fn on_host(&self) -> &[u32] {
        match &self.words {
            Words::OnGpu(_) => &[],
            Words::OnHost(words) => words,
        }
    }

    fn new_words(&self, rows: &[StepRow], tables: &[u32]) -> Vec<u32> {
        assert_eq!(rows.len(), self.n_rows, "rows of a reserved step");
        assert!(
            n_chunks(rows, &self.device) <= self.n_chunks,
            "chunks of a reserved step"
        );
        step_words(rows, tables)
    }
}

/// The words of a step, as kernels read them.
pub(crate) fn step_words(rows: &[StepRow], tables: &[u32]) -> Vec<u32> {
    assert!(!rows.is_empty(), "a step has at least one row");
    let mut words = Vec::with_capacity(ROW_WORDS * rows.len() + tables.len());
    for row in rows {
        words.extend([row.token, row.position, row.slot, row.table]);
    }
    words.extend_from_slice(tables);
    words
}
