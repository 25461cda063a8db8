//! The CPU kernels by themselves, in shapes of SmolLM2-135M: `cargo bench -p cinderlm-kernels --bench cpu`.
//!
//! Natively, on one thread. In a browser the same loops run on WebAssembly's vectors of 128 bits.

use std::hint::black_box;

use cinderlm_kernels::cpu::selftest::Noise;
use cinderlm_kernels::cpu::{
    AttentionConfig, Matrix, Scratch, StepRows, attention, linear, rms_norm,
};
use cinderlm_weights::BlockType;
use criterion::{BenchmarkId, Criterion, Throughput};

const HIDDEN: usize = 576;
const FEED_FORWARD: usize = 1536;
/// As the models allot them.
const BLOCK_TOKENS: usize = 64;
/// Rows of a step: a token, and a piece of a prompt.
const ROWS: [usize; 2] = [1, 32];

/// The matrix that leads out of the feed-forward layer, whose width all block types divide, in each of them.
fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear");
    let mut noise = Noise::new(1);
    let mut scratch = Scratch::default();
    for block_type in BlockType::ALL {
        let weights = noise.weights(block_type, HIDDEN, FEED_FORWARD);
        for n_rows in ROWS {
            let x = noise.units(n_rows * FEED_FORWARD);
            let mut y = vec![0.0; n_rows * HIDDEN];
            group.throughput(Throughput::Elements((x.len() * HIDDEN) as u64));
            let id = BenchmarkId::new(block_type.name(), n_rows);
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let x = black_box(&x);
                    linear(
                        x,
                        Matrix::new(&weights.layout, &weights.words),
                        None,
                        &mut scratch,
                        &mut y,
                    );
                })
            });
        }
    }
    group.finish();
}

/// One token's attention after so many others.
fn attentions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    let config = AttentionConfig {
        n_heads: 9,
        n_kv_heads: 3,
        head_dim: 64,
        block_tokens: BLOCK_TOKENS,
        scale: 0.125,
    };
    let kv_width = config.n_kv_heads * config.head_dim;
    let mut noise = Noise::new(2);
    let mut scratch = Scratch::default();
    for n_positions in [16_usize, 512, 2048] {
        let n_blocks = n_positions.div_ceil(BLOCK_TOKENS);
        let keys = noise.units(n_blocks * BLOCK_TOKENS * kv_width);
        let values = noise.units(keys.len());
        let q = noise.units(HIDDEN);
        let mut y = vec![0.0; HIDDEN];
        let last = (n_positions - 1) as u32;
        let row = [0, last, last, 4];
        let words: Vec<u32> = row.into_iter().chain(0..n_blocks as u32).collect();
        group.bench_function(BenchmarkId::from_parameter(n_positions), |bencher| {
            bencher.iter(|| {
                let step = StepRows::new(black_box(&words), 1);
                attention(&q, &keys, &values, &step, config, &mut scratch, &mut y);
            })
        });
    }
    group.finish();
}

fn norms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rms_norm");
    let mut noise = Noise::new(3);
    let weight = noise.units(HIDDEN);
    for n_rows in ROWS {
        let x = noise.units(n_rows * HIDDEN);
        let mut y = vec![0.0; x.len()];
        group.bench_function(BenchmarkId::from_parameter(n_rows), |bencher| {
            bencher.iter(|| rms_norm(black_box(&x), &weight, 1e-5, &mut y))
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    products(&mut criterion);
    attentions(&mut criterion);
    norms(&mut criterion);
    criterion.final_summary();
}
