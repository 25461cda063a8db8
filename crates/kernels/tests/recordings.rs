//! Steps that the CPU recorded give, bit for bit, what they give when they are run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{Device, Tensor};
use cinderlm_kernels::cpu::selftest::Noise;
use cinderlm_kernels::{
    Fused, HeadNormParams, KvCache, KvLayout, Norm, PackedMatrix, Profile, Recorded, Recording,
    RopeLayout, Step, StepRow, attention, embed, fused_linear, linear_side_by_side, norm_heads,
    rope_append, swiglu, weight_vector,
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
const N_BLOCKS: usize = 61;

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
        self.run_with(step, caches, Tensor::clone)
    }

    /// With what `bias` makes of a layer's.
    fn run_with(
        &self,
        step: &Step,
        caches: &mut [KvCache],
        bias: impl Fn(&Tensor<1>) -> Tensor<1>,
    ) -> Tensor<2> {
        let profile = Profile::cpu();
        let mut x = embed(&self.embedding, step, profile);
        for (layer, cache) in self.layers.iter().zip(caches) {
            let parts = layer.projections.iter();
            let parts = parts.map(|(weight, of_weight)| (weight, of_weight.as_ref().map(&bias)));
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
        .map(|_| KvCache::new(KV, N_BLOCKS, device).expect("small"))
        .collect()
}

/// A token of each of `n_rows` sequences at these positions or a few before, and their tables, which are as long as they need to be.
fn step_at(n_rows: usize, position: u32) -> (Vec<StepRow>, Vec<u32>) {
    let mut tables = Vec::new();
    let rows = (0..n_rows as u32).map(|i| {
        let position = position.saturating_sub(2 * i);
        let table = Step::table_offset(n_rows, tables.len());
        let blocks = (0..=position / 4).map(|block| (block * 7 + 3 * i) % N_BLOCKS as u32);
        tables.extend(blocks);
        StepRow {
            token: (position * 7 + i) % VOCABULARY as u32,
            position,
            slot: tables[tables.len() - 1] * 4 + position % 4,
            table,
        }
    });
    (rows.collect(), tables)
}

fn bits(tensor: Tensor<2>) -> Vec<u32> {
    let values = tensor.into_data().try_into_vec::<f32>().expect("floats");
    assert!(values.iter().all(|value| value.is_finite()));
    values.into_iter().map(f32::to_bits).collect()
}

fn record(
    (rows, tables): (Vec<StepRow>, Vec<u32>),
    caches: &mut [KvCache],
    device: &Device,
    run: impl FnMut(&Step, &mut [KvCache]) -> Tensor<2>,
) -> (Tensor<2>, Option<Recording>) {
    let step = Step::reserve(&rows, &tables, 0, device).expect("small");
    match Recording::record(device, step, caches, run).expect("the CPU does not fail") {
        Recorded::Run(result, recording) => (*result, recording),
        Recorded::Ready(_) => panic!("the CPU runs what it records"),
    }
}

/// Whether a recording comes of what is made of a network and a step at the beginning of `n_rows` sequences.
fn is_recorded(n_rows: usize, run: impl Fn(&Network, &Step, &mut [KvCache]) -> Tensor<2>) -> bool {
    let device = Device::flex();
    let network = Network::new(&device);
    let run = |step: &Step, caches: &mut [KvCache]| run(&network, step, caches);
    let (_, recording) = record(step_at(n_rows, 0), &mut caches(&device), &device, run);
    recording.is_some()
}

#[test]
fn replays_equal_runs() {
    let device = Device::flex();
    let network = Network::new(&device);
    for n_rows in [1, 2, 16] {
        let mut run_over = caches(&device);
        let mut expected = |position| {
            let (rows, tables) = step_at(n_rows, position);
            bits(network.run(&Step::new(&rows, &tables, &device), &mut run_over))
        };
        let mut caches = caches(&device);
        let (result, recording) =
            record(step_at(n_rows, 0), &mut caches, &device, |step, caches| {
                network.run(step, caches)
            });
        assert_eq!(bits(result), expected(0), "recording {n_rows} rows");
        let mut recording = recording.expect("all of it can be recorded");
        // Forward through blocks, back to shorter tables, and one step twice: a replay leaves nothing behind.
        for position in [1, 2, 3, 4, 5, 21, 9, 9, 200] {
            if position == 5 {
                for cache in &mut caches {
                    cache.grow(2 * N_BLOCKS).expect("small");
                }
            }
            let (rows, tables) = step_at(n_rows, position);
            recording.write(&rows, &tables);
            // SAFETY: nothing is asked for on the CPU.
            let result = unsafe { recording.replay(&mut caches) };
            let result = result.expect("the CPU does not fail");
            assert_eq!(bits(result), expected(position), "{n_rows} at {position}");
        }
    }
}

#[test]
fn results_of_replays_are_not_overwritten() {
    let device = Device::flex();
    let network = Network::new(&device);
    let mut caches = caches(&device);
    let run = |step: &Step, caches: &mut [KvCache]| network.run(step, caches);
    let (first, recording) = record(step_at(1, 0), &mut caches, &device, run);
    let mut recording = recording.expect("all of it can be recorded");
    let mut results = vec![first];
    for position in 1..3 {
        let (rows, tables) = step_at(1, position);
        recording.write(&rows, &tables);
        // SAFETY: nothing is asked for on the CPU.
        results.push(unsafe { recording.replay(&mut caches) }.expect("the CPU does not fail"));
    }
    let [a, b, c] = results.try_into().expect("three");
    let [a, b, c] = [a, b, c].map(bits);
    assert!(a != b && b != c && a != c);
}

#[test]
fn what_other_operations_made_is_not_recorded() {
    let half = VOCABULARY / 2;
    // As many rows as columns, so that a transposed result has the shape of the result.
    let n_rows = VOCABULARY;
    type Spoil<'a> = &'a dyn Fn(Tensor<2>) -> Tensor<2>;
    let spoilers: [(&str, usize, Spoil<'_>); 8] = [
        ("a product", 2, &|x| x * 2.0),
        ("its gate", 2, &|x| swiglu(x * 2.0)),
        ("columns", 2, &|x| x.slice([0..2, 0..half])),
        ("a row", 2, &|x| x.slice([0..1, 0..2 * half])),
        ("the gate of some", 2, &|x| {
            swiglu(x.slice([0..2, 0..half - 1]))
        }),
        ("a view", 2, &|x| x.reshape([4, half])),
        ("the view's gate", 2, &|x| swiglu(x.reshape([1, 4 * half]))),
        ("the other way round", n_rows, &|x| x.transpose()),
    ];
    for (what, n_rows, spoiled) in spoilers {
        let run = |network: &Network, step: &Step, caches: &mut [KvCache]| {
            spoiled(network.run(step, caches))
        };
        assert!(!is_recorded(n_rows, run), "{what}");
    }
    for n_rows in [2, n_rows] {
        assert!(is_recorded(n_rows, Network::run), "nothing else");
    }
}

#[test]
fn weights_that_the_step_makes_are_not_recorded() {
    for is_made in [false, true] {
        let is_recorded = is_recorded(2, |network, step, caches| {
            network.run_with(step, caches, |bias| match is_made {
                true => bias.clone() * 2.0,
                false => bias.clone(),
            })
        });
        assert_eq!(is_recorded, !is_made);
    }
}

#[test]
fn changes_of_the_caches_are_not_recorded() {
    for is_grown in [false, true] {
        let is_recorded = is_recorded(2, |network, step, caches| {
            match is_grown {
                true => caches[0].grow(2 * N_BLOCKS).expect("small"),
                false => caches[0].copy_blocks(&[(0, 1)]),
            }
            network.run(step, caches)
        });
        assert!(!is_recorded, "grown: {is_grown}");
    }
}

#[test]
fn another_step_is_not_recorded() {
    let (rows, tables) = step_at(2, 0);
    let other = Step::new(&rows, &tables, &Device::flex());
    assert!(!is_recorded(2, |network, _, caches| network.run(&other, caches)));
}

#[test]
fn a_replay_that_fails_leaves_the_caches_in_place() {
    let device = Device::flex();
    let network = Network::new(&device);
    let mut caches = caches(&device);
    let record_anew = |caches: &mut [KvCache]| {
        let run = |step: &Step, caches: &mut [KvCache]| network.run(step, caches);
        let (result, recording) = record(step_at(1, 9), caches, &device, run);
        (bits(result), recording.expect("all of it can be recorded"))
    };
    let (expected, mut recording) = record_anew(&mut caches);
    let (rows, tables) = step_at(1, 9);
    recording.write(&rows, &tables[..2]);
    // SAFETY: nothing is asked for on the CPU.
    let replay = AssertUnwindSafe(|| unsafe { recording.replay(&mut caches) });
    assert!(catch_unwind(replay).is_err(), "the table ends too early");
    assert_eq!(record_anew(&mut caches).0, expected);
}
