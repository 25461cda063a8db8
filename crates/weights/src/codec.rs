//! Values straight from the blocks of a file: the plain reference that the packed form is held against.
//!
//! The arithmetic is that of ggml's `dequantize_row_*` (`ggml-quants.c`), operation by operation, so that results agree to the last
//! bit: scale times group scale first, then times the quantum, then the minimum.

use half::{bf16, f16};
use thiserror::Error;

use crate::fields;
use crate::packed::BLOCK;
use crate::{BlockType, PackedFormat, ScaleKind};

/// The bytes and the values asked for do not belong together.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{n_bytes} bytes of {block_type} do not hold {n_values} values in whole blocks")]
pub struct CodecError {
    /// Type of the blocks.
    pub block_type: BlockType,
    /// Bytes given.
    pub n_bytes: usize,
    /// Values asked for.
    pub n_values: usize,
}

/// Decodes `bytes`, blocks of `block_type` one after another, into `out`.
///
/// # Errors
/// `bytes` holds another number of values than `out`, or no whole blocks.
pub fn dequantize(block_type: BlockType, bytes: &[u8], out: &mut [f32]) -> Result<(), CodecError> {
    if block_type.n_bytes(out.len() as u64) != Some(bytes.len() as u64) {
        return Err(CodecError {
            block_type,
            n_bytes: bytes.len(),
            n_values: out.len(),
        });
    }
    decode_blocks(block_type, bytes, out);
    Ok(())
}

/// [`dequantize`] for sizes known to agree; what is over on either side is left alone.
pub(crate) fn decode_blocks(block_type: BlockType, bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.chunks_exact(block_type.block_bytes());
    for (block, values) in blocks.zip(out.chunks_exact_mut(block_type.block_len())) {
        match (block_type, block) {
            (BlockType::F32, &[a, b, c, d]) => values[0] = f32::from_le_bytes([a, b, c, d]),
            (BlockType::F16, &[a, b]) => values[0] = f16::from_le_bytes([a, b]).to_f32(),
            (BlockType::BF16, &[a, b]) => values[0] = bf16::from_le_bytes([a, b]).to_f32(),
            _ => quantised_block(block_type, block, values),
        }
    }
}

fn quantised_block(block_type: BlockType, block: &[u8], values: &mut [f32]) {
    let format = PackedFormat::new(block_type);
    let groups = Groups::read(format, block);
    for (stretch, values) in values.chunks_exact_mut(BLOCK).enumerate() {
        let quanta = fields::quanta(block_type, block, stretch);
        for (j, (value, quantum)) in values.iter_mut().zip(quanta).enumerate() {
            let quantum = if block_type == BlockType::Q8_0 {
                f32::from(quantum as i8)
            } else {
                (i32::from(quantum) - format.zero()) as f32
            };
            let group = (stretch * BLOCK + j) / groups.len;
            // Types without minima must not add one: -0.0 + 0.0 is 0.0.
            *value = groups.scales[group] * quantum;
            if let Some(mins) = &groups.mins {
                *value -= mins[group];
            }
        }
    }
}

/// Scales and what is taken off (minima, negated where ggml adds them) of the groups of one block.
struct Groups {
    /// Values per group.
    len: usize,
    scales: [f32; 16],
    mins: Option<[f32; 16]>,
}

impl Groups {
    fn read(format: PackedFormat, block: &[u8]) -> Self {
        let block_type = format.block_type;
        let (d, m) = fields::floats(block_type, block);
        let (d, m) = (f16::from_bits(d).to_f32(), f16::from_bits(m).to_f32());
        match format.scale_kind() {
            ScaleKind::None | ScaleKind::Single => Self {
                len: BLOCK,
                scales: [d; 16],
                mins: None,
            },
            ScaleKind::SingleMin => Self {
                len: BLOCK,
                scales: [d; 16],
                mins: Some([-m; 16]),
            },
            ScaleKind::Super => Self {
                len: 16,
                scales: fields::signed_scales(block_type, block).map(|scale| d * f32::from(scale)),
                mins: None,
            },
            ScaleKind::SuperMin { group } => {
                let pairs = fields::scales_and_mins(block_type, block);
                Self {
                    len: group,
                    scales: pairs.map(|[scale, _]| d * f32::from(scale)),
                    mins: Some(pairs.map(|[_, min]| m * f32::from(min))),
                }
            }
        }
    }
}
