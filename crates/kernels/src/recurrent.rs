//! Mixers that remember a state of fixed size where attention remembers all keys and values.
//!
//! Each takes the rows of one sequence, in order, and leaves the state as it is after the last of them. Heads are
//! independent of each other and shared out among threads; a head reads its rows one by one, so results do not depend
//! on how the rows of a sequence are divided among calls.

use std::sync::{Mutex, PoisonError};

use crate::activation::{self, Activation};
use crate::isa::Isa;
use crate::lanes;
use crate::pool::ThreadPool;

/// A convolution over time, of each channel by itself, that sees the present and the past.
#[derive(Clone, Copy, Debug)]
pub struct CausalConv<'a> {
    /// Of each channel, the weights of its last inputs, the oldest first: `[n_channels][len]`.
    pub kernel: &'a [f32],
    /// A summand for each channel.
    pub bias: Option<&'a [f32]>,
    /// What the sums go through.
    pub activation: Activation,
    /// Channels in a row.
    pub n_channels: usize,
}

impl CausalConv<'_> {
    /// Inputs that an output is made of.
    fn len(&self) -> usize {
        self.kernel.len() / self.n_channels
    }

    /// Values in the history: the inputs before the first row, the oldest first.
    fn history_len(&self) -> usize {
        (self.len() - 1) * self.n_channels
    }

    /// Convolves the rows of `x`, and puts the last of them into `history`.
    ///
    /// # Panics
    /// If `x` and `out` are not as many whole rows, or `history` has not a row less than the kernel is long.
    pub fn run(&self, pool: &ThreadPool, isa: Isa, history: &mut [f32], x: &[f32], out: &mut [f32]) {
        let (n_channels, len) = (self.n_channels, self.len());
        assert_eq!(x.len(), out.len(), "an output for each input");
        assert_eq!(history.len(), self.history_len(), "a row for each input before the present");
        let before: &[f32] = history;
        pool.split_rows(out, n_channels, &|first, out| {
            for (i, out) in out.chunks_exact_mut(n_channels).enumerate() {
                // The first input that counts, among those of the history and then those of `x`.
                let oldest = first + i;
                let row = |tap: usize| match (oldest + tap).checked_sub(len - 1) {
                    Some(row) => &x[row * n_channels..][..n_channels],
                    None => &before[(oldest + tap) * n_channels..][..n_channels],
                };
                match self.bias {
                    Some(bias) => out.copy_from_slice(bias),
                    None => out.fill(0.0),
                }
                for tap in 0..len {
                    let weights = self.kernel.iter().skip(tap).step_by(len);
                    out.iter_mut().zip(row(tap)).zip(weights).for_each(|((out, x), w)| *out += w * x);
                }
                activation::activate(isa, self.activation, out);
            }
        });
        remember(history, x);
    }
}

/// Keeps the last values of `history` followed by `x`.
fn remember(history: &mut [f32], x: &[f32]) {
    let n_old = history.len().saturating_sub(x.len());
    history.copy_within(history.len() - n_old.., 0);
    let n_new = history.len() - n_old;
    history[n_old..].copy_from_slice(&x[x.len() - n_new..]);
}

/// A selective state space with one decay for each head (Dao and Gu 2024, Mamba-2).
///
/// With `s = softplus(dt + dt_bias)`, each head's state `S`, `head_dim` rows of `d_state`, becomes
/// `e^(a · s) · S + s · x ⊗ B`, and the output is `S · C + d · x`.
#[derive(Clone, Copy, Debug)]
pub struct Mamba2<'a> {
    /// Values of a head.
    pub head_dim: usize,
    /// Columns of the state.
    pub d_state: usize,
    /// Pairs of `B` and `C`; each serves as many adjacent heads.
    pub n_group: usize,
    /// A negative rate of decay for each head.
    pub a: &'a [f32],
    /// What passes by the state, for each head.
    pub d: &'a [f32],
    /// For each head.
    pub dt_bias: &'a [f32],
}

impl Mamba2<'_> {
    /// Values in the state of a sequence.
    pub fn state_len(&self) -> usize {
        self.a.len() * self.head_dim * self.d_state
    }

    /// Reads rows of `x`, `B` of all groups, `C` of all groups, and rows of `dt`. Writes outputs head after head,
    /// `[n_head][n_rows][head_dim]`.
    ///
    /// # Panics
    /// If the lengths do not go with each other.
    pub fn run(
        &self,
        pool: &ThreadPool,
        isa: Isa,
        state: &mut [f32],
        x_b_c: &[f32],
        dt: &[f32],
        out: &mut [f32],
    ) {
        let (n_head, group_len) = (self.a.len(), self.n_group * self.d_state);
        let (inner, n_rows) = (n_head * self.head_dim, dt.len() / n_head);
        assert_eq!(x_b_c.len(), n_rows * (inner + 2 * group_len), "a row of inputs for each of dt");
        let head_len = self.head_dim * self.d_state;
        each_head(pool, (state, head_len), (out, n_rows * self.head_dim), |head, state, out| {
            let group = head * self.n_group / n_head * self.d_state;
            let rows = x_b_c.chunks_exact(inner + 2 * group_len).zip(dt.chunks_exact(n_head));
            for ((row, dt), out) in rows.zip(out.chunks_exact_mut(self.head_dim)) {
                let step = activation::softplus(dt[head] + self.dt_bias[head]);
                let decay = (self.a[head] * step).exp();
                let (x, b_c) = row.split_at(inner);
                let x = &x[head * self.head_dim..][..self.head_dim];
                let b = &b_c[group..][..self.d_state];
                let c = &b_c[group_len + group..][..self.d_state];
                isa.run(
                    #[inline(always)]
                    || {
                        for ((state, x), out) in state.chunks_exact_mut(self.d_state).zip(x).zip(out) {
                            let input = x * step;
                            state.iter_mut().zip(b).for_each(|(s, b)| *s = *s * decay + b * input);
                            *out = lanes::dot(state, c) + self.d[head] * x;
                        }
                    },
                );
            }
        });
    }
}

/// How key heads serve value heads, of which there may be more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyHeads {
    /// Each serves as many adjacent value heads.
    Adjacent,
    /// Value head `h` takes key head `h` modulo their number.
    InTurn,
}

/// The gated delta rule (Yang et al. 2024).
///
/// With keys and queries of length 1, `g = e^(a · softplus(alpha + dt_bias))` and `β = sigmoid(beta)`, each head's state
/// `S`, a row for each value of a key's length, becomes `g · S`, then `S + β · (v − S · k) ⊗ k`, and the output is
/// `S · q / √key_dim`.
#[derive(Clone, Copy, Debug)]
pub struct DeltaNet<'a> {
    /// Heads of queries and keys.
    pub n_key_head: usize,
    /// Length of a query or key.
    pub key_dim: usize,
    /// Length of a value.
    pub value_dim: usize,
    /// Which of them a value head takes.
    pub key_heads: KeyHeads,
    /// A negative rate of decay for each value head.
    pub a: &'a [f32],
    /// For each value head.
    pub dt_bias: &'a [f32],
    /// Added to the square of a query's or key's length.
    pub eps: f32,
}

impl DeltaNet<'_> {
    /// Values in the state of a sequence.
    pub fn state_len(&self) -> usize {
        self.a.len() * self.key_dim * self.value_dim
    }

    /// Reads rows of queries, keys and values, and rows of `beta` and of `alpha`. Makes the queries and keys of length 1
    /// where they are. Writes outputs head after head, `[n_head][n_rows][value_dim]`.
    ///
    /// # Panics
    /// If the lengths do not go with each other.
    #[expect(clippy::too_many_arguments, reason = "an operation, its operands and where it runs")]
    pub fn run(
        &self,
        pool: &ThreadPool,
        isa: Isa,
        state: &mut [f32],
        q_k_v: &mut [f32],
        beta: &[f32],
        alpha: &[f32],
        out: &mut [f32],
    ) {
        let (n_head, keys_len) = (self.a.len(), self.n_key_head * self.key_dim);
        let (width, n_rows) = (2 * keys_len + n_head * self.value_dim, beta.len() / n_head);
        assert_eq!(q_k_v.len(), n_rows * width, "a row of inputs for each of beta");
        assert_eq!(alpha.len(), beta.len(), "an alpha for each beta");
        pool.split_rows(q_k_v, width, &|_, rows| {
            for row in rows.chunks_exact_mut(width) {
                let vectors = row[..2 * keys_len].chunks_exact_mut(self.key_dim);
                isa.run(
                    #[inline(always)]
                    || {
                        vectors.for_each(|x| {
                            let factor = 1.0 / (lanes::dot(x, x) + self.eps).sqrt();
                            activation::scale(x, factor);
                        });
                    },
                );
            }
        });
        let q_k_v: &[f32] = q_k_v;
        let head_len = self.key_dim * self.value_dim;
        each_head(pool, (state, head_len), (out, n_rows * self.value_dim), |head, state, out| {
            let key_head = match self.key_heads {
                KeyHeads::Adjacent => head * self.n_key_head / n_head,
                KeyHeads::InTurn => head % self.n_key_head,
            };
            for (i, out) in out.chunks_exact_mut(self.value_dim).enumerate() {
                let (q, k_v) = q_k_v[i * width..][..width].split_at(keys_len);
                let q = &q[key_head * self.key_dim..][..self.key_dim];
                let k = &k_v[key_head * self.key_dim..][..self.key_dim];
                let v = &k_v[keys_len + head * self.value_dim..][..self.value_dim];
                let step = activation::softplus(alpha[i * n_head + head] + self.dt_bias[head]);
                let decay = (self.a[head] * step).exp();
                let share = activation::sigmoid(beta[i * n_head + head]);
                let scale = 1.0 / (self.key_dim as f32).sqrt();
                isa.run(
                    #[inline(always)]
                    || {
                        for ((state, v), out) in state.chunks_exact_mut(self.key_dim).zip(v).zip(out) {
                            activation::scale(state, decay);
                            let change = share * (v - lanes::dot(state, k));
                            activation::add_scaled(state, change, k);
                            *out = lanes::dot(state, q) * scale;
                        }
                    },
                );
            }
        });
    }
}

/// `work(head, state, out)` for each head, on whichever thread is free; lengths are those of a head's part.
fn each_head(
    pool: &ThreadPool,
    (state, state_len): (&mut [f32], usize),
    (out, out_len): (&mut [f32], usize),
    work: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    assert_eq!(state.len() / state_len, out.len() / out_len, "a state and an output for each head");
    let heads = Mutex::new(state.chunks_exact_mut(state_len).zip(out.chunks_exact_mut(out_len)).enumerate());
    pool.run(&|_| {
        loop {
            let next = heads.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((head, (state, out))) = next else { break };
            work(head, state, out);
        }
    });
}
