//! What each value of `tokenizer.ggml.pre` stands for.
//!
//! The forms and patterns are those of the publishers' `tokenizer.json` files (`tools/pre_tokenizers.py` says from where
//! each form is known). Where a publisher chains several patterns, each splits what the one before has left.

use super::unicode_form::Form;
use super::vocabulary::Alphabet;

/// What happens to the texts for a family of vocabularies before merges.
pub(super) struct PreType {
    /// The values of `tokenizer.ggml.pre` that mean this.
    pub(super) names: &'static [&'static str],
    /// What a text becomes before it is split.
    pub(super) form: Form,
    /// Applied one after the other.
    pub(super) steps: &'static [Step],
    /// Whether a word that is a token is that token, even if merging would not make it.
    pub(super) ignore_merges: bool,
    /// Whether texts start with BOS, if the file does not say.
    pub(super) add_bos: bool,
    /// How the vocabulary writes bytes.
    pub(super) alphabet: Alphabet,
}

/// One way to split a text.
pub(super) enum Step {
    /// Each match is a word, and each gap between matches.
    Isolate(&'static str),
    /// The same, where the pattern ends with `|\s+(?!\S)|\s+`, which is left out here.
    IsolateWithSpaces(&'static str),
    /// The same, where it ends with `|\s{512}(?!\S)|\s{256}(?!\S)|…|\s{4}(?!\S)|\s{1,2}(?!\S)|\s`.
    IsolateWithSpacesByPowers(&'static str),
    /// What the last pattern matches is a number, of which every three digits from its right on are a word, and so is what
    /// is left of them. What another matches is left alone.
    IsolateThousands(&'static [&'static str]),
    /// Numbers are cut before every three digits from their right, `(?=(\d{3})+(?!\d))`, and nowhere else.
    CutThousands,
}

use Step::{CutThousands, Isolate, IsolateThousands, IsolateWithSpaces, IsolateWithSpacesByPowers};

const GPT2: Step = IsolateWithSpaces(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+");
const LLAMA3_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+";
const LLAMA3: Step = IsolateWithSpaces(LLAMA3_WORDS);
const QWEN2: Step = IsolateWithSpaces(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
);
const DEEPSEEK3: Step = IsolateWithSpaces(concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+",
));
const GPT4O: Step = IsolateWithSpaces(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
));
const DIGIT: Step = Isolate(r"\p{N}");
const UP_TO_3_DIGITS: Step = Isolate(r"\p{N}{1,3}");
const LINES: Step = Isolate(r"[^\n]+|\n+");

const PLAIN: PreType = PreType {
    names: &[],
    form: Form::AsItIs,
    steps: &[],
    ignore_merges: false,
    add_bos: false,
    alphabet: Alphabet::ByteLevel,
};

/// For files that name no type, or an unknown one.
pub(super) const DEFAULT: PreType = PreType {
    names: &["default"],
    steps: &[Isolate(r"[\p{P}\$\+<=>\^~\|]+"), GPT2, Isolate(r"\p{N}+"), Isolate("[0-9][0-9][0-9]")],
    ..PLAIN
};

/// Every type that is known.
pub(super) const PRE_TYPES: &[PreType] = &[
    DEFAULT,
    PreType {
        names: &[
            "gpt-2",
            "phi-2",
            "jais",
            "trillion",
            "granite-docling",
            "mellum",
            "gigachat",
            "a.x-4.0",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
        ],
        steps: &[GPT2],
        ..PLAIN
    },
    // Of GPT-NeoX and what took over its vocabulary.
    PreType { names: &["mpt", "olmo", "modern-bert"], form: Form::Nfc, steps: &[GPT2], ..PLAIN },
    PreType { names: &["exaone4"], form: Form::Nfkc, steps: &[GPT2], ..PLAIN },
    PreType {
        names: &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        steps: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreType { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], steps: &[LLAMA3], ..PLAIN },
    PreType { names: &["jais-2"], steps: &[IsolateWithSpacesByPowers(LLAMA3_WORDS)], ..PLAIN },
    PreType { names: &["glm4", "glm5"], steps: &[LLAMA3], ignore_merges: true, ..PLAIN },
    PreType {
        names: &["qwen2", "stablelm2", "deepseek-r1-qwen", "f2llmv2", "hunyuan"],
        form: Form::Nfc,
        steps: &[QWEN2],
        ..PLAIN
    },
    PreType { names: &["kormo", "megrez", "solar-open", "grok-2"], steps: &[QWEN2], ..PLAIN },
    PreType {
        names: &["qwen35"],
        form: Form::Nfc,
        steps: &[IsolateWithSpaces(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
            r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+",
        ))],
        ..PLAIN
    },
    PreType { names: &["laguna"], steps: &[LINES, QWEN2], ..PLAIN },
    PreType {
        names: &["ufakzeka"],
        steps: &[IsolateWithSpaces(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+")],
        ..PLAIN
    },
    PreType {
        names: &["seed-coder"],
        steps: &[IsolateWithSpaces(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+",
        )],
        ..PLAIN
    },
    PreType {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        steps: &[IsolateWithSpaces(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]",
        )],
        ..PLAIN
    },
    PreType {
        names: &["minicpm5"],
        steps: &[
            UP_TO_3_DIGITS,
            IsolateWithSpaces(concat!(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+",
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
            )),
        ],
        ignore_merges: true,
        ..PLAIN
    },
    PreType {
        names: &["exaone-moe"],
        form: Form::Nfc,
        steps: &[IsolateWithSpaces(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]",
        ))],
        ..PLAIN
    },
    PreType {
        names: &["starcoder", "refact", "smollm", "codeshell", "minerva-7b", "mellum2"],
        steps: &[DIGIT, GPT2],
        ..PLAIN
    },
    PreType { names: &["command-r"], form: Form::Nfc, steps: &[DIGIT, GPT2], ..PLAIN },
    PreType { names: &["exaone"], form: Form::Nfkc, steps: &[DIGIT, GPT2], ..PLAIN },
    PreType {
        names: &["falcon"],
        steps: &[Isolate(r"[\p{P}\$\+<=>\^~\|`]+"), GPT2, Isolate("[0-9][0-9][0-9]")],
        ..PLAIN
    },
    PreType {
        names: &["deepseek-llm"],
        steps: &[
            Isolate(r"[\r\n]"),
            // The cased letters. Those that Unicode normalisation would replace are written as numbers.
            Isolate(concat!(
                r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗ",
                r"ὙὛὝὟ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿ",
                r"ﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
            )),
            Isolate(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            Isolate(r"\s+$"),
            Isolate("[一-龥ࠀ-一가-퟿]+"),
            DIGIT,
        ],
        ..PLAIN
    },
    PreType {
        names: &["deepseek-coder"],
        steps: &[
            Isolate(r"[\r\n]"),
            Isolate(r"\s?\p{L}+"),
            Isolate(r"\s?\p{P}+"),
            Isolate("[一-龥ࠀ-一가-퟿]+"),
            DIGIT,
        ],
        ..PLAIN
    },
    PreType {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        steps: &[UP_TO_3_DIGITS, Isolate("[一-龥぀-ゟ゠-ヿ]+"), DEEPSEEK3],
        ..PLAIN
    },
    PreType {
        names: &["spark2_5"],
        steps: &[
            UP_TO_3_DIGITS,
            Isolate("[一-龥぀-ゟ゠-ヿ]+"),
            IsolateWithSpaces(concat!(
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
                r"| ?[\p{P}\p{S}]+|[\r\n]",
            )),
            DIGIT,
        ],
        ..PLAIN
    },
    PreType {
        names: &["afmoe"],
        steps: &[
            IsolateThousands(&[r"\p{N}+"]),
            Isolate(concat!(
                r"[一-\x{9FFF}㐀-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}",
                r"\x{0E40}-\x{0E7F}\x{0E80}-\x{0EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}",
                r"\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+",
            )),
            DEEPSEEK3,
        ],
        ..PLAIN
    },
    PreType { names: &["poro-chat", "bloom", "gpt3-finnish"], steps: &[BLOOM], ..PLAIN },
    PreType { names: &["viking"], steps: &[BLOOM, DIGIT], ..PLAIN },
    PreType {
        names: &["tekken"],
        steps: &[IsolateWithSpaces(concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
        ))],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreType { names: &["granite-embed-multi-97m"], steps: &[GPT4O], ignore_merges: true, ..PLAIN },
    PreType {
        names: &["youtu"],
        steps: &[
            Isolate("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"),
            IsolateWithSpaces(concat!(
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
            )),
        ],
        ignore_merges: true,
        ..PLAIN
    },
    PreType { names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], steps: &[GPT4O], ..PLAIN },
    // A number that goes on as a word is left to the second step.
    PreType {
        names: &["tiny_aya", "cohere2moe"],
        form: Form::Nfc,
        steps: &[IsolateThousands(&[r"\d+[\w\p{N}--\d]", r"\d+"]), GPT4O],
        ..PLAIN
    },
    PreType { names: &["superbpe"], steps: &[Isolate(r"\p{N}+"), CutThousands], ..PLAIN },
    PreType {
        names: &["chameleon"],
        steps: &[
            Isolate("<sentinel:[0-9]+>"),
            Isolate("IMGIMG[A-I]{1,4}Z"),
            Isolate(r"[\t\n]|    |  "),
            DIGIT,
            Isolate(r"[\p{P}!-/:-@\[-`{-~]"),
            GPT2,
        ],
        add_bos: true,
        ..PLAIN
    },
    PreType {
        names: &["kimi-k2"],
        steps: &[IsolateWithSpaces(concat!(
            r"\p{Han}+",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
        ))],
        ..PLAIN
    },
    // Vocabularies of text rather than bytes, whose pieces reach over words but not over lines.
    PreType {
        names: &["gemma4", "granite-embed-multi-311m"],
        steps: &[LINES],
        add_bos: true,
        alphabet: Alphabet::SentencePiece,
        ..PLAIN
    },
    PreType { names: &["sarvam-moe"], steps: &[LINES], alphabet: Alphabet::SentencePiece, ..PLAIN },
];

/// Architectures with one vocabulary, and its type: for files that are older than the key which names it.
pub(super) const BY_ARCHITECTURE: &[(&str, &str)] = &[
    ("bloom", "bloom"),
    ("codeshell", "codeshell"),
    ("command-r", "command-r"),
    ("falcon", "falcon"),
    ("gpt2", "gpt-2"),
    ("gptneox", "mpt"),
    ("mpt", "mpt"),
    ("olmo", "olmo"),
    ("phi2", "phi-2"),
    ("qwen2", "qwen2"),
    ("qwen2moe", "qwen2"),
    ("refact", "refact"),
    ("starcoder", "starcoder"),
    ("starcoder2", "starcoder"),
];

const BLOOM: Step = Isolate(r" ?[^(\s|.,!?…。，、।۔،)]+");
