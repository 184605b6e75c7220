//! Vocabularies made by hand: what encoding is by definition, and what is refused.

use metallic::text::{EncodeOptions, MAX_TEXT_BYTES, Tokenizer, TokenizerError};
use metallic_gguf::{ArrayBuf, Gguf, GgufWriter, ValueType};

pub(crate) const PLAIN: EncodeOptions =
    EncodeOptions { add_bos: false, add_eos: false, parse_special: false };

/// The arrays and ids of a vocabulary.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) model: &'static str,
    pub(crate) pre: Option<&'static str>,
    /// What a file says about its model, by the end of a key.
    pub(crate) general: Vec<(&'static str, &'static str)>,
    pub(crate) tokens: Vec<Vec<u8>>,
    pub(crate) types: Vec<i32>,
    pub(crate) scores: Option<Vec<f32>>,
    pub(crate) merges: Option<Vec<String>>,
    pub(crate) charsmap: Option<Vec<u8>>,
    pub(crate) ids: Vec<(&'static str, u32)>,
    pub(crate) flags: Vec<(&'static str, bool)>,
    /// Keys with a number that has a sign.
    pub(crate) numbers: Vec<(&'static str, i32)>,
    /// Ends beside EOS.
    pub(crate) ends: Vec<u32>,
    /// Whether scores are written as integers.
    pub(crate) whole_scores: bool,
}

impl Parts {
    /// Byte-level: 95 ASCII characters with `Ġ` for space, then what merges make, then two control tokens.
    pub(crate) fn bpe(merges: &[&str]) -> Self {
        let space = |c: char| if c == ' ' { 'Ġ' } else { c };
        let mut tokens: Vec<Vec<u8>> = (' '..='~').map(|c| space(c).to_string().into_bytes()).collect();
        for merge in merges {
            let joined = merge.replace(' ', "").into_bytes();
            if !tokens.contains(&joined) {
                tokens.push(joined);
            }
        }
        let mut types = vec![1; tokens.len()];
        tokens.extend([b"<s>".to_vec(), b"<|im_end|>".to_vec()]);
        types.extend([3, 3]);
        let ids = vec![("bos", tokens.len() as u32 - 2), ("eos", tokens.len() as u32 - 1)];
        Parts {
            model: "gpt2",
            pre: Some("gpt-2"),
            general: Vec::new(),
            tokens,
            types,
            scores: None,
            merges: Some(merges.iter().map(|&merge| merge.to_owned()).collect()),
            charsmap: None,
            ids,
            flags: Vec::new(),
            numbers: Vec::new(),
            ends: Vec::new(),
            whole_scores: false,
        }
    }

    /// SentencePiece: the usual three first, all bytes, then the pieces with scores.
    pub(crate) fn spm(pieces: &[(&str, f32)]) -> Self {
        let mut tokens: Vec<Vec<u8>> = ["<unk>", "<s>", "</s>"].map(|text| text.as_bytes().to_vec()).into();
        let mut types = vec![2, 3, 3];
        tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>").into_bytes()));
        types.extend([6; 256]);
        let mut scores = vec![0.0; tokens.len()];
        for &(piece, score) in pieces {
            tokens.push(piece.as_bytes().to_vec());
            types.push(1);
            scores.push(score);
        }
        let ids = vec![("unknown", 0), ("bos", 1), ("eos", 2)];
        Parts {
            model: "llama",
            pre: None,
            tokens,
            types,
            scores: Some(scores),
            merges: None,
            ids,
            ..Parts::bpe(&[])
        }
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        let mut file = GgufWriter::new();
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let strings = |of: &[Vec<u8>]| {
            let values = of.iter().map(|bytes| metallic_gguf::Value::String(bytes));
            ArrayBuf::new(ValueType::String, values).expect("strings")
        };
        file.set(&key("model"), self.model).expect("a key");
        if let Some(pre) = self.pre {
            file.set(&key("pre"), pre).expect("a key");
        }
        for &(name, value) in &self.general {
            file.set(&format!("general.{name}"), value).expect("a key");
        }
        file.set(&key("tokens"), &strings(&self.tokens)).expect("a key");
        let types = ArrayBuf::new(ValueType::I32, self.types.iter().copied()).expect("numbers");
        file.set(&key("token_type"), &types).expect("a key");
        if let Some(scores) = &self.scores {
            let scores = if self.whole_scores {
                ArrayBuf::new(ValueType::I32, scores.iter().map(|&score| score as i32))
            } else {
                ArrayBuf::new(ValueType::F32, scores.iter().copied())
            };
            let scores = scores.expect("numbers");
            file.set(&key("scores"), &scores).expect("a key");
        }
        if let Some(merges) = &self.merges {
            let merges: Vec<_> = merges.iter().map(|merge| merge.clone().into_bytes()).collect();
            file.set(&key("merges"), &strings(&merges)).expect("a key");
        }
        if let Some(charsmap) = &self.charsmap {
            let bytes = ArrayBuf::new(ValueType::U8, charsmap.iter().copied()).expect("numbers");
            file.set(&key("precompiled_charsmap"), &bytes).expect("a key");
        }
        for &(name, id) in &self.ids {
            file.set(&key(&format!("{name}_token_id")), id).expect("a key");
        }
        for &(name, flag) in &self.flags {
            file.set(&key(name), flag).expect("a key");
        }
        if !self.ends.is_empty() {
            let ends = ArrayBuf::new(ValueType::I32, self.ends.iter().map(|&id| id as i32)).expect("numbers");
            file.set(&key("eos_token_ids"), &ends).expect("a key");
        }
        for &(name, number) in &self.numbers {
            file.set(&key(name), number).expect("a key");
        }
        let bytes = file.begin(Vec::new()).and_then(|data| data.finish()).expect("a file in memory");
        Tokenizer::from_gguf(&Gguf::parse(&bytes).expect("a valid file"))
    }

    /// Encodes and names the tokens.
    fn pieces(&self, text: &str) -> Vec<String> {
        let tokenizer = self.tokenizer().expect("a valid vocabulary");
        let ids = tokenizer.encode(text, PLAIN).expect("ids");
        ids.iter()
            .map(|&id| String::from_utf8_lossy(tokenizer.piece(id).expect("a token")).into_owned())
            .collect()
    }
}

#[test]
fn merges_apply_in_their_order_from_the_left() {
    let bpe = Parts::bpe(&["b c", "a b", "a a", "aa a", "Ġ a"]);
    assert_eq!(bpe.pieces("abc"), ["a", "bc"], "the merge listed first wins");
    assert_eq!(bpe.pieces("aaaaa"), ["aa", "aaa"], "of equals the leftmost; then what that made");
    assert_eq!(bpe.pieces("abab ab"), ["ab", "ab", " ", "ab"]);
    assert_eq!(bpe.pieces(" a"), [" a"]);
}

#[test]
fn pieces_merge_by_score_and_the_rest_is_bytes() {
    let pieces =
        [("▁", -9.0), ("a", -9.0), ("b", -9.0), ("ab", -1.0), ("ba", -2.0), ("▁a", -3.0), ("aba", -4.0)];
    let mut spm = Parts::spm(&pieces);
    assert_eq!(spm.pieces("aba"), [" ", "aba"], "ab scores above ba and ▁a");
    assert_eq!(spm.pieces("a"), [" a"]);
    assert_eq!(spm.pieces("bba"), [" ", "b", "ba"]);
    let tokenizer = spm.tokenizer().expect("a valid vocabulary");
    let ids = tokenizer.encode("aé", PLAIN).expect("ids");
    assert_eq!(ids[1..], [3 + 0xC3, 3 + 0xA9]);
    assert_eq!(tokenizer.decode(&ids), "aé");
    assert_eq!(tokenizer.encode("", EncodeOptions::default()).as_deref(), Ok(&[1][..]));
    spm.flags = vec![("add_space_prefix", false), ("add_bos_token", false), ("add_eos_token", true)];
    assert_eq!(spm.pieces("a"), ["a"]);
    let tokenizer = spm.tokenizer().expect("a valid vocabulary");
    assert_eq!(tokenizer.encode("", EncodeOptions::default()).as_deref(), Ok(&[2][..]));
    assert_eq!(tokenizer.decode(&[1, 259, 2]), " ");
}

/// Merging as it is defined, step by step, in quadratic time.
fn merge_slowly(word: &str, best: impl Fn(&str, &str) -> Option<f64>) -> Vec<String> {
    let mut symbols: Vec<String> = word.chars().map(String::from).collect();
    loop {
        let ranked =
            symbols.windows(2).enumerate().filter_map(|(at, pair)| Some((best(&pair[0], &pair[1])?, at)));
        let Some((_, at)) = ranked.min_by(|a, b| a.0.total_cmp(&b.0)) else { return symbols };
        let right = symbols.remove(at + 1);
        symbols[at] += &right;
    }
}

#[test]
fn encoding_is_what_step_by_step_merging_gives() {
    let mut state = 7u64;
    let mut next = move |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    for _ in 0..200 {
        // Merges of earlier results, in a shuffled order of ranks.
        let mut made: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let mut merges: Vec<(String, String)> = Vec::new();
        for _ in 0..12 {
            let pair = (made[next(made.len())].clone(), made[next(made.len())].clone());
            if pair.0.len() + pair.1.len() < 9 && !merges.contains(&pair) {
                made.push(format!("{}{}", pair.0, pair.1));
                merges.insert(next(merges.len() + 1), pair);
            }
        }
        let words: Vec<String> =
            (0..20).map(|n| (0..n).map(|_| ["a", "b", "c"][next(3)]).collect()).collect();

        let lines: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
        let bpe = Parts::bpe(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let by_rank =
            |a: &str, b: &str| merges.iter().position(|(x, y)| (&**x, &**y) == (a, b)).map(|at| at as f64);

        // Few different scores, so that many are equal. All pieces can be made, or not.
        made.sort();
        made.dedup();
        let pieces: Vec<(&str, f32)> = made.iter().map(|piece| (piece.as_str(), -(next(4) as f32))).collect();
        let mut spm = Parts::spm(&pieces);
        spm.flags = vec![("add_space_prefix", false)];
        let by_score = |a: &str, b: &str| {
            let joined = format!("{a}{b}");
            pieces.iter().find(|(piece, _)| *piece == joined).map(|(_, score)| f64::from(-score))
        };
        for word in &words {
            assert_eq!(bpe.pieces(word), merge_slowly(word, by_rank), "{word:?} {lines:?}");
            assert_eq!(spm.pieces(word), merge_slowly(word, by_score), "{word:?} {pieces:?}");
        }
    }
}

#[test]
fn words_are_split_only_where_no_piece_reaches_over() {
    // "b▁" and "a▁▁a" reach over spaces, so after "b" and "a" a space does not begin a word of its own.
    let pieces = [
        ("▁", -9.0),
        ("a", -9.0),
        ("b", -9.0),
        ("c", -9.0),
        ("b▁", -1.0),
        ("▁▁", -2.0),
        ("a▁▁", -3.0),
        ("a▁▁a", -4.0),
    ];
    let mut spm = Parts::spm(&pieces);
    spm.flags = vec![("add_space_prefix", false)];
    assert_eq!(spm.pieces("b a"), ["b ", "a"]);
    assert_eq!(spm.pieces("a  a"), ["a  a"]);
    assert_eq!(spm.pieces("c  c c"), ["c", "  ", "c", " ", "c"]);
}

#[test]
fn special_tokens_are_parsed_only_on_request() {
    let mut bpe = Parts::bpe(&["l o"]);
    bpe.flags = vec![("add_bos_token", true), ("add_eos_token", true)];
    let tokenizer = bpe.tokenizer().expect("a valid vocabulary");
    let (bos, eos) = (tokenizer.bos().expect("BOS"), tokenizer.eos().expect("EOS"));
    let parsed = EncodeOptions { add_bos: false, add_eos: false, parse_special: true };
    assert_eq!(tokenizer.encode("<s>lo<|im_end|>", parsed).expect("ids"), [bos, bos - 1, eos]);
    let ids = tokenizer.encode("<s>", EncodeOptions::default()).expect("ids");
    assert_eq!((ids[0], ids[4]), (bos, eos));
    assert_eq!(ids.len(), 5, "three characters between");
    assert_eq!(tokenizer.stop_tokens(), [eos]);
    assert_eq!(tokenizer.decode(&[bos, bos - 1, eos, 9999]), "lo");
    assert_eq!((tokenizer.piece(9999), tokenizer.is_control(9999)), (None, false));
    assert_eq!(tokenizer.n_vocab(), eos as usize + 1);
}

#[test]
fn an_unknown_pre_tokenizer_splits_as_the_default() {
    let mut bpe = Parts::bpe(&["1 2", "3 4", "12 34", "a !"]);
    let with = |bpe: &Parts| bpe.pieces("a! 1234");
    assert_eq!(with(&bpe), ["a", "!", " ", "1234"]);
    bpe.pre = Some("default");
    let default = with(&bpe);
    assert_ne!(default, ["a", "!", " ", "1234"]);
    bpe.pre = Some("from-the-future");
    assert_eq!(with(&bpe), default);
    bpe.pre = None;
    assert_eq!(with(&bpe), default);
    bpe.general = vec![("architecture", "llama")];
    assert_eq!(with(&bpe), default);
    bpe.general = vec![("architecture", "gpt2")];
    assert_eq!(with(&bpe), ["a", "!", " ", "1234"], "an architecture with one vocabulary needs no name");
}

#[test]
fn merges_of_text_rather_than_bytes_know_their_byte_tokens() {
    // Such files are of the kind `gpt2` too, and only the pre-tokenizer tells; bytes are not marked.
    let tokens = ["▁", "a", "▁a", "\n", "<0xC3>", "<0xA9>"].map(|token| token.as_bytes().to_vec());
    let merges = Some(vec!["▁ a".to_owned()]);
    let text = |pre| {
        let parts = Parts { pre: Some(pre), tokens: tokens.to_vec(), types: vec![1; 6], ..Parts::bpe(&[]) };
        Parts { merges: merges.clone(), ids: vec![("bos", 3)], ..parts }
            .tokenizer()
            .expect("a valid vocabulary")
    };
    for pre in ["sarvam-moe", "gemma4"] {
        let tokenizer = text(pre);
        let ids = tokenizer.encode("a a\n é", PLAIN).expect("ids");
        assert_eq!(ids, [1, 2, 3, 0, 4, 5]);
        assert_eq!(tokenizer.decode(&ids), "a a\n é");
        assert_eq!(tokenizer.adds_bos(), pre == "gemma4");
    }
}

#[test]
fn other_kinds_are_named() {
    for model in ["test", "whitespace", ""] {
        let error = Parts { model, ..Parts::bpe(&[]) }.tokenizer().expect_err(model);
        assert!(matches!(error, TokenizerError::UnsupportedModel { .. }));
        assert!(error.to_string().contains(&format!("{model:?}")), "{error}");
    }
    for model in ["none", "no_vocab"] {
        let error = Parts { model, ..Parts::bpe(&[]) }.tokenizer().expect_err("no tokenizer");
        assert_eq!(error, TokenizerError::NoTokenizer);
    }
}

#[test]
fn what_is_wrong_with_a_vocabulary_is_said() {
    use TokenizerError as E;
    let refused = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::bpe(&["a b"]);
        change(&mut parts);
        parts.tokenizer().expect_err("a bad vocabulary")
    };
    assert!(matches!(refused(&|p| p.tokens.clear()), E::BadSize { n_tokens: 0 }));
    assert!(matches!(refused(&|p| p.types.truncate(5)), E::LengthMismatch { found: 5, .. }));
    assert!(matches!(refused(&|p| p.merges = None), E::Metadata(_)));

    let refused = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::spm(&[("a", -1.0)]);
        change(&mut parts);
        parts.tokenizer().expect_err("a bad vocabulary")
    };
    assert!(matches!(refused(&|p| p.scores = Some(vec![0.0])), E::LengthMismatch { found: 1, .. }));
    let nan = |p: &mut Parts| p.scores.as_mut().expect("scores")[9] = f32::NAN;
    assert!(matches!(refused(&nan), E::BadScore { id: 9 }));
}

#[test]
fn what_is_wrong_with_other_kinds_is_said() {
    use TokenizerError as E;
    type Change = fn(&mut Parts);
    type Check = fn(&E) -> bool;
    let unigram = Parts { model: "t5", ..Parts::spm(&[("▁", -1.0), ("a", -2.0)]) };
    let plain = |model, tokens: &[&str]| Parts {
        model,
        tokens: tokens.iter().map(|text| text.as_bytes().to_vec()).collect(),
        types: vec![1; tokens.len()],
        ids: vec![("unknown", 0)],
        merges: None,
        ..Parts::bpe(&[])
    };
    let wordpiece = plain("bert", &["[UNK]", "▁a", "b"]);
    let rwkv = plain("rwkv", &["<s>", "a", "\\n"]);
    let cases: &[(&Parts, Change, Check)] = &[
        (&unigram, |p| p.tokens.clear(), |e| matches!(e, E::BadSize { n_tokens: 0 })),
        (&unigram, |p| p.scores = Some(vec![0.0]), |e| matches!(e, E::LengthMismatch { found: 1, .. })),
        (&unigram, |p| p.scores.as_mut().unwrap()[9] = f32::NAN, |e| matches!(e, E::BadScore { id: 9 })),
        (&unigram, |p| p.scores.as_mut().unwrap()[9] = f32::INFINITY, |e| matches!(e, E::BadScore { id: 9 })),
        (&unigram, |p| p.charsmap = Some(vec![4, 0]), |e| matches!(e, E::BadCharsmap { .. })),
        (&unigram, |p| p.charsmap = Some(vec![9, 0, 0, 0, 1]), |e| matches!(e, E::BadCharsmap { .. })),
        (&unigram, |p| p.charsmap = Some(vec![1, 0, 0, 0, 1]), |e| matches!(e, E::BadCharsmap { .. })),
        (&unigram, |p| p.charsmap = Some(vec![0, 0, 0, 0, 0xFF]), |e| matches!(e, E::BadCharsmap { .. })),
        (&wordpiece, |p| p.tokens.clear(), |e| matches!(e, E::BadSize { n_tokens: 0 })),
        (&rwkv, |p| p.tokens.clear(), |e| matches!(e, E::BadSize { n_tokens: 0 })),
        (&rwkv, |p| p.types.clear(), |e| matches!(e, E::LengthMismatch { found: 0, .. })),
    ];
    for (at, (parts, change, is_expected)) in cases.iter().enumerate() {
        parts.tokenizer().expect("a valid vocabulary before the change");
        let mut parts = (*parts).clone();
        change(&mut parts);
        // Types and other arrays go with the tokens where those are what is wrong.
        if parts.tokens.is_empty() {
            (parts.types, parts.scores) = (Vec::new(), parts.scores.map(|_| Vec::new()));
        }
        let error = parts.tokenizer().expect_err("a bad vocabulary");
        assert!(is_expected(&error), "case {at}: {error}");
    }
    let tokenizer = Parts { ids: Vec::new(), ..rwkv }.tokenizer().expect("a valid vocabulary");
    assert_eq!(tokenizer.encode("ab", PLAIN), Err(E::NoToken { byte: b'b' }));
}

#[test]
fn any_table_of_replacements_gives_ids_or_an_error() {
    let mut state = 3u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for _ in 0..300 {
        // Offsets and labels that mostly lead somewhere, and replacements that mostly are text.
        let unit = |n: u32| ((n & 255) << 10) | (n >> 8 & 3) << 8 | (b'`' as u32 + (n >> 10) % 4);
        let mut charsmap = 1024u32.to_le_bytes().to_vec();
        charsmap.extend((0..256).flat_map(|_| unit(next()).to_le_bytes()));
        charsmap.extend(
            (0..600).map(|_| b"aab \0\xE4\xB8\x96"[next() as usize % if next() % 2 == 0 { 5 } else { 8 }]),
        );
        let parts =
            Parts { model: "t5", charsmap: Some(charsmap), ..Parts::spm(&[("▁", -1.0), ("a", -2.0)]) };
        if let Ok(tokenizer) = parts.tokenizer() {
            tokenizer.encode("abc世abab cc`aé", PLAIN).expect("ids");
        }
    }
}

#[test]
fn odd_but_valid_vocabularies_work() {
    // Empty pieces, the same piece twice, the same special token twice, a merge twice.
    let mut bpe = Parts::bpe(&["a b", "a b"]);
    bpe.tokens.extend([Vec::new(), b"ab".to_vec(), b"<s>".to_vec(), Vec::new()]);
    bpe.types.extend([1, 1, 3, 3]);
    assert_eq!(bpe.pieces("ab<s>"), ["ab", "<", "s", ">"]);
    // No token for a byte: the unknown token if there is one, an error if not.
    let tokenizer = bpe.tokenizer().expect("a valid vocabulary");
    assert!(matches!(tokenizer.encode("é", PLAIN), Err(TokenizerError::NoToken { byte: 0xC3 })));
    bpe.ids.push(("unknown", 7));
    let tokenizer = bpe.tokenizer().expect("a valid vocabulary");
    assert_eq!(tokenizer.encode("é", PLAIN).as_deref(), Ok(&[7, 7][..]));
}

#[test]
fn long_texts_take_little_time_or_are_refused() {
    let start = std::time::Instant::now();
    let bpe = Parts::bpe(&["a a", "aa aa", "aaaa aaaa", "Ġ Ġ"]).tokenizer().expect("a valid vocabulary");
    let spm = Parts::spm(&[("▁", -9.0), ("a", -9.0), ("aa", -1.0), ("▁▁", -1.0), ("aaaa", -2.0)]);
    let unigram = Parts { model: "t5", ..spm.clone() }.tokenizer().expect("a valid vocabulary");
    let wordpiece = Parts { model: "bert", ..spm.clone() }.tokenizer().expect("a valid vocabulary");
    let plamo = Parts { model: "plamo2", ..spm.clone() }.tokenizer().expect("a valid vocabulary");
    let rwkv = Parts { model: "rwkv", ..spm.clone() }.tokenizer().expect("a valid vocabulary");
    let spm = spm.tokenizer().expect("a valid vocabulary");
    for unit in ["a", " ", "a ", "1", "é"] {
        let text = unit.repeat(1_000_000 / unit.len());
        for tokenizer in [&bpe, &spm, &unigram, &plamo, &wordpiece, &rwkv] {
            // The first has no token for "é".
            let n_ids = tokenizer.encode(&text, PLAIN).map_or(0, |ids| ids.len());
            assert!(n_ids <= text.len() + 1);
        }
    }
    // Quadratic time would be hours.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    let text = "a".repeat(MAX_TEXT_BYTES + 1);
    assert!(matches!(bpe.encode(&text, PLAIN), Err(TokenizerError::TextTooLong { .. })));
}
