//! Activations in 8 bits: what is kept of them, what a dot product loses by it, and odd values.

use metallic_kernels::activations::{
    Q8Block, Q8Group, group_q8, lane, n_groups, quantize_q8, quantize_q8_groups,
};
use metallic_kernels::{GgmlType, Isa, registry};

mod common;
use common::{Random, dot_q8, random_rows};

/// On every instruction set, as blocks and in groups; they must agree in every bit.
fn quantized(x: &[f32]) -> Vec<Q8Block> {
    let on = |isa| {
        let mut blocks = vec![Q8Block::ZERO; x.len() / 32];
        quantize_q8(isa, x, &mut blocks);
        blocks
    };
    let bits = |b: &Q8Block| (b.scale.to_bits(), b.sums, b.quants);
    let group_bits =
        |g: &Q8Group| (g.quants, g.scales.map(f32::to_bits), g.sums.map(f32::to_bits), g.offsets);
    let scalar = on(Isa::Scalar);
    let mut sorted = vec![Q8Group::ZERO; n_groups(scalar.len())];
    group_q8(&scalar, &mut sorted);
    for isa in Isa::available() {
        assert!(scalar.iter().map(bits).eq(on(isa).iter().map(bits)), "{isa}");
        let mut groups = vec![Q8Group::ZERO; sorted.len()];
        quantize_q8_groups(isa, x, &mut groups);
        assert!(groups.iter().map(group_bits).eq(sorted.iter().map(group_bits)), "{isa}");
    }
    scalar
}

/// Where a group has the numbers of each half of its blocks, and what a row has beyond whole groups.
#[test]
fn groups_have_the_numbers_of_their_blocks() {
    for n_blocks in 1..=18 {
        let blocks = quantized(&Random(5).floats(32 * n_blocks));
        let mut groups = vec![Q8Group::ZERO; n_groups(n_blocks)];
        group_q8(&blocks, &mut groups);
        let whole = n_blocks / 8;
        for (g, group) in groups.iter().enumerate() {
            for i in 0..8 {
                let of_pair = 8 * whole + 2 * (g.max(whole) - whole) + i % 2;
                let block = if g < whole { blocks.get(8 * g + i) } else { blocks.get(of_pair) };
                let block = block.unwrap_or(&Q8Block::ZERO);
                for half in 0..2 {
                    let quants: Vec<i8> =
                        group.quants.iter().flat_map(|fours| fours[lane(i, half)]).collect();
                    assert_eq!(quants, block.quants[16 * half..][..16]);
                    assert_eq!(group.scales[lane(i, half)], block.scale);
                    assert_eq!(group.sums[lane(i, half)], f32::from(block.sums[half]));
                    assert_eq!(group.offsets[lane(i, half)], -128 * i32::from(block.sums[half]));
                }
            }
        }
    }
}

#[test]
fn values_are_kept_to_half_a_step() {
    for magnitude in [1e-30, 1e-3, 1.0, 5e4, 1e37] {
        let x: Vec<f32> = Random(1).floats(32 * 500).iter().map(|x| x * magnitude).collect();
        for (block, x) in quantized(&x).iter().zip(x.as_chunks::<32>().0) {
            let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert_eq!(block.scale, largest / 127.0);
            let sum = |half: &[i8]| half.iter().map(|&q| i16::from(q)).sum::<i16>();
            assert_eq!(block.sums, [sum(&block.quants[..16]), sum(&block.quants[16..])]);
            assert_eq!(block.sum(), block.quants.iter().map(|&q| i32::from(q)).sum());
            for (&q, &x) in block.quants.iter().zip(x) {
                let error = (f64::from(block.scale) * f64::from(q) - f64::from(x)).abs();
                assert!(error <= 0.50001 * f64::from(block.scale), "{x} became {q} · {}", block.scale);
                assert!(q >= -127);
            }
        }
    }
}

#[test]
fn halves_go_to_even() {
    let mut x = [0.0; 32];
    x[..9].copy_from_slice(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -125.5]);
    let block = quantized(&x)[0];
    assert_eq!(block.scale, 1.0);
    assert_eq!(block.quants[..9], [127, 0, 2, 2, 0, -2, -2, 126, -126]);
}

#[test]
fn zeros_and_what_is_as_small_become_zeros() {
    for tiny in [0.0, -0.0, 1e-45, -1e-38, 126.0 * f32::MIN_POSITIVE] {
        assert_eq!(quantized(&[tiny; 32]), [Q8Block::ZERO], "{tiny:e}");
    }
    assert_eq!(quantized(&[128.0 * f32::MIN_POSITIVE; 32])[0].quants, [127; 32]);
}

#[test]
fn values_that_are_not_finite_show_in_every_product() {
    for odd in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in [0, 17, 31] {
            let mut x = Random(2).floats(32);
            x[place] = odd;
            let block = quantized(&x);
            assert!(!block[0].scale.is_finite());
            let ops = registry::ops(GgmlType::Q8_0, Isa::best());
            let row = random_rows(&ops, 32, 1, &mut Random(3));
            let dot = dot_q8(&ops, &row, &block).expect("Q8_0 takes quants");
            assert!(!dot.is_finite());
        }
    }
}

/// Each activation is off by at most half a step of its block, so the product is by at most half a step
/// times the weights' magnitudes; the rest is rounding to f32.
#[test]
fn a_dot_product_loses_no_more_than_its_activations_do() {
    let mut random = Random(4);
    for &ggml_type in GgmlType::ALL {
        let n = ggml_type.block_len().max(32) * 3;
        for ops in Isa::available().into_iter().map(|isa| registry::ops(ggml_type, isa)) {
            for _ in 0..50 {
                let row = random_rows(&ops, n, 1, &mut random);
                let x = random.floats(n);
                let blocks = quantized(&x);
                let Some(dot) = dot_q8(&ops, &row, &blocks) else { break };
                let mut weights = vec![0.0; n];
                (ops.decode)(&row, &mut weights);
                let exact: f64 = weights.iter().zip(&x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                let bound: f64 = weights
                    .chunks(32)
                    .zip(&blocks)
                    .map(|(w, b)| {
                        let half_step = 0.5 * f64::from(b.scale);
                        half_step * w.iter().map(|&w| f64::from(w).abs()).sum::<f64>()
                    })
                    .sum();
                let difference = (f64::from(dot) - exact).abs();
                assert!(difference <= 1.001 * bound, "{ggml_type} {}: {difference:e} > {bound:e}", ops.isa);
            }
        }
    }
}
