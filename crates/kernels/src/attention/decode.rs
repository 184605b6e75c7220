//! A step of keys and values as the products take it: as it lies in the pages, or decoded from blocks.

use metallic_gguf::GgmlType;

use super::pages::{GROUP, KvView};
use super::{KvLayout, POSITIONS};
use crate::buffer::grow;
use crate::isa::Isa;
use crate::registry;

/// The keys and values of a head for the positions of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) number: usize,
    pub(super) keys: &'a [u8],
    pub(super) values: &'a [u8],
}

/// Room for a step of floats; empty where the products read the pages.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    keys: Vec<f32>,
    groups: Vec<f32>,
    values: Vec<f32>,
}

impl Decoded {
    /// Lengths of the three buffers.
    pub(super) fn sizes(layout: &KvLayout) -> [usize; 3] {
        let Some(format) = layout.kv_type().blocks() else { return [0; 3] };
        let [key, value] = layout.head_dims();
        let floats = |dim: usize| dim.saturating_add(format.block_len() - 1).saturating_mul(POSITIONS);
        [floats(key), key.saturating_mul(POSITIONS), floats(value)]
    }

    pub(super) fn reserve(&mut self, layout: &KvLayout) {
        let [keys, groups, values] = Self::sizes(layout);
        grow(&mut self.keys, keys, 0.0);
        grow(&mut self.groups, groups, 0.0);
        grow(&mut self.values, values, 0.0);
    }

    /// The step for queries at positions below `end`: later positions are not decoded.
    pub(super) fn step<'a>(
        &'a mut self,
        kv: &KvView<'a>,
        isa: Isa,
        number: usize,
        head: usize,
        end: usize,
    ) -> Step<'a> {
        let [keys, values] = kv.step(number, head);
        let Some(format) = kv.layout.kv_type().blocks() else { return Step { number, keys, values } };
        let n = POSITIONS.min(end - number * POSITIONS);
        let [key, value] = kv.layout.head_dims();
        let rows = decode(format, isa, keys, n, key, &mut self.keys);
        isa.run(
            #[inline(always)]
            || transpose(rows, key, &mut self.groups),
        );
        decode(format, isa, values, n, value, &mut self.values);
        let (keys, values) = (&self.groups[..POSITIONS * key], &self.values[..POSITIONS * value]);
        Step { number, keys: bytes(keys), values: bytes(values) }
    }
}

/// Keys of 32 positions after another, column by column.
#[inline(always)]
fn transpose(keys: &[f32], dim: usize, groups: &mut [f32]) {
    for (keys, group) in keys.chunks(GROUP * dim).zip(groups.chunks_exact_mut(GROUP * dim)) {
        let columns = group.as_chunks_mut::<GROUP>().0;
        // Four positions at a time: so the compiler shuffles registers.
        for (i, keys) in keys.chunks(4 * dim).enumerate() {
            let mut rows = [&[] as &[f32]; 4];
            rows.iter_mut().zip(keys.chunks_exact(dim)).for_each(|(row, key)| *row = key);
            if let [a, b, c, d] = rows
                && d.len() == dim
            {
                for ((((column, a), b), c), d) in columns.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    column[4 * i..4 * i + 4].copy_from_slice(&[*a, *b, *c, *d]);
                }
            } else {
                for (p, key) in rows.iter().enumerate() {
                    columns.iter_mut().zip(*key).for_each(|(column, x)| column[4 * i + p] = *x);
                }
            }
        }
    }
}

/// Floats as the products read them.
fn bytes(x: &[f32]) -> &[u8] {
    // SAFETY: the bytes of the slice, all of which are initialised.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }
}

/// The first `n` of a step's keys or values, without what their last blocks are filled up with.
fn decode<'a>(
    format: GgmlType,
    isa: Isa,
    step: &[u8],
    n: usize,
    dim: usize,
    rows: &'a mut [f32],
) -> &'a [f32] {
    let width = dim.next_multiple_of(format.block_len());
    (registry::ops(format, isa).decode)(&step[..step.len() / POSITIONS * n], &mut rows[..n * width]);
    if width > dim {
        (1..n).for_each(|i| rows.copy_within(i * width..i * width + dim, i * dim));
    }
    &rows[..n * dim]
}
