//! The one table of tensor types: id, name, and the geometry of a block.
//!
//! Sizes are those of ggml (`ggml/src/ggml-common.h`, measured with `sizeof`). Every other part of
//! the workspace asks this table; none repeats a number from it.

use std::fmt;

use crate::error::{Error, Result};

macro_rules! ggml_types {
    ($($variant:ident $id:literal $name:literal $block_len:literal $block_bytes:literal $doc:literal)*) => {
        /// The element type of a tensor. A row is a whole number of blocks of `block_len` elements.
        #[allow(non_camel_case_types)] // the field's own spelling: Q4_K, IQ2_XXS
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum GgmlType {
            $(#[doc = $doc] $variant = $id,)*
        }

        impl GgmlType {
            /// Every type, in the order of ids.
            pub const ALL: &[GgmlType] = &[$(GgmlType::$variant),*];

            /// The name that ggml and its tools use, such as `Q4_K`.
            pub const fn name(self) -> &'static str {
                match self { $(GgmlType::$variant => $name,)* }
            }

            /// Elements in a block.
            pub const fn block_len(self) -> usize {
                match self { $(GgmlType::$variant => $block_len,)* }
            }

            /// Bytes of a block.
            pub const fn block_bytes(self) -> usize {
                match self { $(GgmlType::$variant => $block_bytes,)* }
            }

            const fn known(id: u32) -> Option<Self> {
                match id { $($id => Some(GgmlType::$variant),)* _ => None }
            }
        }
    };
}

ggml_types! {
    F32     0  "F32"     1   4   "32-bit float."
    F16     1  "F16"     1   2   "16-bit IEEE float."
    Q4_0    2  "Q4_0"    32  18  "4-bit, scale per 32."
    Q4_1    3  "Q4_1"    32  20  "4-bit, scale and minimum per 32."
    Q5_0    6  "Q5_0"    32  22  "5-bit, scale per 32."
    Q5_1    7  "Q5_1"    32  24  "5-bit, scale and minimum per 32."
    Q8_0    8  "Q8_0"    32  34  "8-bit, scale per 32."
    Q8_1    9  "Q8_1"    32  36  "8-bit, scale and sum per 32; for activations."
    Q2_K    10 "Q2_K"    256 84  "2-bit, 4-bit scales and minima per 16."
    Q3_K    11 "Q3_K"    256 110 "3-bit, 6-bit scales per 16."
    Q4_K    12 "Q4_K"    256 144 "4-bit, 6-bit scales and minima per 32."
    Q5_K    13 "Q5_K"    256 176 "5-bit, 6-bit scales and minima per 32."
    Q6_K    14 "Q6_K"    256 210 "6-bit, 8-bit scales per 16."
    Q8_K    15 "Q8_K"    256 292 "8-bit, scale per 256 and sums per 16; for activations."
    IQ2_XXS 16 "IQ2_XXS" 256 66  "2.06 bits, codebook of 256 groups of 8."
    IQ2_XS  17 "IQ2_XS"  256 74  "2.31 bits, codebook of 512 groups of 8."
    IQ3_XXS 18 "IQ3_XXS" 256 98  "3.06 bits, codebook of 256 groups of 4."
    IQ1_S   19 "IQ1_S"   256 50  "1.56 bits, ternary codebook of 2048 groups of 8."
    IQ4_NL  20 "IQ4_NL"  32  18  "4-bit, non-linear levels, scale per 32."
    IQ3_S   21 "IQ3_S"   256 110 "3.44 bits, codebook of 512 groups of 4."
    IQ2_S   22 "IQ2_S"   256 82  "2.56 bits, codebook of 1024 groups of 8."
    IQ4_XS  23 "IQ4_XS"  256 136 "4-bit, non-linear levels, 6-bit scales per 32."
    I8      24 "I8"      1   1   "8-bit integer."
    I16     25 "I16"     1   2   "16-bit integer."
    I32     26 "I32"     1   4   "32-bit integer."
    I64     27 "I64"     1   8   "64-bit integer."
    F64     28 "F64"     1   8   "64-bit float."
    IQ1_M   29 "IQ1_M"   256 56  "1.75 bits, ternary codebook of 2048 groups of 8."
    BF16    30 "BF16"    1   2   "16-bit brain float."
    TQ1_0   34 "TQ1_0"   256 54  "Ternary, five values a byte."
    TQ2_0   35 "TQ2_0"   256 66  "Ternary, four values a byte."
    MXFP4   39 "MXFP4"   32  17  "4-bit float E2M1, E8M0 scale per 32."
    NVFP4   40 "NVFP4"   64  36  "4-bit float E2M1, E4M3 scales per 16."
    Q1_0    41 "Q1_0"    128 18  "1-bit, scale per 128."
    Q2_0    42 "Q2_0"    64  18  "2-bit, scale per 64."
}

impl GgmlType {
    /// The type with this id.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`] names what is known of an id that was removed from the format or
    /// belongs to a fork; the tensor's name is added by the reader.
    pub fn from_id(id: u32) -> Result<Self> {
        Self::known(id).ok_or_else(|| Error::UnsupportedType {
            tensor: String::new(),
            id,
            what: describe_unsupported(id),
        })
    }

    /// The number that stands for this type in a file.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// Whether elements are grouped in blocks with a shared scale.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Bytes of a row of `n` elements, or `None` if `n` is not a whole number of blocks or the size overflows.
    pub const fn row_bytes(self, n: u64) -> Option<u64> {
        let block_len = self.block_len() as u64;
        if !n.is_multiple_of(block_len) {
            return None;
        }
        (n / block_len).checked_mul(self.block_bytes() as u64)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

const fn describe_unsupported(id: u32) -> &'static str {
    match id {
        4 | 5 => "Q4_2 or Q4_3, removed from the format in 2023: convert the model again",
        31..=33 => "Q4_0_4_4, Q4_0_4_8 or Q4_0_8_8, removed from the format: use the Q4_0 file of this model",
        36 => "IQ4_NL_4_4 (removed from the format) or I2_S (a BitNet fork)",
        37 | 38 => "IQ4_NL_4_8 or IQ4_NL_8_8, removed from the format: use the IQ4_NL file of this model",
        133 => "Q6_0 of the ik_llama.cpp fork",
        134 => "IQ1_BN of the ik_llama.cpp fork",
        135 => "IQ2_BN of the ik_llama.cpp fork",
        137 => "IQ2_K of the ik_llama.cpp fork",
        138 => "IQ3_K of the ik_llama.cpp fork",
        139 => "IQ4_K of the ik_llama.cpp fork",
        140 => "IQ5_K of the ik_llama.cpp fork",
        141 => "IQ6_K of the ik_llama.cpp fork",
        144 => "IQ4_KS of the ik_llama.cpp fork",
        145 => "IQ2_KS of the ik_llama.cpp fork",
        146 => "IQ4_KSS of the ik_llama.cpp fork",
        151 => "Q8_KV of the ik_llama.cpp fork",
        152 => "IQ5_KS of the ik_llama.cpp fork",
        153 => "IQ2_KT of the ik_llama.cpp fork",
        154 => "IQ3_KT of the ik_llama.cpp fork",
        155 => "IQ4_KT of the ik_llama.cpp fork",
        156 => "IQ3_KS of the ik_llama.cpp fork",
        157 => "IQ2_KL of the ik_llama.cpp fork",
        158 => "IQ1_KT of the ik_llama.cpp fork",
        97..=99 => "an activation layout of the ik_llama.cpp fork, never meant for files",
        202..=399 => "a row-interleaved type of the ik_llama.cpp fork",
        _ => "which no known version of the format defines",
    }
}
