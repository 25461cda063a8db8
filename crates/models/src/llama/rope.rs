//! Frequencies of rotary position embeddings, with the scalings that GGUF files of the Llama family name.
//!
//! Pair `i` of a head turns by `position * inv_freq[i]`; the kernels do the turning. Su et al. 2021, "RoFormer: Enhanced
//! Transformer with Rotary Position Embedding"; YaRN: Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large
//! Language Models"; the meaning of the keys is that of ggml's `rope_yarn`.

use cinderlm_kernels::RopeLayout;

/// How positions past the trained context are brought back into it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all, or by a `rope_freqs.weight` tensor.
    None,
    /// Every frequency is divided by `factor`.
    Linear {
        /// At least 1 in sensible files, above 0 in any.
        factor: f32,
    },
    /// High frequencies are kept, low ones divided, with a ramp between.
    Yarn {
        /// What low frequencies are divided by.
        factor: f32,
        /// Context length before the extension, in tokens.
        original_context: usize,
        /// Share of the ramp that is applied: 1 is YaRN, 0 is linear.
        extrapolation: f32,
        /// Pairs that turn more often than this within the original context are kept.
        beta_fast: f32,
        /// Pairs that turn less often than this are divided by the whole factor.
        beta_slow: f32,
    },
}

/// The rotation of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Which elements of a head make a pair.
    pub layout: RopeLayout,
    /// Elements of each head that turn; even.
    pub n_rotary: usize,
    /// Pair `i` turns by `base^(-2i / n_rotary)` per position before scaling.
    pub base: f32,
    /// The context extension.
    pub scaling: RopeScaling,
    /// Factor on sine and cosine that the file asks for, 1 by default.
    pub magnitude: f32,
}

/// What the kernels need to turn queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RopeFrequencies {
    /// Radians per position, one per pair.
    pub(crate) inv_freq: Vec<f32>,
    /// Factor on sine and cosine.
    pub(crate) magnitude: f32,
}

impl RopeConfig {
    /// The frequencies. `divisors` is the content of `rope_freqs.weight`: one divisor per pair.
    pub(crate) fn frequencies(&self, divisors: Option<&[f32]>) -> RopeFrequencies {
        let inv_freq = (0..self.n_rotary / 2)
            .map(|pair| {
                let exponent = -2.0 * pair as f64 / self.n_rotary as f64;
                let divisor = divisors
                    .and_then(|all| all.get(pair))
                    .copied()
                    .unwrap_or(1.0);
                let plain = f64::from(self.base).powf(exponent) / f64::from(divisor);
                (plain * self.stretch(pair)) as f32
            })
            .collect();
        RopeFrequencies {
            inv_freq,
            magnitude: self.magnitude * self.yarn_magnitude(),
        }
    }

    /// What the scaling multiplies the frequency of `pair` by.
    fn stretch(&self, pair: usize) -> f64 {
        match self.scaling {
            RopeScaling::None => 1.0,
            RopeScaling::Linear { factor } => 1.0 / f64::from(factor),
            RopeScaling::Yarn {
                factor,
                original_context,
                extrapolation,
                beta_fast,
                beta_slow,
            } => {
                let last = (self.n_rotary - 1) as f64;
                let low = self
                    .pair_turning(beta_fast, original_context)
                    .floor()
                    .max(0.0);
                let high = self
                    .pair_turning(beta_slow, original_context)
                    .ceil()
                    .min(last);
                let ramp = ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                let kept = (1.0 - ramp) * f64::from(extrapolation);
                (1.0 - kept) / f64::from(factor) + kept
            }
        }
    }

    /// The pair, as a fraction, that turns `n_turns` times within `context` positions.
    fn pair_turning(&self, n_turns: f32, context: usize) -> f64 {
        let positions_per_turn = context as f64 / (f64::from(n_turns) * std::f64::consts::TAU);
        self.n_rotary as f64 * positions_per_turn.ln() / (2.0 * f64::from(self.base).ln())
    }

    /// YaRN's correction of the attention temperature, split over queries and keys.
    fn yarn_magnitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn {
                factor,
                extrapolation,
                ..
            } if extrapolation != 0.0 && factor > 1.0 => 1.0 + 0.1 * factor.ln(),
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(scaling: RopeScaling) -> RopeConfig {
        RopeConfig {
            layout: RopeLayout::Interleaved,
            n_rotary: 8,
            base: 10000.0,
            scaling,
            magnitude: 1.0,
        }
    }

    fn check(config: &RopeConfig, divisors: Option<&[f32]>, expected: [f32; 4], magnitude: f32) {
        let actual = config.frequencies(divisors);
        for (actual, expected) in actual.inv_freq.iter().zip(expected) {
            assert!(
                (actual - expected).abs() <= 1e-6 * expected,
                "{actual} is not {expected} with {config:?}"
            );
        }
        assert_eq!(actual.inv_freq.len(), 4);
        assert!((actual.magnitude - magnitude).abs() < 1e-6);
    }

    #[test]
    fn scalings() {
        check(
            &config(RopeScaling::None),
            None,
            [1.0, 0.1, 0.01, 0.001],
            1.0,
        );
        check(
            &config(RopeScaling::None),
            Some(&[1.0, 2.0, 4.0, 8.0]),
            [1.0, 0.05, 0.0025, 0.000125],
            1.0,
        );
        check(
            &config(RopeScaling::Linear { factor: 4.0 }),
            None,
            [0.25, 0.025, 0.0025, 0.00025],
            1.0,
        );
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_divides_slow_ones() {
        let yarn = RopeScaling::Yarn {
            factor: 4.0,
            original_context: 256,
            extrapolation: 1.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        };
        // The ramp runs from pair floor(0.105) = 0 to pair ceil(1.610) = 2.
        check(
            &config(yarn),
            None,
            [1.0, 0.1 * 0.625, 0.0025, 0.00025],
            1.0 + 0.1 * 4f32.ln(),
        );
    }

    #[test]
    fn yarn_without_extrapolation_is_linear() {
        let yarn = RopeScaling::Yarn {
            factor: 2.0,
            original_context: 256,
            extrapolation: 0.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        };
        check(&config(yarn), None, [0.5, 0.05, 0.005, 0.0005], 1.0);
    }
}
