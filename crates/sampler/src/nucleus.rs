//! Top-p (nucleus) filtering, after Holtzman et al., "The Curious Case of Neural Text Degeneration"
//! (2019).

use std::cmp::Ordering;

/// A token that may still be drawn, with its unnormalised probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) token: u32,
    pub(crate) weight: f32,
}

/// Likeliest first, ties to the lowest id: a total order, so that the nucleus is the same on every
/// run.
fn likeliest_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token))
}

/// Fills `candidates` with the smallest set of the likeliest tokens whose weights reach `top_p *
/// total`, likeliest first, and returns the set's weight. The set is never empty as long as some
/// weight is above zero.
///
/// `weights[token]` are finite and not negative, `total` is their sum, `0 <= top_p < 1`.
///
/// Only a fraction of the vocabulary is sorted. A token belongs to the nucleus if the tokens before
/// it weigh less than `top_p * total`; it and all that come after then weigh more than
/// `rest = (1 - top_p) * total`. They are at most `weights.len()` and none is heavier, so its weight
/// is above `rest / weights.len()`. Everything below half of that is left out unsorted; the half is
/// a margin for rounding.
pub(crate) fn nucleus(
    weights: &[f32],
    top_p: f64,
    total: f64,
    candidates: &mut Vec<Candidate>,
) -> f64 {
    let cutoff = 0.5 * (1.0 - top_p) * total / weights.len() as f64;
    candidates.clear();
    candidates.extend(
        (0u32..)
            .zip(weights)
            .filter(|&(_, &weight)| weight > 0.0 && f64::from(weight) >= cutoff)
            .map(|(token, &weight)| Candidate { token, weight }),
    );
    candidates.sort_unstable_by(likeliest_first);

    let target = top_p * total;
    let mut mass = 0.0;
    let mut n_kept = 0;
    for candidate in candidates.iter() {
        mass += f64::from(candidate.weight);
        n_kept += 1;
        if mass >= target {
            break;
        }
    }
    candidates.truncate(n_kept);
    mass
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn nucleus_of(weights: &[f32], top_p: f64) -> Vec<u32> {
        let total = weights.iter().map(|&weight| f64::from(weight)).sum();
        let mut candidates = Vec::new();
        let mass = nucleus(weights, top_p, total, &mut candidates);
        let kept: f64 = candidates
            .iter()
            .map(|candidate| f64::from(candidate.weight))
            .sum();
        assert_eq!(mass, kept);
        candidates.iter().map(|candidate| candidate.token).collect()
    }

    /// The definition, word for word: sort everything, take until the mass is reached.
    fn sorted_reference(weights: &[f32], top_p: f64) -> Vec<u32> {
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        let mut kept = Vec::new();
        let mut mass = 0.0;
        for token in order {
            if !kept.is_empty() && (mass >= top_p * total || weights[token] == 0.0) {
                break;
            }
            mass += f64::from(weights[token]);
            kept.push(token as u32);
        }
        kept
    }

    #[test]
    fn known_sets() {
        let check = |weights: &[f32], top_p: f64, expect: &[u32]| {
            assert_eq!(
                nucleus_of(weights, top_p),
                expect,
                "top {top_p} of {weights:?}"
            );
        };
        check(&[0.125, 0.5, 0.375], 0.0, &[1]);
        check(&[0.125, 0.5, 0.375], 0.5, &[1]);
        check(&[0.125, 0.5, 0.375], 0.501, &[1, 2]);
        check(&[0.125, 0.5, 0.375], 0.875, &[1, 2]);
        check(&[0.125, 0.5, 0.375], 0.999, &[1, 2, 0]);
        // Weights need no normalising.
        check(&[1.0, 4.0, 3.0], 0.5, &[1]);
        // Equal weights go in by id.
        check(&[1.0, 1.0, 1.0, 1.0], 0.5, &[0, 1]);
        check(&[0.0, 1.0, 0.0], 0.999, &[1]);
        check(&[2.0], 0.0, &[0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 256,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn equals_the_sorted_reference(
            // Few distinct exponents make many ties; the range makes both flat and peaked rows.
            exponents in prop::collection::vec(-30i32..=0, 1..300),
            sharpness in 0.0f32..3.0,
            top_p in 0.0f64..1.0,
        ) {
            let mut weights: Vec<f32> =
                exponents.iter().map(|&exponent| (exponent as f32 * sharpness).exp()).collect();
            weights[0] = 1.0;
            prop_assert_eq!(nucleus_of(&weights, top_p), sorted_reference(&weights, top_p));
        }
    }
}
