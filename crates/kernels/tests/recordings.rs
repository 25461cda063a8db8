//! Steps that the CPU recorded give, bit for bit, what they give when they are run.

use burn::tensor::{Device, Tensor};
use cinderlm_kernels::cpu::selftest::Noise;
use cinderlm_kernels::{
    Fused, HeadNormParams, KvCache, KvLayout, Norm, PackedMatrix, Profile, Recording, RopeLayout,
    Step, StepRow, attention, embed, fused_linear, linear_side_by_side, norm_heads, rope_append,
    swiglu, weight_vector,
};
use cinderlm_weights::BlockType;

const HIDDEN: usize = 64;
const INNER: usize = 96;
const N_HEADS: usize = 4;
const KV: KvLayout = KvLayout {
    block_tokens: 4,
    n_kv_heads: 2,
    head_dim: 32,
};
const VOCABULARY: usize = 50;
const N_LAYERS: usize = 3;

/// Two sequences of three blocks each.
const TABLES: [u32; 6] = [4, 1, 0, 2, 5, 3];

/// All operations that a model may have, in layers of which each has other weights.
struct Network {
    embedding: PackedMatrix,
    layers: Vec<Layer>,
    inv_freq: Tensor<1>,
}

struct Layer {
    norm: Norm,
    head_norms: [Tensor<1>; 2],
    projections: Vec<(PackedMatrix, Option<Tensor<1>>)>,
    output: PackedMatrix,
    gate_up: PackedMatrix,
    down: PackedMatrix,
    is_fused: bool,
}

impl Network {
    fn new(device: &Device) -> Self {
        let mut noise = Noise::new(5);
        let mut matrix = |block_type, n_rows, n_cols| {
            let weights = noise.weights(block_type, n_rows, n_cols);
            PackedMatrix::from_packed(weights, device).expect("small")
        };
        let embedding = matrix(BlockType::Q8_0, VOCABULARY, HIDDEN);
        let mut noise = Noise::new(6);
        let mut vector = |n| weight_vector(noise.units(n), device).expect("small");
        let (q_width, kv_width) = (N_HEADS * KV.head_dim, KV.width());
        let layers = (0..N_LAYERS).map(|i| Layer {
            norm: Norm {
                weight: vector(HIDDEN),
                epsilon: 1e-5,
            },
            head_norms: [vector(KV.head_dim), vector(KV.head_dim)],
            projections: vec![
                (
                    matrix(BlockType::Q4_1, q_width + kv_width, HIDDEN),
                    Some(vector(q_width + kv_width)),
                ),
                (matrix(BlockType::Q8_0, kv_width, HIDDEN), None),
            ],
            output: matrix(BlockType::Q4_1, HIDDEN, q_width),
            gate_up: matrix(BlockType::Q5_0, 2 * INNER, HIDDEN),
            down: matrix(BlockType::F16, HIDDEN, INNER),
            is_fused: i % 2 == 0,
        });
        Self {
            layers: layers.collect(),
            embedding,
            inv_freq: vector(KV.head_dim / 2),
        }
    }

    fn run(&self, step: &Step, caches: &mut [KvCache]) -> Tensor<2> {
        let profile = Profile::cpu();
        let mut x = embed(&self.embedding, step, profile);
        for (layer, cache) in self.layers.iter().zip(caches) {
            let parts = layer.projections.iter();
            let parts = parts.map(|(weight, bias)| (weight, bias.clone()));
            let heads = linear_side_by_side(x.clone(), Some(layer.norm.clone()), parts, profile);
            let params = HeadNormParams {
                n_heads: N_HEADS,
                n_kv_heads: KV.n_kv_heads,
                epsilon: 1e-6,
            };
            let [query, key] = layer.head_norms.clone();
            // Another owner: the norm is of a copy.
            let kept = (!layer.is_fused).then(|| heads.clone());
            let heads = norm_heads(heads, query, key, params);
            drop(kept);
            let inv_freq = self.inv_freq.clone();
            let q = rope_append(heads, inv_freq, cache, step, RopeLayout::Halves, 1.0);
            let mixed = attention(q, cache, step, N_HEADS, 0.2, profile);
            let onto = |residual| Fused {
                residual: Some(residual),
                ..Fused::default()
            };
            x = fused_linear(mixed, &layer.output, onto(x), profile);
            let gate_up = |is_gated| Fused {
                norm: Some(layer.norm.clone()),
                is_gated,
                ..Fused::default()
            };
            let inner = fused_linear(x.clone(), &layer.gate_up, gate_up(layer.is_fused), profile);
            let inner = if layer.is_fused { inner } else { swiglu(inner) };
            x = fused_linear(inner, &layer.down, onto(x), profile);
        }
        fused_linear(x, &self.embedding, Fused::default(), profile)
    }
}

fn caches(device: &Device) -> Vec<KvCache> {
    (0..N_LAYERS)
        .map(|_| KvCache::new(KV, TABLES.len(), device).expect("small"))
        .collect()
}

/// One token of each of two sequences, of which the second is behind.
fn rows(position: u32) -> [StepRow; 2] {
    [(position, 0), (position.saturating_sub(2), 3)].map(|(position, table)| StepRow {
        token: (position * 7 + table) % VOCABULARY as u32,
        position,
        slot: TABLES[(table + position / 4) as usize] * 4 + position % 4,
        table: Step::table_offset(2, table as usize),
    })
}

fn bits(tensor: Tensor<2>) -> Vec<u32> {
    let values = tensor.into_data().try_into_vec::<f32>().expect("floats");
    assert!(values.iter().all(|value| value.is_finite()));
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn replays_equal_runs() {
    let device = Device::flex();
    let network = Network::new(&device);
    let mut run_over = caches(&device);
    let mut expected = |position| {
        let step = Step::new(&rows(position), &TABLES, &device);
        bits(network.run(&step, &mut run_over))
    };
    let mut caches = caches(&device);
    let words = Step::reserve(&rows(0), &TABLES, 0, &device).expect("small");
    let recorded = Recording::new(&device, words, &mut caches, |step, caches| {
        network.run(step, caches)
    });
    let (recording, result) = recorded.expect("the CPU does not fail");
    assert_eq!(bits(result.expect("a result")), expected(0), "recording");
    let mut recording = recording.expect("all of it can be recorded");
    // The last twice: a replay leaves nothing behind.
    for position in [1, 2, 3, 4, 5, 9, 9] {
        recording.write(&rows(position), &TABLES);
        // SAFETY: nothing is asked for on the CPU.
        let result = unsafe { recording.replay(&mut caches) };
        let result = result.expect("the CPU does not fail");
        assert_eq!(bits(result), expected(position), "position {position}");
    }
}

#[test]
fn what_other_operations_made_is_not_recorded() {
    let device = Device::flex();
    let network = Network::new(&device);
    for is_used in [false, true] {
        let words = Step::reserve(&rows(0), &TABLES, 0, &device).expect("small");
        let recorded = Recording::new(&device, words, &mut caches(&device), |step, caches| {
            let x = network.run(step, caches) * 2.0;
            match is_used {
                true => swiglu(x),
                false => x,
            }
        });
        let (recording, result) = recorded.expect("the CPU does not fail");
        assert!(recording.is_none());
        assert_eq!(result.expect("a result").dims()[0], 2);
    }
}
