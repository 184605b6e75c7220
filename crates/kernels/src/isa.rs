//! Which instruction set the kernels use, found once at run time.

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::fmt;

/// An instruction set that some kernels are written for; of those, the ones of the architecture that
/// this crate is compiled for.
///
/// Every format works on every one of them: where a format has no kernel for the one chosen, the
/// registry takes its plain loops, compiled for it.
///
/// A value is a proof: only [`Isa::available`] and [`Isa::best`] hand out anything but `Scalar`, so
/// whoever holds an `Isa` may run its instructions on this CPU.
///
/// ```compile_fail
/// let unproven = metallic_kernels::Isa::Avx2;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust: the reference that the others are tested against.
    Scalar,
    /// AVX2 with FMA and F16C (x86-64-v3).
    #[cfg(target_arch = "x86_64")]
    #[non_exhaustive]
    Avx2,
    /// AVX-512 with the byte, vector-length and VNNI extensions (Ice Lake and Zen 4 onwards).
    #[cfg(target_arch = "x86_64")]
    #[non_exhaustive]
    Avx512,
    /// NEON with the dot products of bytes (ARMv8.2 with dotprod: Apple M1, Graviton 2 and onwards).
    #[cfg(target_arch = "aarch64")]
    #[non_exhaustive]
    Neon,
    /// The same with the products of matrices of bytes (i8mm, ARMv8.6: Apple M2, Graviton 3 and onwards).
    #[cfg(target_arch = "aarch64")]
    #[non_exhaustive]
    NeonI8mm,
}

impl Isa {
    /// Those this CPU can run, slowest first. Never empty.
    pub fn available() -> Vec<Isa> {
        let candidates = [
            (Isa::Scalar, true),
            #[cfg(target_arch = "x86_64")]
            (
                Isa::Avx2,
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c"),
            ),
            #[cfg(target_arch = "x86_64")]
            (
                Isa::Avx512,
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni"),
            ),
            #[cfg(target_arch = "aarch64")]
            (Isa::Neon, is_aarch64_feature_detected!("dotprod")),
            #[cfg(target_arch = "aarch64")]
            (Isa::NeonI8mm, is_aarch64_feature_detected!("dotprod") && is_aarch64_feature_detected!("i8mm")),
        ];
        candidates.into_iter().filter(|(_, can_run)| *can_run).map(|(isa, _)| isa).collect()
    }

    /// The fastest this CPU can run.
    pub fn best() -> Isa {
        Self::available().last().copied().unwrap_or(Isa::Scalar)
    }

    /// Lower-case name, as flags and logs show it.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => "neon-i8mm",
        }
    }

    /// Whether kernels for it multiply numbers of [`KvType::BF16`](crate::attention::KvType) as fast as the CPU
    /// can multiply at all. The first processors with AVX-512 have no instructions for them.
    pub fn has_bf16(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => is_x86_feature_detected!("avx512bf16"),
            _ => false,
        }
    }

    /// Runs `body` compiled for this instruction set, so that one plain loop is vectorised for each.
    ///
    /// The compiler neither reorders float additions nor fuses a multiplication with one, so the
    /// results have the same bits on all of them. `body` must be `#[inline(always)]`, and so must what
    /// it calls: a call that is not inlined stays in the baseline instruction set.
    #[inline]
    pub(crate) fn run<R>(self, body: impl FnOnce() -> R) -> R {
        match self {
            Isa::Scalar => body(),
            // SAFETY: an `Isa::Avx2` only comes from `available`, which found avx2, fma and f16c.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { with_avx2(body) },
            // SAFETY: likewise an `Isa::Avx512`, and the extensions below.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { with_avx512(body) },
            // What these have beyond the baseline of their architecture is of no use to loops over floats.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonI8mm => body(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn with_avx2<R>(body: impl FnOnce() -> R) -> R {
    body()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn with_avx512<R>(body: impl FnOnce() -> R) -> R {
    body()
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
