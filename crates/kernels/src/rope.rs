//! Rotary position embedding: the pairs of a head turn by angles proportional to the position
//! (Su et al. 2021), with the ways that models stretch it to longer contexts.
//!
//! All of them, YaRN included, amount to one frequency for each pair and one magnitude, both known at
//! load. The cosines and sines of a position are computed once and serve every head of every layer.

use std::f64::consts::PI;

/// Which two values of a head form pair `i` of `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// `2i` and `2i + 1`: GGUF's llama family.
    Adjacent,
    /// `i` and `i + n`: GPT-NeoX and what follows it.
    Halves,
}

/// YaRN, "NTK by parts" with a change of attention temperature (Peng et al. 2023), in ggml's parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// How much of the extrapolated angle is mixed into the interpolated one where a pair turns often; 1
    /// is YaRN as published.
    pub ext_factor: f32,
    /// Pairs that turn at least this often within the original context keep their frequency (usually 32).
    pub beta_fast: f32,
    /// Pairs that turn at most this often are interpolated (usually 1).
    pub beta_slow: f32,
    /// The context that the model was first trained for, in tokens.
    pub original_context: u32,
}

/// What defines a rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeParams<'a> {
    /// Which values form a pair.
    pub pairs: RopePairs,
    /// Values of a head that are rotated, the first ones; even. The others stay as they are.
    pub n_rot: usize,
    /// Pair `i` turns by `base^(−2i / n_rot)` a position.
    pub base: f32,
    /// Linear interpolation: positions are multiplied by this, 1 / the context's growth.
    pub scale: f32,
    /// Divisors of each pair's frequency (`rope_freqs.weight`), `n_rot / 2` of them.
    pub factors: Option<&'a [f32]>,
    /// Factor on cosine and sine, before YaRN's own; 1 in most models.
    pub attn_factor: f32,
    /// YaRN.
    pub yarn: Option<Yarn>,
}

/// A rotary embedding, ready to apply.
#[derive(Clone, Debug)]
pub struct Rope {
    pairs: RopePairs,
    /// Radians a position, of each pair.
    frequencies: Vec<f64>,
    magnitude: f64,
}

impl Rope {
    /// The frequencies that `params` ask for.
    ///
    /// # Panics
    /// If `n_rot` is odd or `factors` are not `n_rot / 2`.
    pub fn new(params: &RopeParams<'_>) -> Self {
        let n_pairs = params.n_rot / 2;
        assert!(params.n_rot.is_multiple_of(2), "rotated values come in pairs");
        assert!(params.factors.is_none_or(|f| f.len() == n_pairs), "a frequency factor for each pair");
        let scale = f64::from(params.scale);
        let frequency = |i: usize| {
            let factor = params.factors.map_or(1.0, |factors| f64::from(factors[i]));
            let plain = f64::from(params.base).powf(-2.0 * i as f64 / params.n_rot as f64) / factor;
            let kept = params.yarn.map_or(0.0, |yarn| yarn.kept(i, params));
            plain * (scale * (1.0 - kept) + kept)
        };
        let magnitude = match params.yarn {
            Some(yarn) if yarn.ext_factor != 0.0 => 1.0 - 0.1 * scale.ln(),
            _ => 1.0,
        };
        Rope {
            pairs: params.pairs,
            frequencies: (0..n_pairs).map(frequency).collect(),
            magnitude: magnitude * f64::from(params.attn_factor),
        }
    }

    /// Values of a head that are rotated; also the length of a position's row of angles.
    pub fn n_rot(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Writes the cosines of `position`, one a pair, and then its sines, into `angles`.
    ///
    /// # Panics
    /// If `angles.len() != n_rot()`.
    pub fn angles(&self, position: usize, angles: &mut [f32]) {
        assert_eq!(angles.len(), self.n_rot(), "a cosine and a sine for each pair");
        let (cosines, sines) = angles.split_at_mut(self.frequencies.len());
        for ((frequency, cosine), sine) in self.frequencies.iter().zip(cosines).zip(sines) {
            let (s, c) = (frequency * position as f64).sin_cos();
            *cosine = (c * self.magnitude) as f32;
            *sine = (s * self.magnitude) as f32;
        }
    }

    /// Rotates each head of `row`, heads of `head_dim` values, by a position's `angles`.
    ///
    /// # Panics
    /// If `angles.len() != n_rot()`, or a head is shorter than that.
    pub fn rotate(&self, angles: &[f32], row: &mut [f32], head_dim: usize) {
        let n_pairs = self.frequencies.len();
        assert_eq!(angles.len(), 2 * n_pairs, "a cosine and a sine for each pair");
        let (cosines, sines) = angles.split_at(n_pairs);
        let turn = |a: &mut f32, b: &mut f32, cosine: f32, sine: f32| {
            (*a, *b) = (*a * cosine - *b * sine, *a * sine + *b * cosine);
        };
        for head in row.chunks_exact_mut(head_dim) {
            let rotated = &mut head[..2 * n_pairs];
            match self.pairs {
                RopePairs::Adjacent => {
                    let pairs = rotated.as_chunks_mut::<2>().0.iter_mut();
                    for (([a, b], &cosine), &sine) in pairs.zip(cosines).zip(sines) {
                        turn(a, b, cosine, sine);
                    }
                }
                RopePairs::Halves => {
                    let (first, second) = rotated.split_at_mut(n_pairs);
                    for (((a, b), &cosine), &sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                        turn(a, b, cosine, sine);
                    }
                }
            }
        }
    }
}

impl Yarn {
    /// How much of its own frequency pair `i` keeps: 1 for those that turn fast, 0 for the slow.
    fn kept(&self, i: usize, params: &RopeParams<'_>) -> f64 {
        // The pair that makes `turns` turns within the original context.
        let pair_of = |turns: f32| {
            let wavelength = f64::from(self.original_context) / (f64::from(turns) * 2.0 * PI);
            params.n_rot as f64 * wavelength.ln() / (2.0 * f64::from(params.base).ln())
        };
        let low = pair_of(self.beta_fast).floor().max(0.0);
        let high = pair_of(self.beta_slow).ceil().min(params.n_rot as f64 - 1.0);
        let ramp = (i as f64 - low) / (high - low).max(0.001);
        (1.0 - ramp.clamp(0.0, 1.0)) * f64::from(self.ext_factor)
    }
}
