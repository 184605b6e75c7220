//! White space around a special token that goes with it: `lstrip` and `rstrip` in a publisher's `tokenizer.json`.
//!
//! GGUF files do not hold this, so the families of vocabularies that have it are recognised, by what their files say and
//! by names of their tokens. (`single_word` is left out: none of them has it.)

use metallic_gguf::Metadata;

use super::vocabulary::Vocabulary;

/// Which special tokens of a vocabulary take white space along, and on which side.
#[derive(Default)]
pub(super) struct Spacing {
    side: Side,
    /// In ascending order.
    ids: Vec<u32>,
}

/// Where white space goes with a token.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) left: bool,
    pub(super) right: bool,
}

const LEFT: Side = Side { left: true, right: false };
const RIGHT: Side = Side { left: false, right: true };
const BOTH: Side = Side { left: true, right: true };

impl Spacing {
    /// That of the family which a file is of, for these special tokens and their names.
    pub(super) fn read(metadata: &Metadata<'_>, vocabulary: &Vocabulary, special: &[u32]) -> Self {
        let text = |key| metadata.optional::<&str>(key).ok().flatten().unwrap_or_default();
        let file = File {
            model: text("tokenizer.ggml.model"),
            pre: text("tokenizer.ggml.pre"),
            architecture: text("general.architecture"),
            name: text("general.name").to_lowercase(),
        };
        let name_of =
            |id| vocabulary.piece(id).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default();
        let is_of = |family: &&Family| {
            let has = |name: &&str| special.iter().any(|&id| name_of(id) == *name);
            (family.is)(&file) && family.known_by.iter().all(has)
        };
        let Some(family) = FAMILIES.iter().find(is_of) else { return Spacing::default() };
        let takes = |&id: &u32| match family.tokens {
            Tokens::These(names) => names.contains(&name_of(id)),
            Tokens::AllBut(names) => !names.contains(&name_of(id)),
        };
        let mut ids: Vec<u32> = special.iter().copied().filter(takes).collect();
        ids.sort_unstable();
        Spacing { side: family.side, ids }
    }

    /// Where white space goes with this token.
    pub(super) fn of(&self, id: u32) -> Side {
        if self.ids.binary_search(&id).is_ok() { self.side } else { Side::default() }
    }
}

/// What a file says about itself.
struct File<'a> {
    model: &'a str,
    pre: &'a str,
    architecture: &'a str,
    /// In small letters.
    name: String,
}

/// Vocabularies whose special tokens take white space along.
struct Family {
    is: fn(&File<'_>) -> bool,
    /// Special tokens that it has, where what files say is not enough.
    known_by: &'static [&'static str],
    side: Side,
    tokens: Tokens,
}

enum Tokens {
    These(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}

/// The first that fits counts.
const FAMILIES: &[Family] = &[
    // Phi-3 and Phi-3.5, also where a file has them as another architecture.
    Family {
        is: |file| {
            let is_named = file.name.contains("phi-3") || file.name.contains("phi3");
            file.model == "llama" && (matches!(file.architecture, "phi3" | "phimoe") || is_named)
        },
        known_by: &[],
        side: RIGHT,
        tokens: Tokens::AllBut(&["<unk>", "<s>", "<|endoftext|>"]),
    },
    // Phi-4-mini.
    Family {
        is: |file| file.model == "gpt2" && file.pre == "gpt-4o" && file.architecture == "phi3",
        known_by: &[],
        side: RIGHT,
        tokens: Tokens::These(&["<|assistant|>", "<|end|>", "<|user|>", "<|system|>"]),
    },
    // Phi-4.
    Family {
        is: |file| file.model == "gpt2" && file.pre == "dbrx",
        known_by: &["<|im_sep|>", "<|dummy_0|>"],
        side: BOTH,
        tokens: Tokens::AllBut(&["\u{FFFD}"]),
    },
    // RoBERTa, XLM-RoBERTa and ModernBERT, and what took over their vocabularies.
    Family {
        is: |file| {
            let is_roberta = file.pre == "roberta-bpe" || file.pre.starts_with("jina-");
            file.model == "t5" || file.model == "gpt2" && (is_roberta || file.pre == "modern-bert")
        },
        known_by: &[],
        side: LEFT,
        tokens: Tokens::These(&["<mask>", "[MASK]"]),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_known_by_what_files_say() {
        let family = |[model, pre, architecture, name]: [&'static str; 4]| {
            let file = File { model, pre, architecture, name: name.to_owned() };
            FAMILIES.iter().position(|family| (family.is)(&file))
        };
        let [phi3, phi4_mini, phi4, masks] = [0, 1, 2, 3];
        assert_eq!(family(["llama", "default", "phi3", "phi3"]), Some(phi3));
        assert_eq!(family(["llama", "default", "phimoe", ""]), Some(phi3));
        assert_eq!(family(["llama", "default", "llama", "phi-3.5-mini-instruct"]), Some(phi3));
        assert_eq!(family(["llama", "default", "llama", "llama v2"]), None);
        assert_eq!(family(["gpt2", "gpt-4o", "phi3", "phi-4-mini-instruct"]), Some(phi4_mini));
        assert_eq!(family(["gpt2", "gpt-4o", "gpt-oss", "gpt-oss-20b"]), None);
        assert_eq!(family(["gpt2", "dbrx", "phi3", "phi-4"]), Some(phi4));
        assert_eq!(family(["gpt2", "jina-v2-de", "jina-bert-v2", ""]), Some(masks));
        assert_eq!(family(["t5", "default", "nomic-bert-moe", ""]), Some(masks));
        assert_eq!(family(["bert", "jina-v2-en", "jina-bert-v2", ""]), None);
    }
}
