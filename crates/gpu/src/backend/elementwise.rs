//! Operations on values one by one, and on rows by their numbers.

use metallic::backend::{Activation, Columns, Temperature};

use super::Gpu;
use crate::error::Result;
use crate::kernels::{self, Call, Grid, Kernel};
use crate::memory::GpuBuffer;
use crate::recorder::Note;

/// Number of an activation in `shaders/activation.wgsl`.
pub(super) fn activation_number(activation: Activation) -> u32 {
    match activation {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
        Activation::GeluErf => 2,
        Activation::Relu => 3,
        Activation::ReluSquared => 4,
        Activation::Sigmoid => 5,
        Activation::Identity => 6,
        Activation::ClampedSwish => 7,
    }
}

impl Gpu {
    /// A kernel in which each invocation computes one of `len` values; that number comes before `params`.
    fn each_value<const N: usize>(
        &mut self,
        kernel: &Kernel,
        buffers: &[&GpuBuffer],
        len: usize,
        params: [u32; N],
    ) -> Result<()> {
        let mut all = vec![len as u32];
        all.extend(params);
        self.run(&Call::new(kernel, buffers, &all, Grid::Values(len)))
    }

    /// The same, with an activation.
    pub(super) fn each_activated(
        &mut self,
        kernel: &Kernel,
        activation: Activation,
        buffers: &[&GpuBuffer],
        len: usize,
    ) -> Result<()> {
        buffers.iter().for_each(|buffer| {
            buffer.expect(len);
        });
        let constants = [("ACTIVATION", activation_number(activation))];
        let params = [len as u32];
        self.run(&Call { constants: &constants, ..Call::new(kernel, buffers, &params, Grid::Values(len)) })
    }

    pub(super) fn clear_values(&mut self, x: &GpuBuffer, len: usize) -> Result<()> {
        self.each_value(&kernels::CLEAR, &[x.expect(len)], len, [])
    }

    pub(super) fn add_scaled(
        &mut self,
        acc: &GpuBuffer,
        x: &GpuBuffer,
        factor: f32,
        len: usize,
    ) -> Result<()> {
        self.each_value(&kernels::ADD, &[acc.expect(len), x.expect(len)], len, [factor.to_bits()])
    }

    pub(super) fn clamp_values(&mut self, x: &GpuBuffer, limit: f32, len: usize) -> Result<()> {
        self.each_value(&kernels::CLAMP, &[x.expect(len)], len, [limit.to_bits()])
    }

    pub(super) fn softcap_values(&mut self, x: &GpuBuffer, cap: f32, len: usize) -> Result<()> {
        self.each_value(&kernels::SOFTCAP, &[x.expect(len)], len, [cap.to_bits()])
    }

    pub(super) fn scale_values(&mut self, x: &GpuBuffer, factor: f32, len: usize) -> Result<()> {
        self.each_value(&kernels::SCALE, &[x.expect(len)], len, [factor.to_bits()])
    }

    pub(super) fn gate_each_row(
        &mut self,
        scores: &GpuBuffer,
        x: &GpuBuffer,
        n_rows: usize,
        width: usize,
    ) -> Result<()> {
        let buffers = [x.expect(n_rows * width), scores.expect(n_rows)];
        self.each_value(&kernels::GATE_ROWS, &buffers, n_rows * width, [width as u32])
    }

    pub(super) fn warm_rows(
        &mut self,
        temperature: Temperature,
        positions: &[u32],
        x: &GpuBuffer,
        width: usize,
    ) -> Result<()> {
        let factors: Vec<f32> = positions.iter().map(|position| temperature.at(*position as usize)).collect();
        if factors.iter().all(|factor| *factor == 1.0) {
            return Ok(());
        }
        let len = factors.len() * width;
        let ([factors_at], notes) = self.note([Note::Floats(&factors)])?;
        self.each_value(&kernels::SCALE_ROWS, &[x.expect(len), &notes], len, [width as u32, factors_at])
    }

    pub(super) fn divide(&mut self, x: &GpuBuffer, n_rows: usize, divisors: &GpuBuffer) -> Result<()> {
        let width = divisors.len();
        let len = n_rows * width;
        self.each_value(&kernels::DIVIDE_ROWS, &[x.expect(len), divisors], len, [width as u32])
    }

    pub(super) fn copy(
        &mut self,
        [from, to]: [&GpuBuffer; 2],
        [from_columns, to_columns]: [Columns; 2],
        width: usize,
        n_rows: usize,
    ) -> Result<()> {
        let Some(last_row) = n_rows.checked_sub(1) else { return Ok(()) };
        for (buffer, columns) in [(from, from_columns), (to, to_columns)] {
            buffer.expect(columns.first + last_row * columns.stride + width);
        }
        let params = [width, to_columns.first, to_columns.stride, from_columns.first, from_columns.stride]
            .map(|n| n as u32);
        self.each_value(&kernels::COPY_COLUMNS, &[to, from], n_rows * width, params)
    }

    pub(super) fn gather(
        &mut self,
        x: &GpuBuffer,
        rows: &[u32],
        width: usize,
        out: &GpuBuffer,
    ) -> Result<()> {
        let len = rows.len() * width;
        let ([rows_at], notes) = self.note([Note::Numbers(rows)])?;
        let buffers = [out.expect(len), x, &notes];
        self.each_value(&kernels::GATHER_ROWS, &buffers, len, [width as u32, rows_at])
    }

    /// Writes floats of the host's to a buffer, in the order of operations.
    pub(super) fn take_notes(&mut self, values: &[f32], to: &GpuBuffer, first: usize) -> Result<()> {
        let ([notes_at], notes) = self.note([Note::Floats(values)])?;
        let buffers = [to.expect(first + values.len()), &notes];
        self.each_value(&kernels::TAKE_NOTES, &buffers, values.len(), [first as u32, notes_at])
    }

    /// Rotates every head of every row, by angles of as many rows.
    pub(super) fn rotate_heads(
        &mut self,
        rope: &super::GpuRope,
        x: &GpuBuffer,
        (n_rows, n_heads, head_len): (usize, usize, usize),
    ) -> Result<()> {
        let n_pairs = rope.n_rot() / 2;
        let [partner, step] = rope.places();
        x.expect(n_rows * n_heads * head_len);
        let params = [n_pairs, n_heads, head_len, partner, step].map(|n| n as u32);
        let buffers = [x, rope.angles.expect(n_rows * rope.n_rot())];
        self.each_value(&kernels::ROTATE, &buffers, n_rows * n_heads * n_pairs, params)
    }
}
