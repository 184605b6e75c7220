//! Which instruction set the kernels use, found once at run time.

use std::fmt;

/// An instruction set that some kernels are written for.
///
/// Every format works on every one of them: where a format has no kernel for the one chosen, the
/// registry takes its scalar kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust: the reference that the others are tested against.
    Scalar,
    /// AVX2 with FMA and F16C (x86-64-v3).
    Avx2,
}

impl Isa {
    /// Those this CPU can run, slowest first. Never empty.
    pub fn available() -> Vec<Isa> {
        let mut list = vec![Isa::Scalar];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            list.push(Isa::Avx2);
        }
        list
    }

    /// The fastest this CPU can run.
    pub fn best() -> Isa {
        Self::available().last().copied().unwrap_or(Isa::Scalar)
    }

    /// Lower-case name, as flags and logs show it.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
