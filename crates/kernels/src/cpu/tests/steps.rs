//! The operations between the products: normalisation, rotation, attention, gating.

use crate::cpu::selftest::Noise;
use crate::cpu::{
    AttentionConfig, RopeConfig, RopePairs, Scratch, StepRows, attention, rms_norm, rope_append,
    swiglu,
};

#[test]
fn rms_norm_matches_its_formula() {
    let mut noise = Noise::new(7);
    for width in [1, 3, 16, 77, 576] {
        let (x, weight) = (noise.units(3 * width), noise.units(width));
        let mut y = vec![f32::NAN; x.len()];
        rms_norm(&x, &weight, 1e-5, &mut y);
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact(width)) {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
            for ((x, y), weight) in x.iter().zip(y).zip(&weight) {
                let exact = f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*weight);
                assert!(
                    (f64::from(*y) - exact).abs() <= 1e-6 * exact.abs() + 1e-12,
                    "{y} for {exact}, width {width}"
                );
            }
        }
    }
}

#[test]
fn swiglu_matches_its_formula() {
    let mut noise = Noise::new(8);
    let gate: Vec<f32> = noise
        .units(103)
        .iter()
        .map(|x| x * 60.0)
        .chain([-200.0, 200.0, 0.0])
        .collect();
    let up = noise.units(gate.len());
    let mut y = vec![f32::NAN; gate.len()];
    swiglu(&gate, &up, &mut y);
    for ((gate, up), y) in gate.iter().zip(&up).zip(&y) {
        let gate = f64::from(*gate);
        let exact = gate / (1.0 + (-gate).exp()) * f64::from(*up);
        assert!(
            (f64::from(*y) - exact).abs() <= 1e-6 * exact.abs() + 1e-30,
            "{y} for {exact}"
        );
    }
}

#[test]
fn rope_turns_pairs_and_fills_the_cache() {
    let mut noise = Noise::new(9);
    let (n_heads, n_kv_heads, head_dim, scale) = (4, 2, 10, 1.25f32);
    let inv_freq: Vec<f32> = (0..4).map(|i| 100f32.powf(-0.25 * i as f32)).collect();
    // Two rotary dimensions fewer than the head has; slots out of order, in two blocks.
    let block_tokens = 3;
    let step = [[0u32, 3, 5, 0], [0, 900, 1, 0]].concat();
    let mut scratch = Scratch::default();
    for pairs in [RopePairs::Interleaved, RopePairs::Halves] {
        let (q, k, v) = (
            noise.units(2 * n_heads * head_dim),
            noise.units(2 * n_kv_heads * head_dim),
            noise.units(2 * n_kv_heads * head_dim),
        );
        let (q_width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
        let qkv: Vec<f32> = (0..2)
            .flat_map(|row| {
                let of = |values: &[f32], width: usize| values[row * width..][..width].to_vec();
                [of(&q, q_width), of(&k, kv_width), of(&v, kv_width)].concat()
            })
            .collect();
        let mut turned = vec![0.0; q.len()];
        let (mut k_cache, mut v_cache) = (vec![7.0; 6 * kv_width], vec![7.0; 6 * kv_width]);
        let config = RopeConfig {
            pairs,
            scale,
            head_dim,
            n_kv_heads,
            block_tokens,
        };
        rope_append(
            &qkv,
            &inv_freq,
            &mut k_cache,
            &mut v_cache,
            &StepRows::new(&step, 2),
            config,
            &mut scratch,
            &mut turned,
        );
        let at_slot = |cache: &[f32], slot: usize| -> Vec<f32> {
            let heads = (0..n_kv_heads).map(|head| {
                let place = place_of(slot, head, n_kv_heads, block_tokens);
                &cache[place * head_dim..][..head_dim]
            });
            heads.flatten().copied().collect()
        };
        for (row, (position, slot)) in [(3.0f64, 5), (900.0, 1)].into_iter().enumerate() {
            let check = |before: &[f32], after: &[f32]| {
                for (before, after) in before
                    .chunks_exact(head_dim)
                    .zip(after.chunks_exact(head_dim))
                {
                    assert_eq!(before[8..], after[8..], "dimensions that do not turn");
                    for (i, frequency) in inv_freq.iter().enumerate() {
                        let (a, b) = if pairs == RopePairs::Interleaved {
                            (2 * i, 2 * i + 1)
                        } else {
                            (i, i + 4)
                        };
                        let (sin, cos) = (position * f64::from(*frequency)).sin_cos();
                        let (x, y) = (
                            f64::from(before[a]) * f64::from(scale),
                            f64::from(before[b]) * f64::from(scale),
                        );
                        assert!(
                            (x * cos - y * sin - f64::from(after[a])).abs() < 1e-4,
                            "{pairs:?}, row {row}, pair {i}"
                        );
                        assert!(
                            (y * cos + x * sin - f64::from(after[b])).abs() < 1e-4,
                            "{pairs:?}, row {row}, pair {i}"
                        );
                    }
                }
            };
            check(
                &q[row * q_width..][..q_width],
                &turned[row * q_width..][..q_width],
            );
            check(&k[row * kv_width..][..kv_width], &at_slot(&k_cache, slot));
            assert_eq!(v[row * kv_width..][..kv_width], at_slot(&v_cache, slot));
        }
        for slot in [0, 2, 3, 4] {
            let key = at_slot(&k_cache, slot);
            assert!(key.iter().all(|&k| k == 7.0), "slot {slot}");
        }
    }
}

/// Where in a cache the key or value of a slot and a head is, counted in heads.
fn place_of(slot: usize, head: usize, n_kv_heads: usize, block_tokens: usize) -> usize {
    (slot / block_tokens * n_kv_heads + head) * block_tokens + slot % block_tokens
}

/// Attention of one row in f64, the slots of its positions given one by one.
fn plain_attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    slots: &[usize],
    config: AttentionConfig,
) -> Vec<f64> {
    let AttentionConfig {
        n_heads,
        n_kv_heads,
        head_dim,
        block_tokens,
        scale,
    } = config;
    let at = |cache: &[f32], slot: usize, head: usize, d: usize| {
        let place = place_of(slot, head, n_kv_heads, block_tokens);
        f64::from(cache[place * head_dim + d])
    };
    let mut y = Vec::new();
    for (head, q) in q.chunks_exact(head_dim).enumerate() {
        let kv_head = head / (n_heads / n_kv_heads);
        let score = |&slot: &usize| {
            (0..head_dim)
                .map(|d| f64::from(q[d]) * at(k, slot, kv_head, d))
                .sum::<f64>()
                * f64::from(scale)
        };
        let weights: Vec<f64> = slots.iter().map(|slot| score(slot).exp()).collect();
        let sum: f64 = weights.iter().sum();
        y.extend((0..head_dim).map(|d| {
            slots
                .iter()
                .zip(&weights)
                .map(|(&slot, w)| w / sum * at(v, slot, kv_head, d))
                .sum::<f64>()
        }));
    }
    y
}

#[test]
fn attention_matches_plain_softmax_over_pages() {
    let mut noise = Noise::new(10);
    // The last two have several chunks of positions.
    for (n_heads, n_kv_heads, head_dim, block_tokens) in [
        (9, 3, 64, 16),
        (4, 4, 6, 3),
        (2, 1, 18, 5),
        (1, 1, 1, 1),
        (6, 2, 20, 50),
        (3, 1, 9, 130),
    ] {
        let config = AttentionConfig {
            n_heads,
            n_kv_heads,
            head_dim,
            block_tokens,
            scale: 1.0 / (head_dim as f32).sqrt(),
        };
        // Two sequences whose blocks lie mixed up in the pool; the first has a chunk of its prompt in the step.
        let tables = [[6usize, 1, 4, 0], [2, 7, 5, 3]];
        let rows = [
            (0, 0),
            (0, 1),
            (0, 2),
            (1, 4 * block_tokens - 1),
            (0, 2 * block_tokens),
            (1, block_tokens - 1),
        ];
        let tables_at = 4 * rows.len();
        let mut step: Vec<u32> = rows
            .iter()
            .flat_map(|&(s, position)| [0, position as u32, 0, (tables_at + 4 * s) as u32])
            .collect();
        step.extend(tables.as_flattened().iter().map(|&block| block as u32));

        let width = n_heads * head_dim;
        let n_cached = 8 * block_tokens * n_kv_heads * head_dim;
        let (q, k, v) = (
            noise.units(rows.len() * width),
            noise.units(n_cached),
            noise.units(n_cached),
        );
        let q: Vec<f32> = q.iter().map(|q| q * 8.0).collect();
        let mut scratch = Scratch::default();
        let mut y = vec![f32::NAN; q.len()];
        attention(
            &q,
            &k,
            &v,
            &StepRows::new(&step, rows.len()),
            config,
            &mut scratch,
            &mut y,
        );

        for (r, (&(sequence, position), y)) in rows.iter().zip(y.chunks_exact(width)).enumerate() {
            let slot =
                |p: usize| tables[sequence][p / block_tokens] * block_tokens + p % block_tokens;
            let slots: Vec<usize> = (0..=position).map(slot).collect();
            let q = &q[r * width..][..width];
            for (exact, y) in plain_attention(q, &k, &v, &slots, config).iter().zip(y) {
                assert!(
                    (exact - f64::from(*y)).abs() < 3e-6,
                    "{config:?}, row {r}: {y} for {exact}"
                );
            }
            let mut alone = vec![f32::NAN; width];
            let table: Vec<u32> = tables[sequence].iter().map(|&block| block as u32).collect();
            let step = [vec![0, position as u32, 0, 4], table].concat();
            attention(
                q,
                &k,
                &v,
                &StepRows::new(&step, 1),
                config,
                &mut scratch,
                &mut alone,
            );
            assert_eq!(alone, y, "{config:?}, row {r} alone");
        }
    }
}

#[test]
fn what_is_not_finite_in_any_chunk_reaches_the_outputs() {
    let mut noise = Noise::new(11);
    let config = AttentionConfig {
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 8,
        block_tokens: 16,
        scale: 0.3,
    };
    // Three chunks.
    let (n_positions, n_blocks) = (300, 19);
    let step = [vec![0, n_positions - 1, 0, 4], (0..n_blocks).collect()].concat();
    let n_cached = n_blocks as usize * 16 * 8;
    let (q, k, v) = (
        noise.units(16),
        noise.units(n_cached),
        noise.units(n_cached),
    );
    let attend = |k: &[f32], v: &[f32]| {
        let (step, mut scratch, mut y) = (StepRows::new(&step, 1), Scratch::default(), [0.0; 16]);
        attention(&q, k, v, &step, config, &mut scratch, &mut y);
        y
    };
    assert!(attend(&k, &v).iter().all(|y| y.is_finite()));
    for position in [0, 130, 299] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut odd = v.clone();
            odd[position * 8 + 3] = value;
            let y = attend(&k, &odd);
            let expected = (0..16).map(|i| i % 8 != 3);
            assert!(
                y.iter().map(|y| y.is_finite()).eq(expected),
                "{value} at {position}: {y:?}"
            );
        }
        let mut odd = k.clone();
        odd[position * 8] = f32::NAN;
        let y = attend(&odd, &v);
        assert!(y.iter().all(|y| y.is_nan()), "a key at {position}: {y:?}");
    }
}

#[test]
#[should_panic(expected = "a block past the 2 of the cache")]
fn attention_refuses_a_block_past_the_cache() {
    let config = AttentionConfig {
        n_heads: 1,
        n_kv_heads: 1,
        head_dim: 4,
        block_tokens: 2,
        scale: 1.0,
    };
    let step = [0, 2, 0, 4, 1, 2];
    attention(
        &[0.0; 4],
        &[0.0; 16],
        &[0.0; 16],
        &StepRows::new(&step, 1),
        config,
        &mut Scratch::default(),
        &mut [0.0; 4],
    );
}

#[test]
fn rope_turns_anew_whatever_changes() {
    let mut noise = Noise::new(10);
    let qkv = noise.units(2 * 3 * 4);
    let turned = |positions: &[u32], inv_freq: &[f32], scale, scratch: &mut Scratch| {
        let n_rows = positions.len();
        let rows = positions.iter().flat_map(|&position| [0, position, 0, 0]);
        let mut q = vec![0.0; n_rows * 4];
        let config = RopeConfig {
            pairs: RopePairs::Halves,
            scale,
            head_dim: 4,
            n_kv_heads: 1,
            block_tokens: 1,
        };
        rope_append(
            &qkv[..n_rows * 12],
            inv_freq,
            &mut [0.0; 4],
            &mut [0.0; 4],
            &StepRows::new(&rows.collect::<Vec<_>>(), n_rows),
            config,
            scratch,
            &mut q,
        );
        q
    };
    let mut scratch = Scratch::default();
    for (positions, inv_freq, scale) in [
        (&[1][..], &[1.0, 0.5][..], 1.0),
        (&[2], &[1.0, 0.5], 1.0),
        (&[2, 3], &[1.0, 0.5], 1.0),
        (&[2, 4], &[1.0, 0.5], 1.0),
        (&[2, 4], &[1.0, 0.25], 1.0),
        (&[2, 4], &[1.0], 1.0),
        (&[2, 4], &[1.0], 1.5),
        (&[2, 4], &[1.0], 1.5),
        (&[2], &[1.0], 1.5),
    ] {
        let alone = turned(positions, inv_freq, scale, &mut Scratch::default());
        let after_others = turned(positions, inv_freq, scale, &mut scratch);
        assert_eq!(after_others, alone, "{positions:?}, {inv_freq:?}, {scale}");
    }
}

#[test]
#[should_panic(expected = "slot 2 of 2")]
fn rope_refuses_a_slot_past_the_cache() {
    let config = RopeConfig {
        pairs: RopePairs::Halves,
        scale: 1.0,
        head_dim: 4,
        n_kv_heads: 1,
        block_tokens: 2,
    };
    let (mut k_cache, mut v_cache) = ([0.0; 8], [0.0; 8]);
    rope_append(
        &[0.0; 12],
        &[1.0],
        &mut k_cache,
        &mut v_cache,
        &StepRows::new(&[0, 0, 2, 0], 1),
        config,
        &mut Scratch::default(),
        &mut [0.0; 4],
    );
}
