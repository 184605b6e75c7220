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
    /// AVX-512 with bfloat16, and tiles of it (AMX: Sapphire Rapids and onwards) for the products and the attention of many
    /// tokens.
    #[cfg(target_arch = "x86_64")]
    #[non_exhaustive]
    Amx,
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
        #[cfg(target_arch = "x86_64")]
        let has_avx512 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni");
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
            (Isa::Avx512, has_avx512),
            #[cfg(target_arch = "x86_64")]
            (Isa::Amx, has_avx512 && is_x86_feature_detected!("avx512bf16") && has_tiles() && is_permitted()),
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

    /// Whether the CPU has tiles that the system does not let this process use: its prompts would be read faster with
    /// [`Isa::Amx`].
    pub fn is_refused_tiles() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            has_tiles() && !is_permitted()
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// What its kernels for vectors are: its own, or those of the instruction set that it adds tiles to.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn vectors(self) -> Isa {
        match self {
            Isa::Amx => Isa::Avx512,
            isa => isa,
        }
    }

    /// Lower-case name, as flags and logs show it.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => "amx",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => "neon-i8mm",
        }
    }

    /// Whether its kernels multiply numbers of [`KvType::BF16`](crate::attention::KvType) faster than floats. Tiles do, for
    /// prompts. Not every processor that has the vector instruction does: against fused multiplications of floats it makes
    ///
    /// | processors | products |
    /// |---|---|
    /// | AMD Zen 4 and Zen 5 | twice as many |
    /// | Intel Emerald Rapids | half as many |
    ///
    /// in registers, as measured on one of each (`cargo bench --bench attention -- bound`). Others are taken to be as Intel's.
    pub fn prefers_bf16(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => true,
            _ => self.has_bf16() && is_amd(),
        }
    }

    /// Whether the CPU has instructions for numbers of [`KvType::BF16`](crate::attention::KvType). The first
    /// processors with AVX-512 have none.
    pub fn has_bf16(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Amx => is_x86_feature_detected!("avx512bf16"),
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
            Isa::Avx512 | Isa::Amx => unsafe { with_avx512(body) },
            // What these have beyond the baseline of their architecture is of no use to loops over floats.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonI8mm => body(),
        }
    }
}

/// Whether the CPU says that AMD made it.
fn is_amd() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let leaf = std::arch::x86_64::__cpuid(0);
        [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether the CPU has tiles of bfloat16, and the system saves them.
#[cfg(target_arch = "x86_64")]
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    const OSXSAVE: u32 = 1 << 27;
    const AMX_BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;

    #[target_feature(enable = "xsave")]
    fn enabled_states() -> u64 {
        // SAFETY: register 0 is there where the system has set OSXSAVE, which the caller has looked at.
        unsafe { _xgetbv(0) }
    }
    // Leaf 7 is there where the CPU has AVX2.
    let (first, seventh) = (__cpuid(1), __cpuid_count(7, 0));
    is_x86_feature_detected!("avx2")
        && first.ecx & OSXSAVE != 0
        && seventh.edx & AMX_BF16_AND_TILE == AMX_BF16_AND_TILE
        // SAFETY: OSXSAVE says that the instruction is there.
        && unsafe { enabled_states() } & TILE_STATE == TILE_STATE
}

/// Whether this process may use tiles. Their state is large, so Linux wants to be asked for it (arch_prctl(2), since 5.16). It
/// refuses where a thread has a stack for signals that is too small for that state. To ask again is harmless.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers and touches no memory of the process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn is_permitted() -> bool {
    false
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
