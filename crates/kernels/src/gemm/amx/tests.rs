//! What becomes of weights and activations, with plain loops in the unit's place; and where there is one, the unit itself.

use metallic_gguf::GgmlType;

use super::super::numbers::{Bf16, Bf16Tile, Block as _, Numbers};
use super::super::{Gemm, Line, Product, TOKENS, numbers::cast_mut};
use super::*;
use crate::gemm::{Functions, ROWS};
use crate::isa::Isa;
use crate::matmul::InputRows;
use crate::registry;
use crate::tiles::{Operand, ROW_BYTES, Sums, Tiles};

/// What the unit does with a panel and a tile: sums of pairs, in an order that is its own.
fn multiply(panel: &[Bf16Panel], tile: &[Bf16Tile], out: &mut Product) {
    let float = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    for (panel, tile) in panel.iter().zip(tile) {
        for (t, token) in tile.0.iter().enumerate() {
            for (two, x) in panel.0.iter().zip(token.as_chunks::<2>().0) {
                for (out, w) in out[t].iter_mut().zip(two) {
                    *out += float(w[0]) * float(x[0]) + float(w[1]) * float(x[1]);
                }
            }
        }
    }
}

/// A source of numbers, the same each time (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }
}

/// Numbers between −1 and 1.
fn numbers(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| random.bits().cast_signed() as f32 / i32::MAX as f32).collect()
}

/// Rows of bytes whose weights are of ordinary size.
fn rows(random: &mut Random, ops: &registry::QuantOps, row_len: usize, n: usize) -> Vec<u8> {
    let (len, bytes) = (ops.ggml_type.block_len(), ops.ggml_type.block_bytes());
    let mut rows = Vec::new();
    while rows.len() < n * row_len / len * bytes {
        let block: Vec<u8> = (0..bytes).map(|_| (random.bits() >> 24) as u8).collect();
        let mut weights = vec![0.0; len];
        (ops.decode)(&block, &mut weights);
        if weights.iter().all(|w| w.abs() < 1e3) {
            rows.extend(block);
        }
    }
    rows
}

/// Σ (found − exact)² / Σ exact², over all rows and tokens, of products of 19 rows and 16 tokens.
fn error(ggml_type: GgmlType, functions: &Functions<Bf16>) -> f64 {
    let (n_rows, row_len) = (19, 512);
    let scalar = registry::ops(ggml_type, Isa::Scalar);
    let mut random = Random(1);
    let bytes = rows(&mut random, &scalar, row_len, n_rows);
    let x = numbers(&mut random, TOKENS * row_len);
    let (row_bytes, n_blocks) = (bytes.len() / n_rows, row_len / Q8_LEN);

    let mut lines = vec![Line::ZERO; 2 * n_blocks * Bf16Panel::LINES];
    let panels: &mut [Bf16Panel] = cast_mut(&mut lines);
    for (rows, panel) in bytes.chunks(ROWS * row_bytes).zip(panels.chunks_exact_mut(n_blocks)) {
        (functions.expand)(rows, row_bytes, panel);
    }
    let mut lines = vec![Line::ZERO; n_blocks * Bf16Tile::LINES];
    let tiles: &mut [Bf16Tile] = cast_mut(&mut lines);
    for (t, x) in x.chunks_exact(row_len).enumerate() {
        let input = InputRows { floats: x.to_vec(), ..InputRows::default() };
        Bf16::set(tiles, t, &input);
    }
    let mut out = [Product::default(); 2];
    for (panel, out) in panels.chunks_exact(n_blocks).zip(&mut out) {
        multiply(panel, tiles, out);
    }

    let (mut squares, mut power) = (0.0, 0.0);
    for (r, row) in bytes.chunks_exact(row_bytes).enumerate() {
        let mut weights = vec![0.0; row_len];
        (scalar.decode)(row, &mut weights);
        for (t, x) in x.chunks_exact(row_len).enumerate() {
            let exact: f64 = weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            squares += (f64::from(out[r / ROWS][t][r % ROWS]) - exact).powi(2);
            power += exact.powi(2);
        }
    }
    squares / power
}

/// Whether this CPU has what makes panels: all that `Isa::Amx` proves but the tiles.
fn has_bf16() -> bool {
    Isa::available().contains(&Isa::Avx512) && is_x86_feature_detected!("avx512bf16")
}

/// Every type that has tiles on a CPU with AMX, by its name.
fn each_type(check: impl Fn(GgmlType, &Functions<Bf16>)) {
    if !has_bf16() {
        return;
    }
    let mut n = 0;
    for &ggml_type in GgmlType::ALL {
        // Only the proof is missing that there are tiles, which none of this needs.
        if let Some(Gemm::Bf16(functions)) = registry::ops(ggml_type, Isa::Amx).gemm {
            check(ggml_type, &functions);
            n += 1;
        }
    }
    assert!(n > 20, "only {n} types");
}

/// Two roundings to bfloat16 come to some 5e-6: less than 8 bits with a scale for each 32.
#[test]
fn products_in_bfloat16_are_more_exact_than_in_8_bits() {
    each_type(|ggml_type, functions| {
        let error = error(ggml_type, functions);
        assert!(error < 1e-5, "{ggml_type}: {error:e}");
    });
}

/// A scale that is no number, whichever it is, must not become weights that are numbers.
#[test]
fn weights_that_are_no_numbers_stay_none() {
    each_type(|ggml_type, functions| {
        if ggml_type != GgmlType::Q8_0 {
            return;
        }
        for scale in [0x7e00_u16, 0x7fff, 0xfc01, 0xffff] {
            let mut row = vec![1; ggml_type.block_bytes()];
            row[..2].copy_from_slice(&scale.to_le_bytes());
            let mut lines = vec![Line::ZERO; Bf16Panel::LINES];
            let panel: &mut [Bf16Panel] = cast_mut(&mut lines);
            (functions.expand)(&row, row.len(), panel);
            let weights = panel[0].0.as_flattened().as_flattened();
            assert!(weights.iter().all(|&w| half::bf16::from_bits(w).is_nan()), "{scale:x}");
        }
    });
}

#[test]
fn the_unit_does_what_plain_loops_do() {
    if !Isa::available().contains(&Isa::Amx) {
        assert!(std::env::var_os("METALLIC_REQUIRE_AMX").is_none(), "this CPU has no AMX");
        println!("skipped: this CPU has no AMX");
        return;
    }
    let mut random = Random(2);
    let unit = Tiles::new(Isa::Amx);
    for n_blocks in [1, 2, 7, 16] {
        let mut number = || half::bf16::from_f32(numbers(&mut random, 1)[0]).to_bits();
        let panels = [(); 2].map(|()| {
            (0..n_blocks)
                .map(|_| Bf16Panel([(); 16].map(|()| [(); 16].map(|()| [number(), number()]))))
                .collect::<Vec<_>>()
        });
        let tiles = [(); 2].map(|()| {
            (0..n_blocks)
                .map(|_| Bf16Tile([(); 16].map(|()| [(); 32].map(|()| number()))))
                .collect::<Vec<_>>()
        });
        let (left, right) = (tiles.concat(), panels.concat());
        let operand =
            |start, bytes| Operand { start, stride: ROW_BYTES, step: bytes, second: n_blocks * bytes };
        let left = operand(left.as_ptr().cast(), size_of::<Bf16Tile>());
        let right = operand(right.as_ptr().cast(), size_of::<Bf16Panel>());
        let mut found = [[0.0_f32; 32]; 32];
        let mut expected = [[Product::default(); 2]; 2];
        for turn in 0..3 {
            let sums = Sums { start: found.as_mut_ptr().cast(), stride: 128, right: 64, below: 16 * 128 };
            let from = (turn > 0).then_some(sums);
            // SAFETY: all operands have two times so many blocks, and there are 32 rows of 32 sums.
            unsafe {
                match turn {
                    0 => unit.product::<true, true>(n_blocks, left, right, from, sums, |_| {}),
                    1 => unit.product::<true, false>(n_blocks, left, right, from, sums, |_| {}),
                    _ => unit.product::<false, true>(n_blocks, left, right, from, sums, |_| {}),
                }
            }
            for (t, tile) in tiles.iter().enumerate().take(if turn < 2 { 2 } else { 1 }) {
                panels.iter().zip(&mut expected[t]).for_each(|(panel, out)| multiply(panel, tile, out));
            }
            for (token, row) in found.iter().enumerate() {
                for (r, sum) in row.iter().enumerate() {
                    let expected = expected[token / TOKENS][r / ROWS][token % TOKENS][r % ROWS];
                    assert!(
                        (sum - expected).abs() <= 1e-4,
                        "{n_blocks} blocks, token {token}, row {r}: {sum} {expected}"
                    );
                }
            }
        }
    }
}
