//! The next token of each row, drawn from its logits where they are: bias and penalties, temperature, top-p, the draw.
//!
//! - `logits`: `[rows, vocab]` f32
//! - `params`: words, see [`DrawRow`](crate::DrawRow)
//! - `keys`, `weights`: `[rows, vocab]` u32, working space
//! - `out`: `[rows, OUT_WORDS]` f32
//!
//! A workgroup has one row, and each of its `lanes` invocations a stretch of the vocabulary. They meet behind barriers in shared memory, where
//! each adds up all partial results. Software adapters would rather have one lane and no barriers (SwiftShader takes some 100 KB for each lane
//! that waits), but lavapipe ends any loop that an invocation has gone through 65,535 times in all.
//!
//! A *key* is an adjusted logit as an integer of the same order, so that sorting is exact. A *weight* is the token's share of [`WHOLE`], a whole
//! number: sums of weights are exact in any order. What is left is the error of the exponentials, which WGSL allows some 1e-6 of each: a draw
//! falls on the token that it falls on in double precision unless it is that close to a border.
//!
//! The nucleus is not sorted. Bisection over keys finds the last that belongs to it: the largest such that it and all above it weigh enough. A
//! second bisection finds the key on which the draw falls, likeliest first. Tokens of equal key come by id.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{output, output_of};
use crate::Profile;
use crate::draw::{DrawKind, OUT_WORDS, ROW_WORDS};

/// What a logit that rules its token out counts as: WGSL does not promise infinities.
const NO_LOGIT: f32 = -1.0e30;
/// The adjustment that rules a token out, whatever its logit: minus infinity, by its bits.
const BAN: u32 = 0xff80_0000;
/// Stands for no token.
const NO_TOKEN: u32 = u32::MAX;
/// What all weights of a row add up to, but for rounding: half of what 32 bits hold.
const WHOLE: f32 = 2_147_483_648.0;
/// Below this an exponential is nothing.
const SMALLEST_EXPONENT: f32 = -87.0;
/// The most invocations of a workgroup that every WebGPU adapter allows.
const MAX_LANES: usize = 256;
/// Turns of all loops together that an invocation may take.
const MAX_TURNS: usize = 60_000;

/// What the kernel is compiled for: WGSL allows barriers only where all invocations are known to come, so what needs some and is not asked for
/// by any row is left out as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct DrawSpec {
    lanes: usize,
    kind: DrawKind,
}

impl DrawSpec {
    /// As many lanes as the profile has, or more where those would take too many turns.
    fn new(vocab: usize, kind: DrawKind, profile: Profile) -> Self {
        // Each likeliest token is a pass, and each of the bisections' rounds; what is left are fewer than ten.
        let n_passes = 10 + kind.n_top + if kind.has_nucleus { 70 } else { 0 };
        let mut lanes = profile.draw_lanes;
        while lanes < MAX_LANES && n_passes * (vocab.div_ceil(lanes) + lanes) > MAX_TURNS {
            lanes *= 2;
        }
        Self { lanes, kind }
    }
}

pub(crate) fn launch(
    logits: CubeTensor,
    params: CubeTensor,
    kind: DrawKind,
    profile: Profile,
) -> CubeTensor {
    let (n_rows, vocab) = (logits.meta.shape()[0], logits.meta.shape()[1]);
    let spec = DrawSpec::new(vocab, kind, profile);
    let keys = output_of(DType::U32, [n_rows, vocab], &logits);
    let weights = output_of(DType::U32, [n_rows, vocab], &logits);
    let out = output([n_rows, OUT_WORDS], &logits);
    // SAFETY: stretches end with the vocabulary, and whoever wrote `params` vouches for its tokens and offsets.
    unsafe {
        draw::launch_unchecked(
            &logits.client.clone(),
            CubeCount::Static(n_rows as u32, 1, 1),
            CubeDim::new_1d(spec.lanes as u32),
            logits.into_buffer_arg(),
            params.into_buffer_arg(),
            keys.into_buffer_arg(),
            weights.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vocab as u32,
            spec,
        );
    }
    out
}

/// The stretch of the vocabulary that an invocation has.
#[derive(CubeType, Clone, Copy)]
struct Stretch {
    /// Where its row begins.
    base: usize,
    start: usize,
    end: usize,
    lane: usize,
}

/// Results of lanes on their way to each other.
#[derive(CubeType)]
struct Meeting {
    #[cube(comptime)]
    lanes: usize,
    floats: Shared<[f32]>,
    numbers: Shared<[u32]>,
    tokens: Shared<[u32]>,
}

#[cube(launch_unchecked)]
fn draw(
    logits: &[f32],
    params: &[u32],
    keys: &mut [u32],
    weights: &mut [u32],
    out: &mut [f32],
    vocab: u32,
    #[comptime] spec: DrawSpec,
) {
    let lanes = comptime!(spec.lanes);
    let kind = comptime!(spec.kind);
    let lane = UNIT_POS_X as usize;
    let row = CUBE_POS_X as usize;
    let vocab = vocab as usize;
    let length = vocab.div_ceil(lanes);
    let start = min(lane * length, vocab);
    let own = Stretch {
        base: row * vocab,
        start,
        end: min(start + length, vocab),
        lane,
    };
    let mut meeting = Meeting {
        lanes,
        floats: Shared::<[f32]>::new_slice(lanes),
        numbers: Shared::<[u32]>::new_slice(lanes),
        tokens: Shared::<[u32]>::new_slice(lanes),
    };

    let temperature = f32::reinterpret(params[row * ROW_WORDS]);
    let top_p = params[row * ROW_WORDS + 1];
    let uniform = params[row * ROW_WORDS + 2];
    let n_adjusted = params[row * ROW_WORDS + 3] as usize;
    let adjusted = params[row * ROW_WORDS + 4] as usize;
    let to = row * OUT_WORDS;

    for i in own.start..own.end {
        keys[own.base + i] = key_of(cleaned(logits[own.base + i]));
    }
    if comptime!(kind.n_top > 0) {
        report(&*keys, &own, out, to, &mut meeting, kind);
    }
    sync_storage();
    for a in range_stepped(lane, n_adjusted, lanes) {
        let at = own.base + params[adjusted + 2 * a] as usize;
        let by = params[adjusted + 2 * a + 1];
        let value = max(
            logit_of(keys[at]) + f32::reinterpret(by),
            f32::new(NO_LOGIT),
        );
        keys[at] = key_of(select(by == BAN, f32::new(NO_LOGIT), value));
    }
    sync_storage();

    let likeliest = next_likeliest(&*keys, &own, u32::MAX, NO_TOKEN, &mut meeting);
    let mut token = likeliest;
    if comptime!(kind.is_sampled) {
        let best = own.base + min(likeliest as usize, vocab - 1);
        let largest = logit_of(keys[best]);
        // Greedy rows go along.
        let temperature_or_one = select(temperature > 0.0, temperature, f32::new(1.0));
        weigh(
            &*keys,
            weights,
            &own,
            largest,
            temperature_or_one,
            &mut meeting,
        );
        let mut drawn = draw_from_all(&*weights, &own, uniform, &mut meeting);
        if comptime!(kind.has_nucleus) {
            let in_nucleus =
                draw_from_nucleus(&*keys, &*weights, &own, top_p, uniform, &mut meeting);
            // All bits set stand for 1.
            drawn = select(top_p < u32::MAX, in_nucleus, drawn);
        }
        let is_drawn = temperature > 0.0 && likeliest != NO_TOKEN && drawn != NO_TOKEN;
        token = select(is_drawn, drawn, likeliest);
    }
    if lane == 0 {
        out[to] = number_of(token);
        out[to + 1] = cleaned(logits[own.base + min(token as usize, vocab - 1)]);
    }
}

/// A token as a number, exact up to 2^24; -1 for none. Its bits would be those of a tiny float, which WGSL may make 0.
#[cube]
fn number_of(token: u32) -> f32 {
    select(token == NO_TOKEN, f32::new(-1.0), f32::cast_from(token))
}

/// The logit, finite. Told by its bits: compilers may take comparisons with NaN for constants.
#[cube]
fn cleaned(logit: f32) -> f32 {
    let bits = u32::reinterpret(logit);
    let is_finite = (bits & 0x7fff_ffff) < 0x7f80_0000;
    let other = select(bits == 0x7f80_0000, f32::new(f32::MAX), f32::new(NO_LOGIT));
    select(is_finite, max(logit, f32::new(NO_LOGIT)), other)
}

/// An integer of the same order as the float. The two zeros are one.
#[cube]
fn key_of(value: f32) -> u32 {
    let bits = u32::reinterpret(value + 0.0);
    select(bits >= 0x8000_0000, !bits, bits | 0x8000_0000)
}

/// The float of a key.
#[cube]
fn logit_of(key: u32) -> f32 {
    f32::reinterpret(select(key >= 0x8000_0000, key & 0x7fff_ffff, !key))
}

/// The sum of all lanes' numbers.
#[cube]
fn sum(own: u32, lane: usize, meeting: &mut Meeting) -> u32 {
    sync_cube();
    meeting.numbers[lane] = own;
    sync_cube();
    let mut all = 0u32.runtime();
    for l in 0..meeting.lanes {
        all += meeting.numbers[l];
    }
    all
}

/// The sum over all keys of `exp((logit - largest) / temperature)`.
#[cube]
fn sum_of_powers(
    keys: &[u32],
    own: &Stretch,
    largest: f32,
    temperature: f32,
    meeting: &mut Meeting,
) -> f32 {
    let mut total = f32::new(0.0);
    for i in own.start..own.end {
        total += power(keys[own.base + i], largest, temperature);
    }
    sync_cube();
    meeting.floats[own.lane] = total;
    sync_cube();
    total = f32::new(0.0);
    for l in 0..meeting.lanes {
        total += meeting.floats[l];
    }
    total
}

#[cube]
fn power(key: u32, largest: f32, temperature: f32) -> f32 {
    let exponent = (logit_of(key) - largest) / temperature;
    select(exponent < SMALLEST_EXPONENT, f32::new(0.0), exponent.exp())
}

/// Writes every token's weight.
#[cube]
fn weigh(
    keys: &[u32],
    weights: &mut [u32],
    own: &Stretch,
    largest: f32,
    temperature: f32,
    meeting: &mut Meeting,
) {
    let unit = WHOLE / sum_of_powers(keys, own, largest, temperature, meeting);
    for i in own.start..own.end {
        let weight = power(keys[own.base + i], largest, temperature) * unit + 0.5;
        weights[own.base + i] = u32::cast_from(weight);
    }
    sync_storage();
}

/// The likeliest token, ties to the lowest id, of those that come after token `before` with `key`. None may be left.
#[cube]
fn next_likeliest(
    keys: &[u32],
    own: &Stretch,
    key: u32,
    before: u32,
    meeting: &mut Meeting,
) -> u32 {
    let mut best = NO_TOKEN.runtime();
    let mut largest = key_of(f32::new(NO_LOGIT));
    for i in own.start..own.end {
        let x = keys[own.base + i];
        let comes_after = x < key || (x == key && before != NO_TOKEN && i as u32 > before);
        if comes_after && x > largest {
            largest = x;
            best = i as u32;
        }
    }
    sync_cube();
    meeting.numbers[own.lane] = largest;
    meeting.tokens[own.lane] = best;
    sync_cube();
    largest = key_of(f32::new(NO_LOGIT));
    best = NO_TOKEN.runtime();
    for l in 0..meeting.lanes {
        if meeting.numbers[l] > largest {
            largest = meeting.numbers[l];
            best = meeting.tokens[l];
        }
    }
    best
}

/// Writes what log-probabilities are made of: the largest logit, the sum of exponentials below it, and the likeliest tokens.
#[cube]
fn report(
    keys: &[u32],
    own: &Stretch,
    out: &mut [f32],
    to: usize,
    meeting: &mut Meeting,
    #[comptime] kind: DrawKind,
) {
    // All lanes read the key of a token that one of them has written.
    sync_storage();
    let mut key = u32::MAX.runtime();
    let mut token = NO_TOKEN.runtime();
    let mut largest = f32::new(NO_LOGIT);
    for n in 0..comptime!(kind.n_top) {
        token = next_likeliest(keys, own, key, token, meeting);
        let is_there = token != NO_TOKEN;
        key = select(
            is_there,
            keys[own.base + select(is_there, token as usize, 0usize)],
            0u32,
        );
        if n == 0 {
            largest = logit_of(key);
        }
        if own.lane == 0 {
            let at = to + 4 + 2 * n;
            out[at] = number_of(token);
            out[at + 1] = logit_of(key);
        }
    }
    let total = sum_of_powers(keys, own, largest, f32::new(1.0), meeting);
    if own.lane == 0 {
        out[to + 2] = largest;
        out[to + 3] = total;
    }
}

/// The token in whose share of all weights, by id, the draw falls.
#[cube]
fn draw_from_all(weights: &[u32], own: &Stretch, uniform: u32, meeting: &mut Meeting) -> u32 {
    let mut weight = 0u32.runtime();
    for i in own.start..own.end {
        weight += weights[own.base + i];
    }
    let target = u32::mul_hi(sum(weight, own.lane, meeting), uniform);
    let mut before = 0u32.runtime();
    for l in 0..own.lane {
        before += meeting.numbers[l];
    }
    let mut token = NO_TOKEN.runtime();
    if before <= target && target - before < weight {
        for i in own.start..own.end {
            let weight = weights[own.base + i];
            if before <= target && target - before < weight {
                token = i as u32;
            }
            before += weight;
        }
    }
    the_one(token, own.lane, meeting)
}

/// The token that one lane has found.
#[cube]
fn the_one(token: u32, lane: usize, meeting: &mut Meeting) -> u32 {
    sync_cube();
    meeting.tokens[lane] = token;
    sync_cube();
    let mut found = NO_TOKEN.runtime();
    for l in 0..meeting.lanes {
        found = min(found, meeting.tokens[l]);
    }
    found
}

/// The weight of all tokens whose key is at least `key`.
#[cube]
fn mass(keys: &[u32], weights: &[u32], own: &Stretch, key: u32, meeting: &mut Meeting) -> u32 {
    let mut weight = 0u32.runtime();
    for i in own.start..own.end {
        weight += select(keys[own.base + i] >= key, weights[own.base + i], 0u32);
    }
    sum(weight, own.lane, meeting)
}

/// The largest key such that it and all above it weigh more than `target`.
#[cube]
fn key_at(keys: &[u32], weights: &[u32], own: &Stretch, target: u32, meeting: &mut Meeting) -> u32 {
    let mut key = 0u32.runtime();
    for round in 0..32u32 {
        let next = key | (0x8000_0000u32 >> round);
        let reached = mass(keys, weights, own, next, meeting);
        key = select(reached > target, next, key);
    }
    key
}

/// The token on which the draw falls, likeliest first, among the fewest that weigh more than `top_p` of all.
#[cube]
fn draw_from_nucleus(
    keys: &[u32],
    weights: &[u32],
    own: &Stretch,
    top_p: u32,
    uniform: u32,
    meeting: &mut Meeting,
) -> u32 {
    let target = u32::mul_hi(mass(keys, weights, own, 0u32, meeting), top_p);
    let key = key_at(keys, weights, own, target, meeting);
    let above = mass(keys, weights, own, key + 1, meeting);
    let weight = weight_of_key(keys, weights, own, key, meeting);
    let nucleus = above + ((target - above) / weight + 1) * weight;

    let target = u32::mul_hi(nucleus, uniform);
    let key = key_at(keys, weights, own, target, meeting);
    let above = mass(keys, weights, own, key + 1, meeting);
    let weight = weight_of_key(keys, weights, own, key, meeting);
    nth_of_key(keys, own, key, (target - above) / weight, meeting)
}

/// The weight that each token of this key has; 1 if there is none.
#[cube]
fn weight_of_key(
    keys: &[u32],
    weights: &[u32],
    own: &Stretch,
    key: u32,
    meeting: &mut Meeting,
) -> u32 {
    let mut found = NO_TOKEN.runtime();
    for i in own.start..own.end {
        found = min(
            found,
            select(keys[own.base + i] == key, weights[own.base + i], NO_TOKEN),
        );
    }
    let found = the_one(found, own.lane, meeting);
    select(found == NO_TOKEN, 1u32, max(found, 1u32))
}

/// The token of this key that has `n_before` others before it.
#[cube]
fn nth_of_key(keys: &[u32], own: &Stretch, key: u32, n_before: u32, meeting: &mut Meeting) -> u32 {
    let mut n_own = 0u32.runtime();
    for i in own.start..own.end {
        n_own += select(keys[own.base + i] == key, 1u32, 0u32);
    }
    let mut n_earlier = 0u32.runtime();
    sum(n_own, own.lane, meeting);
    for l in 0..own.lane {
        n_earlier += meeting.numbers[l];
    }
    let mut token = NO_TOKEN.runtime();
    for i in own.start..own.end {
        if keys[own.base + i] == key {
            if n_earlier == n_before {
                token = i as u32;
            }
            n_earlier += 1;
        }
    }
    the_one(token, own.lane, meeting)
}
