#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::collections::{BTreeSet, HashSet};

use super::{Node, Syntax, Vocabulary, parser};
use crate::engine::grammar::{Form, Grammar, Grammars, MAX_GRAMMAR_BYTES};
use crate::error::Error;
use crate::sampling::likeliest;

/// Tokens of more than a byte: 256 and on.
const TEXTS: [&str; 12] = ["ab", "ba", "aa", "bb", "a(", "()", "))", "b)", "((", ") ", "aab", "abb"];
/// Control tokens after them.
const CONTROL: [&str; 4] = ["<think>", "</think>", "<end>", "<other end>"];
const THINK: u32 = 256 + TEXTS.len() as u32;
const STOP: [u32; 2] = [THINK + 2, THINK + 3];
const N_VOCAB: usize = 256 + TEXTS.len() + CONTROL.len();

fn grammars() -> Grammars {
    let bytes = (0..=255_u8).map(|byte| vec![byte]);
    let texts = TEXTS.iter().map(|text| text.as_bytes().to_vec());
    let control = CONTROL.iter().map(|text| [b"\xFF", text.as_bytes()].concat());
    Grammars::of_words(&bytes.chain(texts).chain(control).collect::<Vec<_>>(), &STOP).unwrap()
}

fn allowed(form: &mut Form) -> HashSet<u32> {
    let mut logits = vec![0.0; N_VOCAB];
    form.mask(&mut logits, None, &STOP).unwrap();
    let allowed = (0..).zip(logits).filter(|(_, logit)| *logit == 0.0).map(|(id, _)| id).collect();
    check_best(form, &allowed);
    allowed
}

/// That the best of what is allowed are the same where not all of it is asked for.
fn check_best(form: &mut Form, allowed: &HashSet<u32>) {
    let logit = |id: usize| (id * 101 % 257) as f32;
    let mut best: Vec<u32> = allowed.iter().copied().collect();
    best.sort_by(|a, b| logit(*b as usize).total_cmp(&logit(*a as usize)).then(a.cmp(b)));
    for n_best in [1, 3, 40] {
        let mut logits: Vec<f32> = (0..N_VOCAB).map(logit).collect();
        form.mask(&mut logits, Some(n_best), &STOP).unwrap();
        let found: Vec<u32> = likeliest(&logits, n_best).map(|(id, _)| id).collect();
        assert_eq!(found, best[..n_best.min(best.len())]);
    }
}

/// Whether a form has room for tokens, and for an end after them.
fn takes(form: &Form, tokens: &[u32]) -> bool {
    let mut form = form.clone();
    for token in tokens {
        if !allowed(&mut form).contains(token) {
            return false;
        }
        form.accept(*token, &STOP).unwrap();
    }
    let allowed = allowed(&mut form);
    assert_eq!(allowed.contains(&STOP[0]), allowed.contains(&STOP[1]));
    allowed.contains(&STOP[0])
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn compile(grammars: &Grammars, text: &str) -> Form {
    grammars.compile(&Grammar::Gbnf(text.to_owned())).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn reason(grammars: &Grammars, text: &str) -> String {
    match grammars.compile(&Grammar::Gbnf(text.to_owned())) {
        Err(Error::Grammar { reason }) => reason,
        other => panic!("{}: {other:?}", &text[..text.len().min(100)]),
    }
}

/// As llama.cpp's guide describes them.
#[test]
fn each_construct_takes_what_it_stands_for() {
    let grammars = grammars();
    let cases: &[(&str, &[&str], &[&str])] = &[
        (r#"root ::= "abc""#, &["abc"], &["", "ab", "abcd", "abd"]),
        (r#"root ::= "" "a" """#, &["a"], &["", "aa"]),
        (r#"root ::= "a\n\r\t\\\"\[\]\x41\u00e9\U0001F600""#, &["a\n\r\t\\\"[]Aé😀"], &["a"]),
        (r#"root ::= "😀é""#, &["😀é"], &["😀", "é"]),
        ("root ::= [a-cx]", &["a", "b", "c", "x"], &["", "d", "-", "aa"]),
        ("root ::= [^a-cx]", &["d", "é", "\n", "😀", "-"], &["a", "b", "x", ""]),
        ("root ::= [-+a-]", &["-", "+", "a"], &["b"]),
        (r"root ::= [a\-c]", &["a", "-", "c"], &["b"]),
        (r"root ::= [\]\[^]", &["]", "[", "^"], &["a"]),
        (r#"root ::= ["\\\x7F\x00-\x1F]"#, &["\"", "\\", "\n", "\x7f"], &["a", "x"]),
        ("root ::= [ぁ-ゟ]+", &["ひらがな"], &["カ", "a", ""]),
        (r"root ::= [\uD7FF-\uE000]", &["\u{D7FF}", "\u{E000}"], &["a", "\u{E001}"]),
        ("root ::= .", &["a", "\n", "é", "😀"], &["", "ab"]),
        (r#"root ::= "a" | "b" |"#, &["a", "b", ""], &["ab", "c"]),
        (r#"root ::= ("a" | "b") "c""#, &["ac", "bc"], &["a", "c", "abc"]),
        (r#"root ::= "ab"* "c""#, &["c", "abc", "ababc"], &["ab", "abbc"]),
        (r#"root ::= ("ab")+"#, &["ab", "abab"], &["", "aba"]),
        (r#"root ::= "a"? [b]?"#, &["", "a", "b", "ab"], &["aa", "ba"]),
        ("root ::= [ab]{2}", &["ab", "bb"], &["a", "aba"]),
        ("root ::= [ab]{ 2 , }", &["ab", "bbb", "aaaaaa"], &["a", ""]),
        ("root ::= [ab]{1,3}", &["a", "ab", "bbb"], &["", "abab"]),
        ("root ::= [ab]{0,2} [c]{0}", &["", "a", "ab"], &["aba", "c"]),
        ("root ::= [ab]{2}{2}", &["abab"], &["ab", "aba", "ababa"]),
        (
            "# a comment\nroot ::= ( # another\n  one # \"no text\n  |\n\n  two-2 )\r\n\n  one ::= \"1\" |\n \"one\"\ntwo-2 ::=\n \"2\" # last",
            &["1", "one", "2"],
            &["", "12"],
        ),
        ("a ::= root\nroot ::= B0 b\nB0 ::= \"x\"\nb ::= \"y\"\nunused ::= unused", &["xy"], &["x"]),
        // In circles.
        (r#"root ::= "(" root ")" | "a""#, &["a", "(a)", "((a))"], &["", "(a", "a)", "()"]),
        (r#"root ::= root "b" | "a""#, &["a", "ab", "abbb"], &["b", "", "aa"]),
        (r#"root ::= "a" root | "b""#, &["b", "aab"], &["a", "ba"]),
        (r#"root ::= root | "a""#, &["a"], &["", "aa"]),
        (r#"root ::= root root | "(" root ")" | """#, &["", "()", "()()", "(())()"], &["(", "())"]),
        (r#"root ::= a{2,5}  a ::= "x""#, &[], &[]),
    ];
    for (text, taken, refused) in &cases[..cases.len() - 1] {
        let form = compile(&grammars, text);
        taken
            .iter()
            .for_each(|answer| assert!(takes(&form, &bytes(answer)), "{text}: {answer:?} is refused"));
        refused
            .iter()
            .for_each(|answer| assert!(!takes(&form, &bytes(answer)), "{text}: {answer:?} is taken"));
    }
    // A rule begins on a line of its own.
    assert!(reason(&grammars, cases[cases.len() - 1].0).starts_with("line 1, column 20: `:`"));
}

/// Repetitions of what refers to rules in a circle, which are no lexemes.
#[test]
fn what_is_repeated_may_be_counted_whatever_it_is() {
    let grammars = grammars();
    for (min, max) in [(0, 1), (1, 1), (0, 2), (2, 2), (0, 7), (3, 3), (2, 9), (5, 12), (16, 16), (13, 29)] {
        let text = format!("root ::= item{{{min},{max}}}\nitem ::= \"(\" item \")\" | \"a\"");
        let form = compile(&grammars, &text);
        for n in 0..max + 3 {
            let answer: String = (0..n).map(|i| if i % 3 == 0 { "(a)" } else { "a" }).collect();
            assert_eq!(takes(&form, &bytes(&answer)), (min..=max).contains(&n), "{text}: {n}");
        }
    }
}

/// What a rule derives of a text, found by trying: a table of where each part that begins somewhere may end, in bits.
fn derives(syntax: &Syntax<'_>, text: &[char]) -> bool {
    let mut ends = vec![vec![0_u32; text.len() + 1]; syntax.nodes.len()];
    loop {
        let mut changes = false;
        for (index, node) in syntax.nodes.iter().enumerate() {
            for start in 0..=text.len() {
                // Where a part ends that begins at one of several places.
                let after = |places: u32, part: usize| {
                    let at = (0..=text.len()).filter(|at| places & 1 << at != 0);
                    at.fold(0, |all, at| all | ends[part][at])
                };
                let found = match node {
                    Node::Char(class) => {
                        let has = |c: &char| {
                            let code = u32::from(*c);
                            syntax.classes[*class].iter().any(|(low, high)| (*low..=*high).contains(&code))
                        };
                        text.get(start).filter(|c| has(c)).map_or(0, |_| 2 << start)
                    }
                    Node::Token { .. } => 0,
                    Node::Sequence(parts) => parts.iter().fold(1 << start, |at, part| after(at, *part)),
                    Node::Choice(options) => options.iter().fold(0, |all, option| all | ends[*option][start]),
                    Node::Repeat { node, min, max } => {
                        let (mut all, mut at) = (0, 1 << start);
                        for n in 0..=max.unwrap_or(text.len() as u32 + min) {
                            all |= if n >= *min { at } else { 0 };
                            at = after(at, *node);
                        }
                        all
                    }
                    Node::Rule(rule) => ends[syntax.rules[*rule].body()][start],
                };
                changes |= found != ends[index][start];
                ends[index][start] = found;
            }
        }
        if !changes {
            return ends[syntax.rules[syntax.root].body()][0] & 1 << text.len() != 0;
        }
    }
}

/// Of grammars in which lexemes could end early or late: where a text may go on, and with which tokens of several
/// characters, is what all short texts say that it derives.
#[test]
fn masks_allow_what_the_grammar_derives_and_nothing_else() {
    const N_CHARS: usize = 8;
    let grammars = grammars();
    let vocabulary = Vocabulary { trie: grammars.trie(), stop_tokens: &STOP };
    for (alphabet, text) in [
        ("ab(", "root ::= \"a\"* rest\nrest ::= \"ab\" rest \"a\" | \"a\"? \"b\" | \"(\" rest"),
        ("ab(", "root ::= [ab]* \"b\" rest\nrest ::= \"(\" rest | \"a\" | \"\""),
        ("ab)", "root ::= list\nlist ::= item | list item\nitem ::= \"a\"+ | \"ab\" | list \")\""),
        ("a()", "root ::= root root | \"a\" | \"(\" root \")\" | \"\""),
        ("ab ", "root ::= (\"a\" | \"ab\") (\"b\" root)? | \"ba\" root ws\nws ::= [ ]*"),
        ("ab ", "root ::= term (ws term ws)*\nterm ::= [a-z]+ ws | \"b\" root\nws ::= \" \"?"),
        ("ab(", "root ::= x | y\nx ::= \"a\" x \"b\" | \"ab\"\ny ::= \"aa\" y | \"b\" | \"(\" [ab]{2} y"),
        ("ab(", "root ::= [^b]{1,3} root2\nroot2 ::= \"b\" | \"a\" root2 | \"(b\" root2"),
        ("ab)", "root ::= a a\na ::= [ab]{1,2} (\")\" a)?"),
    ] {
        let syntax = parser::parse(text, vocabulary).unwrap();
        let mut texts: Vec<String> = vec![String::new()];
        let mut all = texts.clone();
        for _ in 0..N_CHARS {
            texts = texts.iter().flat_map(|t| alphabet.chars().map(move |c| format!("{t}{c}"))).collect();
            all.extend(texts.clone());
        }
        let derived: BTreeSet<String> =
            all.iter().filter(|t| derives(&syntax, &t.chars().collect::<Vec<_>>())).cloned().collect();
        let goes_on =
            |start: &str| derived.range(start.to_owned()..).next().is_some_and(|t| t.starts_with(start));
        let form = compile(&grammars, text);
        let tokens: Vec<(u32, String)> = (0..)
            .zip((0..128_u8).map(|byte| char::from(byte).to_string()))
            .chain((256..).zip(TEXTS.map(str::to_owned)))
            .filter(|(_, t)| t.chars().all(|c| alphabet.contains(c)))
            .collect();
        let mut n_allowed = 0;
        for start in all.iter().filter(|t| t.len() <= 2 && goes_on(t)) {
            let mut form = form.clone();
            start.bytes().for_each(|byte| form.accept(byte.into(), &STOP).unwrap());
            let allowed = allowed(&mut form);
            assert_eq!(allowed.contains(&STOP[0]), derived.contains(start), "{text}: an end after {start:?}");
            for (id, token) in tokens.iter().filter(|(_, token)| token.len() <= 2) {
                let is_allowed = allowed.contains(id);
                n_allowed += usize::from(is_allowed);
                // Texts that only longer ones begin with are not among those that were tried.
                assert_eq!(
                    is_allowed,
                    goes_on(&format!("{start}{token}")),
                    "{text}: {token:?} after {start:?}"
                );
            }
        }
        assert!(n_allowed > 5, "{text}");
    }
}

#[test]
fn tokens_may_be_named_by_text_and_by_number() {
    let grammars = grammars();
    for (first, second) in
        [("<think>", "</think>"), (&*format!("<[{THINK}]>"), &*format!("<[{}]>", THINK + 1))]
    {
        let text = format!("root ::= {first} thought {second} [a-z]*\nthought ::= !{second}*");
        let form = compile(&grammars, &text);
        let answer = |thought: &[u32], rest: &str| [&[THINK], thought, &[THINK + 1], &*bytes(rest)].concat();
        assert!(takes(&form, &answer(&bytes("Any (\n"), "abc")));
        assert!(takes(&form, &answer(&[], "")));
        assert!(takes(&form, &answer(&[THINK, 256], "")), "all tokens but one");
        assert!(!takes(&form, &answer(&[], "A")));
        assert!(!takes(&form, &bytes("<think></think>abc")), "a text is no control token");
        assert!(!takes(&form, &[THINK]));
        let mut thinking = form.clone();
        thinking.accept(THINK, &STOP).unwrap();
        let allowed = allowed(&mut thinking);
        assert_eq!(allowed.len(), N_VOCAB - STOP.len(), "an answer can't end in a thought");
    }
    for (text, wrong) in [
        ("root ::= <thought>", "line 1, column 10: the vocabulary has no token `<thought>`"),
        ("root ::= <[999]>", "line 1, column 10: <[999]>: the vocabulary has 272"),
        ("root ::= <[-1]>", "line 1, column 10: <[-1]>: the vocabulary has 272"),
        ("root ::= <end>", "line 1, column 10: <end> ends an answer, and can be no part of one"),
        ("root ::= \"a\" <think", "line 1, column 14: the token has no end"),
        ("root ::= !\"a\"", "line 1, column 11: `\"`, where a token, as `<text>` or `<[id]>` is expected"),
        ("root ::= \"a\"* | !<think>", "line 1, column 17: what this token stands for may come here"),
        ("root ::= [a-z]+ <[97]>", "line 1, column 17: what this token stands for may come here"),
        (
            "root ::= !<think> | !</think> \"b\"",
            "line 1, column 10: what this token stands for may come here",
        ),
    ] {
        assert!(reason(&grammars, text).starts_with(wrong), "{}", reason(&grammars, text));
    }
    // A token of text, where no text is.
    let form = compile(&grammars, "root ::= <[256]> [c-z]+ <[97]> | \"x\"");
    assert!(takes(&form, &[256, b'c'.into(), 97]) && takes(&form, &bytes("x")));
    assert!(!takes(&form, &bytes("abca")), "the same text by other tokens");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let grammars = grammars();
    for (text, wrong) in [
        ("", "there is no rule `root`"),
        ("# nothing", "there is no rule `root`"),
        ("Root ::= \"a\"", "there is no rule `root`"),
        ("root ::= \"a\"\n\nb ::= é", "line 3, column 7: `é`, where the end of the line"),
        ("root ::= a\n", "line 1, column 10: there is no rule `a`"),
        ("root ::= \"é\" (x | \"b\")", "line 1, column 15: there is no rule `x`"),
        ("root ::= \"a\nb", "line 1, column 10: the text has no end"),
        ("root ::= \"a\\", "line 1, column 10: the text has no end"),
        ("root ::= [a-", "line 1, column 10: the class has no end"),
        ("root ::= [", "line 1, column 10: the class has no end"),
        ("root ::= []", "line 1, column 10: the class has no characters"),
        ("root ::= [^\\x00-\\U0010FFFF]", "line 1, column 10: the class has no characters"),
        ("root ::= [b-a]", "line 1, column 11: the range's end is before its start"),
        ("root ::= (\"a\"\n", "line 1, column 10: the group has no end"),
        ("root ::= (\"a\" ]", "line 1, column 15: `]`, where `)`, or a part of a rule is expected"),
        ("root ::= \"a\")", "line 1, column 13: `)`, where the end of the line"),
        ("root ::= *", "line 1, column 10: nothing before `*`"),
        ("root ::= \"a\" | {2}", "line 1, column 16: nothing before `{`"),
        ("root ::= \"a\"{}", "line 1, column 14: `}`, where a number is expected"),
        ("root ::= \"a\"{2", "line 1, column 15: the end, where `}` is expected"),
        ("root ::= \"a\"{3,2}", "line 1, column 13: more times at least than at most"),
        ("root ::= \"a\"{1000001}", "line 1, column 14: more than 1000000 times"),
        ("root ::= \"a\"{99999999999999999999}", "line 1, column 14: more than 1000000 times"),
        ("root ::= \"\\q\"", "line 1, column 11: `\\q` is no escape"),
        ("root ::= \"\\x4\"", "line 1, column 11: `\\x` needs 2 hexadecimal digits"),
        ("root ::= \"\\x+1\"", "line 1, column 11: `\\x` needs 2 hexadecimal digits"),
        ("root ::= \"\\u00é\"", "line 1, column 11: `\\u` needs 4 hexadecimal digits"),
        ("root ::= \"\\U00110000\"", "line 1, column 11: U+110000 is no character"),
        ("root ::= \"\\uD800\"", "line 1, column 11: U+D800 is no character"),
        ("root = \"a\"", "line 1, column 6: `=`, where `::=` is expected"),
        ("root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: the rule `root` is there twice"),
        ("a_b ::= \"a\"", "line 1, column 2: `_`, where `::=` is expected"),
        ("::= \"a\"", "line 1, column 1: `:`, where a rule's name"),
        ("root ::= a\na ::= b\nb ::= a", "line 1, column 1: the rule `root` goes in a circle"),
        ("root ::= \"a\" | b\nb ::= \"x\" b", "line 2, column 1: the rule `b` goes in a circle"),
        ("root ::= root", "line 1, column 1: the rule `root` goes in a circle"),
        ("root ::=", "line 1, column 1: the rule `root` derives no text but the empty one"),
        (
            "a ::= \"x\"{0} a?\nroot ::= a \"\"",
            "line 2, column 1: the rule `root` derives no text but the empty one",
        ),
    ] {
        let found = reason(&grammars, text);
        assert!(found.starts_with(wrong), "{text:?}: {found}");
    }
    assert!(reason(&grammars, &"#".repeat(MAX_GRAMMAR_BYTES + 1)).starts_with("it has 131073 bytes"));
}

/// Each as large as a grammar may be: an error or a form, soon.
#[test]
fn a_hostile_grammar_ends_no_process() {
    let grammars = grammars();
    let chain = |ring: bool, times: &str| {
        let n = MAX_GRAMMAR_BYTES / (22 + 2 * times.len()) - 1;
        let last = if ring { "\"x\" | r0" } else { "\"x\"" };
        let rule = |i| format!("r{i} ::= r{}{times}\n", i + 1);
        format!("root ::= r0\n{}r{n} ::= {last}\n", (0..n).map(rule).collect::<String>())
    };
    let doubling = |ring: bool| {
        let rule = |i| format!("r{i} ::= r{} r{}\n", i + 1, i + 1);
        let last = if ring { "\"x\" | \"(\" root \")\"" } else { "\"x\"" };
        format!("root ::= r0\n{}r64 ::= {last}\n", (0..64).map(rule).collect::<String>())
    };
    let fill = |start: &str, part: &str, end: &str| {
        let n = (MAX_GRAMMAR_BYTES - start.len() - end.len()) / part.len();
        format!("{start}{}{end}", part.repeat(n))
    };
    let deep = |n: usize, inner: &str| format!("root ::= {}{inner}{}", "(".repeat(n), ")".repeat(n));
    for text in [
        chain(false, ""),
        chain(true, ""),
        chain(false, "?"),
        chain(true, "*"),
        chain(false, "{9}"),
        doubling(false),
        doubling(true),
        deep(2000, "\"a\""),
        deep(2000, "root | \"a\""),
        deep(60000, "\"a\""),
        fill("root ::= (", "(", ""),
        fill("root ::= \"", "a", "\""),
        fill("root ::= \"", "a", "\" root?"),
        fill("root ::= [^", "a", "]"),
        fill("root ::= root?", " [ab]?", ""),
        fill("root ::= ", " [ab]?", ""),
        fill("root ::= \"x\"", " | root root", ""),
        fill("root ::= \"x\"", "*", ""),
        fill("root ::= (root | \"x\")", "{9}", ""),
        fill("root ::= \"x\"", "{999}", ""),
        fill("root ::= .", " | .", ""),
        fill("root ::= (root \"b\")?", " .?", ""),
        "root ::= ((([ab]{1000000}){1000000}){1000000}) \"c\"".to_owned(),
        "root ::= \"(\" root{1000000} \")\" | \"x\"".to_owned(),
        "root ::= [ab]* [a] [ab]{1000} \"c\"".to_owned(),
    ] {
        assert!(text.len() <= MAX_GRAMMAR_BYTES);
        let started = std::time::Instant::now();
        let found = grammars.compile(&Grammar::Gbnf(text.clone()));
        let compiled = started.elapsed();
        let said = match found {
            Ok(mut form) => {
                // The library may find it too much only once it is used, which ends an answer and nothing else.
                let mut logits = vec![0.0; N_VOCAB];
                match form.mask(&mut logits, None, &STOP) {
                    Ok(()) => "a form".to_owned(),
                    Err(error) => format!("a form, but {error}"),
                }
            }
            Err(error) => error.to_string(),
        };
        let start: String = text.chars().take(40).collect();
        println!("{start:?} {compiled:.1?} + {:.1?}: {said}", started.elapsed() - compiled);
        assert!(said.len() < 500 && !said.contains("failed"), "{said}");
        assert!(started.elapsed().as_secs() < 60, "{start:?} takes {:?}", started.elapsed());
    }
}
