//! Drawing the next token on a GPU, so that a step reads back a few words of a row instead of its logits.

use crate::device::{WordBuffer, check_buffer};
use crate::{KernelError, Profile};
use burn::tensor::{Device, Int, Tensor};

/// Words of a row at the head of the parameters: temperature as f32, top-p and uniform number in units of `2^-32`, number of adjusted tokens,
/// the word where they begin.
pub(crate) const ROW_WORDS: usize = 5;
/// The most likeliest tokens that are reported.
pub(crate) const N_TOP: usize = 20;
/// Words of a row's result: token, its logit, largest logit, sum of exponentials, and then likeliest tokens and their logits.
pub(crate) const OUT_WORDS: usize = 4 + 2 * N_TOP;

/// How the next token of a row is drawn. The meaning of each is that of the completion contract.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DrawRow {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Probability that the likeliest tokens, from which is drawn, must reach.
    pub top_p: f32,
    /// From 0 up to but not including 1.
    pub uniform: f64,
    /// What is added to the logits of single tokens, each below the vocabulary size and at most once. Minus infinity rules one out.
    pub adjustments: Vec<(u32, f32)>,
    /// How many of the likeliest tokens are to be reported before any adjustment, with what their log-probabilities are made of. With 0
    /// nothing is; else at most [`DrawBuffer::MAX_TOP`].
    pub n_top: usize,
}

impl DrawRow {
    /// The draw by its definition, in double precision: what every other way of drawing is held against.
    pub fn of(&self, logits: &[f32]) -> Drawn {
        let finite = |logit: f32| match logit.is_nan() {
            true => f64::NEG_INFINITY,
            false => f64::from(logit.min(f32::MAX)),
        };
        let own: Vec<f64> = logits.iter().map(|&logit| finite(logit)).collect();
        let mut adjusted = own.clone();
        for &(token, by) in &self.adjustments {
            adjusted[token as usize] += f64::from(by);
        }
        let token = self.token_of(&adjusted);
        let order = likeliest_first(&own);
        let largest = order.first().map_or(0.0, |&token| own[token]);
        let n_top = self.n_top.min(order.len());
        Drawn {
            token: token.map(|token| token as u32),
            logit: token.map_or(0.0, |token| own[token] as f32),
            largest: largest as f32,
            sum: own.iter().map(|logit| (logit - largest).exp()).sum::<f64>() as f32,
            top: (order[..n_top].iter())
                .map(|&token| (token as u32, own[token] as f32))
                .collect(),
        }
    }

    fn token_of(&self, logits: &[f64]) -> Option<usize> {
        let mut order = likeliest_first(logits);
        let likeliest = *order.first()?;
        if self.temperature == 0.0 {
            return Some(likeliest);
        }
        let weight = |token: usize| {
            ((logits[token] - logits[likeliest]) / f64::from(self.temperature)).exp()
        };
        let mut mass: f64 = order.iter().map(|&token| weight(token)).sum();
        if self.top_p < 1.0 {
            let (target, mut kept) = (f64::from(self.top_p) * mass, 0.0);
            let is_enough = |&token: &usize| {
                kept += weight(token);
                kept >= target
            };
            let last = order.iter().position(is_enough);
            order.truncate(last.map_or(order.len(), |last| last + 1));
            mass = order.iter().map(|&token| weight(token)).sum();
        } else {
            order.sort_unstable();
        }
        let mut sum = 0.0;
        let falls_on = |&&token: &&usize| {
            sum += weight(token);
            self.uniform * mass < sum
        };
        order.iter().find(falls_on).or(order.last()).copied()
    }
}

/// Tokens that can be drawn at all, ties by id.
fn likeliest_first(logits: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len())
        .filter(|&token| logits[token] > f64::NEG_INFINITY)
        .collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order
}

/// What the rows of a draw ask for in all. Kernels are compiled for each kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DrawKind {
    /// Likeliest tokens that are reported: 0, 1, 5 or 20.
    pub n_top: usize,
    /// Whether any row has a temperature.
    pub is_sampled: bool,
    /// Whether any row draws from the likeliest tokens only.
    pub has_nucleus: bool,
}

impl DrawKind {
    /// What these rows ask for.
    pub fn of<'a>(rows: impl Iterator<Item = &'a DrawRow> + Clone) -> Self {
        let n_top = rows.clone().map(|row| row.n_top).max().unwrap_or(0);
        let is_sampled = |row: &DrawRow| row.temperature > 0.0;
        Self {
            n_top: [0, 1, 5].into_iter().find(|n| n_top <= *n).unwrap_or(N_TOP),
            is_sampled: rows.clone().any(is_sampled),
            has_nucleus: rows.clone().any(|row| is_sampled(row) && row.top_p < 1.0),
        }
    }
}

/// What was drawn for a row.
#[derive(Clone, PartialEq, Debug)]
pub struct Drawn {
    /// `None` if every token was ruled out, by the logits or by the adjustments.
    pub token: Option<u32>,
    /// The token's logit, before adjustments.
    pub logit: f32,
    /// The largest logit, before adjustments. Like the rest only if it was asked for.
    pub largest: f32,
    /// Sum of `exp(logit - largest)`, before adjustments.
    pub sum: f32,
    /// The likeliest tokens and their logits, before adjustments, likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// Parameters of draws on a GPU, to be filled again and again.
#[derive(Debug)]
pub struct DrawBuffer {
    buffer: WordBuffer,
    n_rows: usize,
}

impl DrawBuffer {
    /// Adjusted tokens that each row has room for.
    pub const MAX_ADJUSTMENTS: usize = 1024;
    /// The most likeliest tokens that a row can ask for.
    pub const MAX_TOP: usize = N_TOP;
    /// The largest vocabulary: results are single precision numbers.
    pub const MAX_VOCAB: usize = 1 << 24;

    /// Room for the draws of `n_rows` rows, or `None` where the device is no GPU.
    ///
    /// # Errors
    /// [`KernelError::BufferTooLarge`].
    pub fn new(n_rows: usize, device: &Device) -> Result<Option<Self>, KernelError> {
        let n_words = n_rows * (ROW_WORDS + 2 * Self::MAX_ADJUSTMENTS);
        check_buffer(n_words as u64 * 4, device)?;
        let buffers = WordBuffer::on_gpu(&[n_words], device);
        Ok(buffers.and_then(|buffers| {
            let buffer = buffers.into_iter().next()?;
            Some(Self { buffer, n_rows })
        }))
    }

    /// Writes the rows' parameters.
    ///
    /// # Panics
    /// Another number of rows, or one with too many adjustments or tokens to report.
    pub fn write<'a>(&self, rows: impl ExactSizeIterator<Item = &'a DrawRow>) {
        assert_eq!(rows.len(), self.n_rows, "rows of a draw");
        let mut words = vec![0; self.n_rows * ROW_WORDS];
        for (i, row) in rows.enumerate() {
            assert!(
                row.adjustments.len() <= Self::MAX_ADJUSTMENTS && row.n_top <= N_TOP,
                "{row:?}"
            );
            let first = words.len() as u32;
            words[i * ROW_WORDS..][..ROW_WORDS].copy_from_slice(&[
                row.temperature.to_bits(),
                whole_part(f64::from(row.top_p)),
                whole_part(row.uniform),
                row.adjustments.len() as u32,
                first,
            ]);
            let adjustments = row.adjustments.iter();
            words.extend(adjustments.flat_map(|&(token, by)| [token, by.to_bits()]));
        }
        self.buffer.write(0, &words);
    }

    /// Draws a token for each row of `logits`, `[rows, vocab]`. Gives what [`Drawn::read`] takes once it has been read back.
    ///
    /// # Panics
    /// `logits` has another number of rows, or lies on another device.
    pub fn draw(&self, logits: Tensor<2>, kind: DrawKind, profile: Profile) -> Tensor<2> {
        assert_eq!(logits.dims()[0], self.n_rows, "rows of a draw");
        launch(logits, self.buffer.tensor(), kind, profile)
    }
}

#[cfg(feature = "webgpu")]
fn launch(
    logits: Tensor<2>,
    params: Tensor<1, Int>,
    kind: DrawKind,
    profile: Profile,
) -> Tensor<2> {
    use burn_cubecl::CubeBackend;

    let params = params.try_into_primitive::<CubeBackend>();
    let params = params.expect("the buffer lies on a GPU");
    let logits = logits.try_into_primitive::<CubeBackend>();
    let logits = logits.expect("the logits lie on a GPU");
    Tensor::from_primitive::<CubeBackend>(crate::cube::draw::launch(logits, params, kind, profile))
}

/// Never called: where no GPU is built in, there is no buffer of parameters.
#[cfg(not(feature = "webgpu"))]
fn launch(logits: Tensor<2>, _: Tensor<1, Int>, _: DrawKind, _: Profile) -> Tensor<2> {
    logits
}

/// The token that a kernel tells by its number, -1 for none.
fn token_of(number: f32) -> Option<u32> {
    (number >= 0.0).then_some(number as u32)
}

/// A number from 0 to 1 in units of `2^-32`; 1 itself is the largest.
fn whole_part(number: f64) -> u32 {
    (number * 4_294_967_296.0) as u32
}

impl Drawn {
    /// What `values`, the result of [`DrawBuffer::draw`] read back, holds for each of `rows`.
    pub fn read<'a>(
        values: &'a [f32],
        rows: impl Iterator<Item = &'a DrawRow> + 'a,
    ) -> impl Iterator<Item = Self> + 'a {
        let words = values.as_chunks::<OUT_WORDS>().0;
        words.iter().zip(rows).map(|(values, row)| {
            let (top, _) = values[4..].as_chunks::<2>();
            let top = top[..row.n_top].iter();
            Self {
                token: token_of(values[0]),
                logit: values[1],
                largest: values[2],
                sum: values[3],
                top: top
                    .filter_map(|&[token, logit]| Some((token_of(token)?, logit)))
                    .collect(),
            }
        })
    }
}
