//! Every kernel, and every decoder. A new one is a file in `shaders/` and a line here; the tests loop over these lists.

use metallic::GgmlType;
use metallic::backend::KvType;

use super::Access::{Read, Write};
use super::{Access, Kernel, Part};

/// A kernel and a list of them from lines `NAME: "file", [parts], [bindings];`. A file of which there are several is told from
/// itself by a word: `NAME: "file" by "word", …`.
macro_rules! kernels {
    ($($name:ident: $file:literal $(by $way:literal)?, [$($part:expr),*], [$($access:expr),*];)*) => {
        $(pub(crate) const $name: Kernel = Kernel {
            name: concat!($file $(, " by ", $way)?),
            source: include_str!(concat!("../shaders/", $file, ".wgsl")),
            parts: &[$($part),*],
            bindings: const { &[$($access),*] as &[Access] },
        };)*

        /// All of them.
        pub(super) const KERNELS: &[&Kernel] = &[$(&$name),*];
    };
}

/// A part from a file, with those that it uses itself.
macro_rules! part {
    ($file:literal $(, $part:expr)*) => {
        Part {
            name: $file,
            source: include_str!(concat!("../shaders/", $file, ".wgsl")),
            parts: &[$($part),*],
            codes: None,
        }
    };
}

/// A decoder that reads the table of a type's codes.
macro_rules! with_codes {
    ($ggml_type:ident, $file:literal $(, $part:expr)*) => {
        (GgmlType::$ggml_type, Part { codes: Some(GgmlType::$ggml_type), ..part!($file, CODES $(, $part)*) })
    };
}

/// What every kernel is put together with.
pub(super) const COMMON: Part = part!("common");
const ACTIVATION: Part = part!("activation");
const RECURRENCE: Part = part!("recurrence");
const EXPERT_ROW: Part = part!("expert_row");
const GEMM_TILE: Part = part!("gemm_tile");
const GEMM_TILE_MATRICES: Part = part!("gemm_tile_matrices");
const MATRICES_8: Part = part!("matrices/8");
const MATRICES_16: Part = part!("matrices/16");
const TILE: Part = part!("tile");
const ROW_NORM: Part = part!("row_norm");
const ROWS: Part = part!("rows");
const ROWS_BYTES: Part = part!("rows_bytes");
const ROWS_FLOATS: Part = part!("rows_floats");
const ROW_DOT: Part = part!("row_dot");
const BYTES: Part = part!("quants/bytes");
const CODES: Part = part!("quants/codes");
const K_SCALES: Part = part!("quants/k_scales");
const LEVELS: Part = part!("quants/levels");
const LEVELS_AND_OFFSET: Part = part!("quants/levels_and_offset");
const KV_SCALES: Part = part!("kv/scales");

kernels! {
    ACTIVATE: "activate", [ACTIVATION], [Write];
    ADD: "add", [], [Write, Read];
    BEST: "best", [], [Write, Read];
    CAUSAL_CONV: "causal_conv", [ACTIVATION], [Write, Read, Read, Read, Read];
    CLAMP: "clamp", [], [Write];
    CLEAR: "clear", [], [Write];
    COPY_COLUMNS: "copy_columns", [], [Write, Read];
    COPY_PAGE: "copy_page", [], [Write];
    DELTA_NET: "delta_net", [RECURRENCE], [Write, Write, Read, Read, Read, Read, Read];
    DIVIDE_ROWS: "divide_rows", [], [Write, Read];
    EXPERT_ORDER: "expert_order", [], [Write, Read];
    GATE: "gate", [ACTIVATION], [Write, Read];
    GATE_ROWS: "gate_rows", [], [Write, Read];
    GATED: "gated", [ACTIVATION], [Write, Read, Read];
    GATHER_ROWS: "gather_rows", [], [Write, Read, Read];
    HALVES: "halves", [], [Write, Read];
    MAMBA2: "mamba2", [RECURRENCE], [Write, Write, Read, Read, Read, Read, Read];
    MIX: "mix", [], [Write, Read, Read];
    NORM: "norm", [ROW_NORM], [Write, Read, Read, Read];
    NORM_IN_PLACE: "norm_in_place", [ROW_NORM], [Write, Read, Read];
    REMEMBER: "remember", [], [Write, Read];
    ROTATE: "rotate", [], [Write, Read];
    ROUTE: "route", [], [Write, Write, Read, Read];
    SCALE: "scale", [], [Write];
    SCALE_ROWS: "scale_rows", [], [Write, Read];
    SOFTCAP: "softcap", [], [Write];
    TAKE_NOTES: "take_notes", [], [Write, Read];
    TO_BYTES: "to_bytes", [], [Write, Read];
    UNIT_LENGTH: "unit_length", [], [Write];
    // With a decoder of weights.
    EMBED: "embed", [BYTES], [Read, Read, Write];
    EXPERT_GEMM: "expert_gemm", [BYTES, EXPERT_ROW, TILE, GEMM_TILE], [Read, Read, Read, Read, Write, Read];
    EXPERT_GEMM_BY_8: "expert_gemm" by "8", [BYTES, EXPERT_ROW, TILE, GEMM_TILE_MATRICES, MATRICES_8], [Read, Read, Read, Read, Write, Read];
    EXPERT_GEMM_BY_16: "expert_gemm" by "16", [BYTES, EXPERT_ROW, TILE, GEMM_TILE_MATRICES, MATRICES_16], [Read, Read, Read, Read, Write, Read];
    EXPERT_MAT_VEC: "expert_mat_vec", [BYTES, EXPERT_ROW, ROW_DOT], [Read, Read, Read, Read, Write, Read];
    GEMM: "gemm", [BYTES, TILE, GEMM_TILE], [Read, Read, Read, Write];
    GEMM_BY_8: "gemm" by "8", [BYTES, TILE, GEMM_TILE_MATRICES, MATRICES_8], [Read, Read, Read, Write];
    GEMM_BY_16: "gemm" by "16", [BYTES, TILE, GEMM_TILE_MATRICES, MATRICES_16], [Read, Read, Read, Write];
    MAT_VEC: "mat_vec", [BYTES, ROW_DOT], [Read, Read, Read, Write];
    ROWS_PLAIN: "rows_plain", [BYTES, ROWS, ROWS_FLOATS], [Read, Read, Read, Write];
    ROWS_SUBGROUP: "rows_subgroup", [BYTES, ROWS, ROWS_FLOATS], [Read, Read, Read, Write];
    // With a decoder of weights that are whole numbers.
    ROWS_SUBGROUP_OF_BYTES: "rows_subgroup" by "bytes", [BYTES, ROWS, ROWS_BYTES], [Read, Read, Read, Write];
    // With a decoder of keys and values.
    ATTENTION: "attention", [KV_SCALES], [Write, Read, Read, Read, Read, Read];
    STORE_KV: "store_kv", [], [Write, Read, Read];
    STORE_KV_BLOCKS: "store_kv_blocks", [KV_SCALES], [Write, Read, Read];
}

/// Types of weights that kernels read, with their decoders.
pub(super) const QUANTS: &[(GgmlType, Part)] = &[
    (GgmlType::F32, part!("quants/f32")),
    (GgmlType::F16, part!("quants/f16")),
    (GgmlType::BF16, part!("quants/bf16")),
    (GgmlType::Q4_0, part!("quants/q4_0", LEVELS)),
    (GgmlType::Q4_1, part!("quants/q4_1", LEVELS_AND_OFFSET)),
    (GgmlType::Q5_0, part!("quants/q5_0", LEVELS)),
    (GgmlType::Q5_1, part!("quants/q5_1", LEVELS_AND_OFFSET)),
    (GgmlType::Q8_0, part!("quants/q8_0", LEVELS)),
    (GgmlType::Q2_K, part!("quants/q2_k", LEVELS_AND_OFFSET)),
    (GgmlType::Q3_K, part!("quants/q3_k", LEVELS)),
    (GgmlType::Q4_K, part!("quants/q4_k", K_SCALES, LEVELS_AND_OFFSET)),
    (GgmlType::Q5_K, part!("quants/q5_k", K_SCALES, LEVELS_AND_OFFSET)),
    (GgmlType::Q6_K, part!("quants/q6_k", LEVELS)),
    with_codes!(IQ4_NL, "quants/iq4_nl", LEVELS),
    with_codes!(IQ4_XS, "quants/iq4_xs", LEVELS),
    with_codes!(MXFP4, "quants/mxfp4", LEVELS),
    with_codes!(NVFP4, "quants/nvfp4", LEVELS),
    (GgmlType::TQ1_0, part!("quants/tq1_0")),
    (GgmlType::TQ2_0, part!("quants/tq2_0", LEVELS)),
    (GgmlType::Q1_0, part!("quants/q1_0")),
    (GgmlType::Q2_0, part!("quants/q2_0")),
    with_codes!(IQ1_S, "quants/iq1_s"),
    with_codes!(IQ1_M, "quants/iq1_m"),
    with_codes!(IQ2_XXS, "quants/iq2_xxs"),
    with_codes!(IQ2_XS, "quants/iq2_xs"),
    with_codes!(IQ2_S, "quants/iq2_s"),
    with_codes!(IQ3_XXS, "quants/iq3_xxs"),
    with_codes!(IQ3_S, "quants/iq3_s"),
];

/// How keys and values of a type lie in words, and what reads and writes them.
#[derive(Debug)]
pub(crate) struct KvFormat {
    kv_type: KvType,
    /// Numbers in a word.
    in_word: usize,
    /// Numbers that share a scale; 1 where there are none.
    pub(crate) block_len: usize,
    pub(crate) decoder: Part,
    /// What writes them.
    pub(crate) store: &'static Kernel,
}

/// Types of keys and values that kernels read and write.
pub(super) const KV_TYPES: &[KvFormat] = &[
    KvFormat { kv_type: KvType::F32, in_word: 1, block_len: 1, decoder: part!("kv/f32"), store: &STORE_KV },
    KvFormat { kv_type: KvType::F16, in_word: 2, block_len: 1, decoder: part!("kv/f16"), store: &STORE_KV },
    KvFormat { kv_type: KvType::BF16, in_word: 2, block_len: 1, decoder: part!("kv/bf16"), store: &STORE_KV },
    KvFormat {
        kv_type: KvType::Q8_0,
        in_word: 4,
        block_len: 32,
        decoder: part!("kv/q8_0"),
        store: &STORE_KV_BLOCKS,
    },
];

impl KvFormat {
    /// Words that the numbers of a row of a head are kept in.
    pub(crate) fn row_words(&self, head_len: usize) -> usize {
        head_len.next_multiple_of(self.block_len).div_ceil(self.in_word)
    }
}

/// Whether a decoder gives whole numbers and scales.
pub(crate) fn gives_numbers(decoder: &Part) -> bool {
    decoder.parts.iter().any(|part| [LEVELS.name, LEVELS_AND_OFFSET.name].contains(&part.name))
}

/// What reads weights of a type; `None` where nothing does yet.
pub(crate) fn decoder_of(ggml_type: GgmlType) -> Option<&'static Part> {
    QUANTS.iter().find(|(known, _)| *known == ggml_type).map(|(_, decoder)| decoder)
}

/// How keys and values of a type are kept; `None` where no kernel does yet.
pub(crate) fn kv_format_of(kv_type: KvType) -> Option<&'static KvFormat> {
    KV_TYPES.iter().find(|format| format.kv_type == kv_type)
}
