//! Mixers that remember a state: each takes the rows of one sequence in order, in one dispatch, parallel over channels or
//! over the values of heads.

use metallic::backend::{CausalConv, DeltaNet, KeyHeads, Mamba2, Span};

use super::Gpu;
use super::elementwise::activation_number;
use crate::error::{Error, Result};
use crate::kernels::{self, Call, Constants, Grid};
use crate::memory::GpuBuffer;

/// Invocations of a workgroup in kernels with `recurrence.wgsl`.
const GROUP_LEN: usize = 64;

/// Numbers of a state's row that an invocation has, where it can be helped: few enough that several workgroups find room.
const HELD_BY_ONE: usize = 32;

/// The same at most: with it the invocations of a workgroup have as much as every device lets them share.
const MAX_HELD_BY_ONE: usize = 60;

/// How rows of a state are divided among invocations.
struct Division {
    constants: Constants,
    n_groups: usize,
}

impl Division {
    /// Of `n_head` heads of `head_dim` rows of `row_len` numbers.
    ///
    /// # Errors
    /// A row that no workgroup has room for.
    fn new(n_head: usize, head_dim: usize, row_len: usize) -> Result<Self> {
        let mut lanes = 8;
        while lanes < GROUP_LEN && row_len.div_ceil(lanes) > HELD_BY_ONE {
            lanes *= 2;
        }
        let held = row_len.div_ceil(lanes);
        if held > MAX_HELD_BY_ONE {
            return Err(Error::unsupported(format!("a state with rows of {row_len} numbers")));
        }
        let constants = [("LANES", lanes as u32), ("STATE_LEN", (GROUP_LEN * held) as u32)];
        Ok(Self { constants: constants.into(), n_groups: n_head * head_dim.div_ceil(GROUP_LEN / lanes) })
    }
}

/// Values of a buffer up to the end of a span, of rows of `width`.
fn end(span: &Span<'_>, width: usize) -> usize {
    (span.first_row + span.n_rows) * width
}

/// Where the state of a span's sequence begins, and whether it begins with zeros.
fn state_of(states: &GpuBuffer, span: &Span<'_>, len: usize) -> [usize; 2] {
    states.expect((span.slot + 1) * len);
    [span.slot * len, usize::from(span.start == 0)]
}

impl Gpu {
    pub(super) fn convolve(
        &mut self,
        conv: &CausalConv<'_, Self>,
        history: &GpuBuffer,
        span: &Span<'_>,
        x: &GpuBuffer,
        out: &GpuBuffer,
    ) -> Result<()> {
        let CausalConv { kernel, bias, activation, n_channels } = *conv;
        let (n_taps, len, nothing) =
            (kernel.len() / n_channels, span.n_rows * n_channels, self.nothing.clone());
        let [first_history, is_new] = state_of(history, span, (n_taps - 1) * n_channels);
        out.expect(end(span, n_channels));
        x.expect(end(span, n_channels));
        let params =
            [len, n_channels, span.first_row, n_taps, first_history, is_new, usize::from(bias.is_some())]
                .map(|n| n as u32);
        let constants = [("ACTIVATION", activation_number(activation))];
        let buffers = [out, x, history, kernel, bias.unwrap_or(&nothing)];
        let call = Call::new(&kernels::CAUSAL_CONV, &buffers, &params, Grid::Values(len));
        self.run(&Call { constants: &constants, ..call })?;
        let params =
            [n_channels, span.first_row, span.n_rows, n_taps - 1, first_history, is_new].map(|n| n as u32);
        let grid = Grid::Values(if len == 0 || n_taps == 1 { 0 } else { n_channels });
        self.run(&Call::new(&kernels::REMEMBER, &[history, x], &params, grid))
    }

    /// Of inputs and steps of time.
    pub(super) fn run_mamba2(
        &mut self,
        mixer: &Mamba2<'_, Self>,
        state: &GpuBuffer,
        span: &Span<'_>,
        [x_b_c, dt]: [&GpuBuffer; 2],
        out: &GpuBuffer,
    ) -> Result<()> {
        let Mamba2 { shape, a, d, dt_bias } = *mixer;
        let [first_state, is_new] = state_of(state, span, shape.inner() * shape.d_state);
        let division = Division::new(shape.n_head, shape.head_dim, shape.d_state)?;
        let params = [
            division.n_groups,
            span.first_row,
            span.n_rows,
            shape.n_head,
            shape.head_dim,
            shape.d_state,
            shape.n_group,
            first_state,
            is_new,
        ]
        .map(|n| n as u32);
        let buffers = [
            out.expect(end(span, shape.inner())),
            state,
            x_b_c.expect(end(span, shape.n_channels())),
            dt.expect(end(span, shape.n_head)),
            a,
            d,
            dt_bias,
        ];
        let grid = Grid::Groups(if span.n_rows == 0 { 0 } else { division.n_groups });
        let call = Call::new(&kernels::MAMBA2, &buffers, &params, grid);
        self.run(&Call { constants: &division.constants, ..call })
    }

    /// Of queries, keys and values, of which the first two are made of length 1 where they are, and of betas and alphas.
    pub(super) fn run_delta_net(
        &mut self,
        net: &DeltaNet<'_, Self>,
        state: &GpuBuffer,
        span: &Span<'_>,
        [q_k_v, beta, alpha]: [&GpuBuffer; 3],
        out: &GpuBuffer,
    ) -> Result<()> {
        let DeltaNet { shape, a, dt_bias, eps } = *net;
        let [first_state, is_new] = state_of(state, span, shape.inner() * shape.key_dim);
        let division = Division::new(shape.n_value_head, shape.value_dim, shape.key_dim)?;
        q_k_v.expect(end(span, shape.n_channels()));
        let in_row = 2 * shape.n_key_head;
        let n_vectors = span.n_rows * in_row;
        let numbers = [n_vectors, span.first_row, in_row, shape.key_dim, shape.n_channels()];
        let [n_groups, first_row, in_row, len, stride] = numbers.map(|n| n as u32);
        let params = [n_groups, first_row, in_row, len, stride, eps.to_bits()];
        self.run(&Call::new(&kernels::UNIT_LENGTH, &[q_k_v], &params, Grid::Groups(n_vectors)))?;
        let params = [
            division.n_groups,
            span.first_row,
            span.n_rows,
            shape.n_key_head,
            shape.n_value_head,
            shape.key_dim,
            shape.value_dim,
            usize::from(shape.key_heads == KeyHeads::InTurn),
            first_state,
            is_new,
        ]
        .map(|n| n as u32);
        let buffers = [
            out.expect(end(span, shape.inner())),
            state,
            q_k_v,
            beta.expect(end(span, shape.n_value_head)),
            alpha.expect(end(span, shape.n_value_head)),
            a,
            dt_bias,
        ];
        let grid = Grid::Groups(if span.n_rows == 0 { 0 } else { division.n_groups });
        let call = Call::new(&kernels::DELTA_NET, &buffers, &params, grid);
        self.run(&Call { constants: &division.constants, ..call })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_state_are_divided_whole_and_fit() {
        let of = |row_len: usize| {
            let division = Division::new(3, 10, row_len).expect("a division");
            (division.constants[0].1, division.constants[1].1, division.n_groups)
        };
        assert_eq!(of(1), (8, 64, 6));
        assert_eq!(of(256), (8, 2048, 6));
        assert_eq!(of(257), (16, 64 * 17, 9));
        assert_eq!(of(60 * 64), (64, 64 * 60, 30));
        assert!(matches!(Division::new(1, 1, 60 * 64 + 1), Err(Error::Unsupported { .. })));
    }
}
