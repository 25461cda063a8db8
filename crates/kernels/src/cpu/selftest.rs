//! A check that this build's kernels give the results that every build must give, bit for bit.
//!
//! Results are hashed and held against values written down below. Native tests run the portable vectors through it and a browser the
//! `simd128` ones, so that agreement with the table is agreement with each other. Nothing here is linked unless it is called.

use cinderlm_weights::{
    BlockType, Interleave, PackedFormat, PackedLayout, PackedTensor, ScaleKind,
};
use thiserror::Error;

use super::{
    AttentionConfig, Matrix, Scratch, StepRows, attention, embed, gated_linear, has_normal_scales,
    linear, rms_norm, swiglu,
};

/// A kernel whose results differ from those of other builds.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error(
    "the CPU kernel {kernel} gives results that hash to {actual:#018x}, not {expected:#018x} as on other targets"
)]
pub struct Mismatch {
    /// The kernel, with the tensor type where it has one.
    pub kernel: String,
    /// The hash that every build must give.
    pub expected: u64,
    /// The hash that this build gives.
    pub actual: u64,
}

/// What [`hashes`] gives, in its order.
const EXPECTED: [u64; 39] = [
    0xa571_bebe_f927_b485,
    0x3fb6_d837_ce90_36bf,
    0x50ca_29d4_8057_28b7,
    0xe2e0_4cc4_0365_e655,
    0xe30c_b36f_7075_7994,
    0xf52d_27fe_8ed8_6e62,
    0x8a3c_d6f4_08a8_32c2,
    0x7312_a574_e7d6_110f,
    0x3540_f234_6034_cd2a,
    0xfcd0_de0a_a2a3_32ba,
    0x9e82_ad49_863d_8a96,
    0x82e4_96ed_a456_abc9,
    0x9532_a184_b9bc_7fd5,
    0x0e0b_0b9c_222c_2102,
    0x897f_3b08_f500_5efb,
    0x6ca2_b395_a5f3_feaf,
    0x0363_d7ae_09db_213c,
    0xa153_162b_c33d_5c08,
    0x3838_b606_7319_0a40,
    0x4cec_3734_0f41_c078,
    0x9920_1ea7_b720_8b47,
    0xda3c_1120_fbc1_b21d,
    0x1379_b599_ca41_1c50,
    0xedc1_a31a_91d4_eec2,
    0xffba_0785_1cd3_fd97,
    0x8be7_3276_042c_dac6,
    0x95ed_cae9_ee7c_b5ec,
    0xd9db_f5fd_4d01_fd31,
    0x092f_39af_0d61_266d,
    0xb9e7_41a9_8bd3_3409,
    0x5547_f66f_677a_168a,
    0x3ff5_2581_1161_dc79,
    0x5a7f_8c5a_e4d2_2edc,
    0x66ea_6a55_85ef_a448,
    0xacf9_9828_37e1_54c9,
    0xa46a_9c41_1450_fa25,
    0x09c2_d974_9407_06a7,
    0x174d_9c49_4796_3ba2,
    0xfd69_9acf_505b_0047,
];

/// Runs every kernel but `rope_append`, whose sine is the platform's, on fixed data.
///
/// # Errors
/// The first kernel whose results differ from those of other builds.
pub fn check() -> Result<(), Mismatch> {
    for ((kernel, actual), expected) in hashes().into_iter().zip(EXPECTED) {
        if actual != expected {
            return Err(Mismatch {
                kernel,
                expected,
                actual,
            });
        }
    }
    Ok(())
}

/// Each kernel with the hash of its results.
pub fn hashes() -> Vec<(String, u64)> {
    let mut hashes = Vec::new();
    let mut scratch = Scratch::default();
    for block_type in BlockType::ALL {
        let mut noise = Noise::new(7);
        // Fifteen rows meet the paths of eight, four and one; 288 columns end within a strip of every kind.
        let n_cols = if block_type.block_len() == 256 {
            512
        } else {
            288
        };
        let weights = noise.weights(block_type, 19, n_cols);
        let (x, bias) = (noise.units(15 * n_cols), noise.units(19));
        let mut y = vec![0.0; 15 * 19];
        linear(
            &x,
            Matrix::new(&weights.layout, &weights.words),
            Some(&bias),
            &mut scratch,
            &mut y,
        );
        hashes.push((format!("linear {block_type:?}"), hash(&y)));

        let mut y = vec![0.0; 2 * n_cols];
        let step = StepRows::new(&[18, 0, 0, 0, 3, 0, 0, 0], 2);
        embed(&weights.layout, &weights.words, &step, &mut scratch, &mut y);
        hashes.push((format!("embed {block_type:?}"), hash(&y)));
    }

    let mut noise = Noise::new(8);
    let (x, other, weight) = (noise.units(3 * 77), noise.units(3 * 77), noise.units(77));
    let mut y = vec![0.0; 3 * 77];
    rms_norm(&x, &weight, 1e-5, &mut y);
    hashes.push(("rms_norm".to_owned(), hash(&y)));
    swiglu(
        &x.iter().map(|x| x * 20.0).collect::<Vec<_>>(),
        &other,
        &mut y,
    );
    hashes.push(("swiglu".to_owned(), hash(&y)));

    let config = AttentionConfig {
        n_heads: 6,
        n_kv_heads: 2,
        head_dim: 18,
        block_tokens: 6,
        scale: 0.3,
    };
    let (q, k, v) = (
        noise.units(2 * 108),
        noise.units(30 * 36),
        noise.units(30 * 36),
    );
    let step = [[0, 14, 0, 8], [0, 8, 0, 9], [4, 1, 3, 0]].concat();
    let mut y = vec![0.0; 2 * 108];
    attention(
        &q,
        &k,
        &v,
        &StepRows::new(&step, 2),
        config,
        &mut scratch,
        &mut y,
    );
    hashes.push(("attention".to_owned(), hash(&y)));
    hashes.extend(shared(&mut scratch));
    hashes
}

/// The same for the kernels that threads share, on shapes that are large enough to be cut up.
fn shared(scratch: &mut Scratch) -> Vec<(String, u64)> {
    let mut hashes = Vec::new();
    for (block_type, n_rows) in [
        (BlockType::Q4_1, 1),
        (BlockType::Q8_0, 7),
        (BlockType::F16, 3),
    ] {
        let mut noise = Noise::new(9);
        let weights = noise.weights(block_type, 309, 576);
        let x = noise.units(n_rows * 576);
        let mut y = vec![0.0; n_rows * 309];
        let w = Matrix::new(&weights.layout, &weights.words);
        linear(&x, w, None, scratch, &mut y);
        hashes.push((format!("shared linear {block_type:?}"), hash(&y)));
    }

    let mut noise = Noise::new(11);
    let weights = noise.weights(BlockType::Q4_1, 2 * 157, 576);
    let x = noise.units(2 * 576);
    let mut y = vec![0.0; 2 * 157];
    let w = Matrix::new(&weights.layout, &weights.words);
    gated_linear(&x, w, None, scratch, &mut y);
    hashes.push(("shared gated_linear".to_owned(), hash(&y)));

    let mut weights = weights;
    noise.make_scales_normal(&mut weights);
    let mut w = Matrix::new(&weights.layout, &weights.words);
    w.has_normal_scales = has_normal_scales(w.layout, w.words);
    let mut y = vec![0.0; 157];
    gated_linear(&x[..576], w, None, scratch, &mut y);
    hashes.push(("shared gated_linear, normal scales".to_owned(), hash(&y)));

    let mut noise = Noise::new(10);
    let (x, other, weight) = (noise.units(99_997), noise.units(99_997), noise.units(1_639));
    let mut y = vec![0.0; 99_997];
    swiglu(&x, &other, &mut y);
    hashes.push(("shared swiglu".to_owned(), hash(&y)));
    let whole = 61 * weight.len();
    rms_norm(&x[..whole], &weight, 1e-5, &mut y[..whole]);
    hashes.push(("shared rms_norm".to_owned(), hash(&y[..whole])));

    let config = AttentionConfig {
        n_heads: 9,
        n_kv_heads: 3,
        head_dim: 64,
        block_tokens: 16,
        scale: 0.125,
    };
    let n_rows = 3;
    let q = noise.units(n_rows * 576);
    let (k, v) = (noise.units(512 * 192), noise.units(512 * 192));
    let tables = 4 * n_rows as u32;
    let rows = [[0, 500, 0, tables], [0, 77, 0, tables], [0, 260, 0, tables]];
    let step = [rows.concat(), (0..32).rev().collect()].concat();
    let mut y = vec![0.0; n_rows * 576];
    let step = StepRows::new(&step, n_rows);
    attention(&q, &k, &v, &step, config, scratch, &mut y);
    hashes.push(("shared attention".to_owned(), hash(&y)));
    // So short that threads share heads, in one chunk and in two.
    for position in [110, 200] {
        let step = [vec![0, position, 0, 4], (0..32).rev().collect()].concat();
        let (step, y) = (StepRows::new(&step, 1), &mut y[..576]);
        attention(&q[..576], &k, &v, &step, config, scratch, y);
        hashes.push((format!("shared attention to {position}"), hash(y)));
    }
    hashes
}

/// FNV-1a over the bits of the values.
fn hash(values: &[f32]) -> u64 {
    values
        .iter()
        .flat_map(|value| value.to_bits().to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

/// A stream of numbers that is the same everywhere: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Noise(u64);

impl Noise {
    /// The stream that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 32 random bits.
    pub fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// A number in -1..1, a multiple of 2^-23.
    pub fn unit(&mut self) -> f32 {
        (self.word() >> 8) as f32 / 8_388_608.0 - 1.0
    }

    /// `n` numbers in -1..1.
    pub fn units(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }

    /// An IEEE half below 2^-7 in size, subnormals among them.
    fn small_half(&mut self) -> u32 {
        self.word() & 0x83ff | (self.word() % 8) << 10
    }

    /// A packed matrix in row order with random quanta and small scales.
    pub fn weights(&mut self, block_type: BlockType, n_rows: usize, n_cols: usize) -> PackedTensor {
        let format = PackedFormat::new(block_type);
        let layout = PackedLayout {
            format,
            n_rows,
            n_cols,
            interleave: Interleave::Rows,
        };
        let words = (0..layout.n_words())
            .map(|w| self.weight_word(&layout, w))
            .collect();
        PackedTensor { layout, words }
    }

    /// Gives a matrix with one word of scales a block others, among which no half is zero, subnormal, infinite or NaN.
    pub fn make_scales_normal(&mut self, weights: &mut PackedTensor) {
        let layout = weights.layout;
        let end = layout.super_offset();
        for word in &mut weights.words[layout.scale_offset()..end] {
            // Exponents of 8 to 15.
            *word = self.word() & 0x9fff_9fff | 0x2000_2000;
        }
    }

    fn weight_word(&mut self, layout: &PackedLayout, w: usize) -> u32 {
        let section_starts = [
            layout.high_offset(),
            layout.scale_offset(),
            layout.super_offset(),
        ];
        let section = section_starts.iter().filter(|&&start| w >= start).count();
        let halves = |low: u32, high: u32| low | high << 16;
        match (
            layout.format.block_type,
            layout.format.scale_kind(),
            section,
        ) {
            (BlockType::F32, ..) => self.unit().to_bits(),
            (BlockType::F16, ..) => self.word() & 0xbfff_bfff,
            (BlockType::BF16, ..) => {
                halves(self.unit().to_bits() >> 16, self.unit().to_bits() >> 16)
            }
            (_, ScaleKind::Single | ScaleKind::SingleMin, 2) | (_, _, 3) => {
                halves(self.small_half(), self.small_half())
            }
            _ => self.word(),
        }
    }
}
