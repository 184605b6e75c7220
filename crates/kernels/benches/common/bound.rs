//! The ceiling of what computes much: multiply-adds of registers with registers, as many as one thread can make.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use metallic_kernels::Isa;

use super::fast_isas;

/// Registers of sums that are added to in turn: enough to hide that each addition takes several cycles.
const SUMS: usize = 12;

/// Times that all of them are added to.
const TURNS: usize = 4096;

/// Throughput is in operations, two for each multiply-add.
pub(crate) fn bound(c: &mut Criterion) {
    let mut group = c.benchmark_group("bound");
    for isa in fast_isas() {
        for Bound { numbers, products, run } in bounds(isa) {
            group.throughput(Throughput::Elements((2 * products * SUMS * TURNS) as u64));
            group.bench_function(format!("{numbers}/{isa}"), |b| b.iter(run));
        }
    }
}

struct Bound {
    numbers: &'static str,
    /// Products that a register of sums takes at a time.
    products: usize,
    /// Lets each of [`SUMS`] registers take as many [`TURNS`] times.
    run: fn(),
}

#[cfg(target_arch = "x86_64")]
fn bounds(isa: Isa) -> Vec<Bound> {
    // SAFETY (of all the calls): an `Isa` proves that this CPU has its instructions.
    match isa {
        Isa::Avx2 { .. } => vec![
            // SAFETY: as above.
            Bound { numbers: "int8", products: 32, run: || unsafe { x86::int8_avx2() } },
            // SAFETY: as above.
            Bound { numbers: "f32", products: 8, run: || unsafe { x86::f32_avx2() } },
        ],
        Isa::Avx512 { .. } => {
            let mut bounds = vec![
                // SAFETY: as above.
                Bound { numbers: "int8", products: 64, run: || unsafe { x86::int8_avx512() } },
                // SAFETY: as above.
                Bound { numbers: "f32", products: 16, run: || unsafe { x86::f32_avx512() } },
            ];
            if isa.has_bf16() {
                // SAFETY: as above; `has_bf16` found the extension.
                bounds.push(Bound { numbers: "bf16", products: 32, run: || unsafe { x86::bf16_avx512() } });
            }
            bounds
        }
        Isa::Amx { .. } => vec![
            // SAFETY: as above, and that this process may use tiles.
            Bound { numbers: "bf16", products: 16 * 16 * 32, run: || unsafe { x86::tiles_amx() } },
        ],
        Isa::Scalar => Vec::new(),
    }
}

#[cfg(target_arch = "aarch64")]
fn bounds(isa: Isa) -> Vec<Bound> {
    // SAFETY: NEON is in the baseline of the architecture.
    let float = Bound { numbers: "f32", products: 4, run: || unsafe { neon::f32() } };
    match isa {
        // SAFETY: an `Isa::Neon` proves that this CPU has the instruction.
        Isa::Neon { .. } => {
            vec![Bound { numbers: "int8", products: 16, run: || unsafe { neon::sdot() } }, float]
        }
        // SAFETY: so does an `Isa::NeonI8mm`.
        Isa::NeonI8mm { .. } => {
            vec![Bound { numbers: "int8", products: 32, run: || unsafe { neon::smmla() } }, float]
        }
        Isa::Scalar => Vec::new(),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn bounds(_: Isa) -> Vec<Bound> {
    Vec::new()
}

/// Adds to sums in turn. Where they begin is hidden from the compiler, which would else keep one for all.
#[inline(always)]
fn take_turns<Sum: Copy>(zero: Sum, add: impl Fn(Sum) -> Sum) {
    let mut sums = black_box([zero; SUMS]);
    for _ in 0..TURNS {
        for sum in &mut sums {
            *sum = add(*sum);
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::take_turns;

    /// Three instructions, of which the first multiplies the sum: a product that is always the same would be
    /// computed once.
    #[target_feature(enable = "avx2")]
    pub(super) fn int8_avx2() {
        let (x, ones) = black_box((_mm256_set1_epi8(1), _mm256_set1_epi16(1)));
        take_turns(_mm256_setzero_si256(), |sum| {
            _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(sum, x), ones))
        });
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f32_avx2() {
        let (w, x) = black_box((_mm256_set1_ps(1.0), _mm256_set1_ps(1.0)));
        take_turns(_mm256_setzero_ps(), |sum| _mm256_fmadd_ps(w, x, sum));
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8_avx512() {
        let (w, x) = black_box((_mm512_set1_epi8(1), _mm512_set1_epi8(1)));
        take_turns(_mm512_setzero_si512(), |sum| _mm512_dpbusd_epi32(sum, w, x));
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn f32_avx512() {
        let (w, x) = black_box((_mm512_set1_ps(1.0), _mm512_set1_ps(1.0)));
        take_turns(_mm512_setzero_ps(), |sum| _mm512_fmadd_ps(w, x, sum));
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16_avx512() {
        let ones = _mm512_set1_ps(1.0);
        let (w, x) = black_box((_mm512_cvtne2ps_pbh(ones, ones), _mm512_cvtne2ps_pbh(ones, ones)));
        take_turns(_mm512_setzero_ps(), |sum| _mm512_dpbf16_ps(sum, w, x));
    }

    /// Two by two tiles of sums, which are met by tiles loaded from the first-level cache, as in the kernel: with none loaded,
    /// the unit is faster, and does not show the minutes in which others slow it down.
    pub(super) unsafe fn tiles_amx() {
        #[repr(C, align(64))]
        struct Tiles([[u8; 1024]; 4]);
        /// What LDTILECFG reads: eight tiles of 16 rows of 64 bytes.
        #[repr(C, align(64))]
        struct Configuration([u8; 16], [u16; 8], [u16; 8], [u8; 8], [u8; 8]);
        static WHOLE: Configuration =
            Configuration([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [64; 8], [0; 8], [16; 8], [0; 8]);

        // Numbers of ordinary size: with zeros the unit takes less power, and keeps a higher clock.
        let mut tiles = Tiles([[0; 1024]; 4]);
        let mut bits = 1_u32;
        for pair in tiles.0.as_flattened_mut().as_chunks_mut::<2>().0 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *pair = half::bf16::from_f32(bits.cast_signed() as f32 / i32::MAX as f32).to_le_bytes();
        }
        let tiles = black_box(tiles);
        // SAFETY: this CPU has tiles and this process may use them; the loads are of the 64 bytes of the configuration and of
        // four times 16 rows of 64 bytes.
        unsafe {
            asm!(
                "ldtilecfg [{whole}]",
                "2:",
                "tileloadd tmm4, [{tiles} + {stride}]",
                "tileloadd tmm5, [{tiles} + {stride} + 1024]",
                "tileloadd tmm6, [{tiles} + {stride} + 2048]",
                "tileloadd tmm7, [{tiles} + {stride} + 3072]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {n}",
                "jnz 2b",
                "tilerelease",
                whole = in(reg) &raw const WHOLE,
                tiles = in(reg) tiles.0.as_ptr(),
                stride = in(reg) 64_usize,
                n = inout(reg) super::SUMS * super::TURNS / 4 => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// Two of the instructions are not in the standard library yet.
#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;
    use std::arch::asm;
    use std::hint::black_box;

    use super::take_turns;

    #[target_feature(enable = "neon")]
    pub(super) fn f32() {
        let (w, x) = black_box((vdupq_n_f32(1.0), vdupq_n_f32(1.0)));
        take_turns(vdupq_n_f32(0.0), |sum| vfmaq_f32(sum, w, x));
    }

    macro_rules! int8 {
        ($name:ident, $features:literal) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name() {
                let (w, x) = black_box((vdupq_n_s8(1), vdupq_n_s8(1)));
                take_turns(vdupq_n_s32(0), |mut sum| {
                    // SAFETY: one instruction, which this function's instruction set has, on the registers named.
                    unsafe {
                        asm!(
                            concat!(stringify!($name), " {sum:v}.4s, {w:v}.16b, {x:v}.16b"),
                            sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
                            options(pure, nomem, nostack, preserves_flags)
                        );
                    }
                    sum
                });
            }
        };
    }
    int8!(sdot, "neon,dotprod");
    int8!(smmla, "neon,i8mm");
}
