//! Answers of a given form: of the tokens that could come next, only those that the form has room for are chosen from.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Logger, Matcher, ParserFactory};
use serde_json::Value;
use smallvec::SmallVec;

use super::gbnf::{self, Vocabulary};
use super::watch::Watch;
use crate::error::{Error, Result};
use crate::sampling::likeliest;
use crate::text::Tokenizer;

/// A form that an answer is to have, from its first token on.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// JSON that keeps to a schema.
    JsonSchema(Value),
    /// A text that all of a regular expression matches.
    Regex(String),
    /// What a grammar in Lark's notation derives, as llguidance reads it.
    Lark(String),
    /// What a grammar in GBNF derives, the notation of llama.cpp, from its rule `root` on.
    Gbnf(String),
}

impl Grammar {
    /// Any JSON object.
    pub fn json_object() -> Self {
        Grammar::JsonSchema(serde_json::json!({ "type": "object" }))
    }
}

/// Characters of what is wrong with a grammar, which may be quoted in it.
const MAX_REASON_CHARS: usize = 300;

/// Bytes of a grammar's text at most: those that people write have a few thousand.
pub const MAX_GRAMMAR_BYTES: usize = 128 << 10;

/// Items of Earley's algorithm for one mask of a grammar in GBNF, ten times the library's: where lexemes can be no longer than a
/// character, the texts of a large vocabulary have so many.
const MAX_ITEMS: usize = 500_000;

/// Tokens that a choice may depend on, at most, for them to be tried one by one; and how many more are tried to find so many.
const MAX_TRIED: usize = 64;
const MORE_TRIED: usize = 6;

/// How long an answer's form may take for a token, on average, and how much of that it may have saved for one that takes longer.
/// All answers of an engine wait for it. Those that people ask for take some milliseconds: a large schema's first token takes
/// fifty. The library's own limits count items of Earley's algorithm, of which a hostile grammar makes each cost more, so that
/// a token can take ten seconds within them.
const TIME_A_TOKEN: Duration = Duration::from_millis(50);
const MAX_TIME_SAVED: Duration = Duration::from_millis(500);

/// Compiling a grammar goes as deep as its parts refer to each other, which may be as often as its text has room for.
const STACK_BYTES: usize = 256 << 20;

/// Makes forms of grammars, for one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
    stop_tokens: Vec<u32>,
    watch: Arc<Watch>,
}

impl Grammars {
    /// Takes some tenths of a second for a large vocabulary.
    ///
    /// # Errors
    /// [`Error::Grammar`], of a vocabulary without an end of answers; [`Error::Threads`], if the system gives no thread.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let n_vocab = tokenizer.n_vocab() as u32;
        let word = |id: u32| {
            let piece = tokenizer.piece(id).unwrap_or_default();
            // So that no text of an answer is taken for one.
            let marker = tokenizer.is_control(id).then_some(TokTrie::SPECIAL_TOKEN_MARKER);
            marker.into_iter().chain(piece.iter().copied()).collect::<Vec<u8>>()
        };
        let words: Vec<Vec<u8>> = (0..n_vocab).map(word).collect();
        Self::of_words(&words, tokenizer.stop_tokens())
    }

    /// The same of the bytes of tokens, after a marker for control tokens.
    pub(super) fn of_words(words: &[Vec<u8>], stop_tokens: &[u32]) -> Result<Self> {
        let Some(&end) = stop_tokens.first() else {
            return Err(unusable("the vocabulary has no token that ends an answer"));
        };
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), words);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(unusable)?;
        factory.quiet();
        Ok(Self { factory, stop_tokens: stop_tokens.to_vec(), watch: Arc::new(Watch::new()?) })
    }

    /// The form that a grammar gives answers. May take seconds for a hostile one: on a thread that may wait.
    ///
    /// # Errors
    /// [`Error::Grammar`], of one that is too long or can't be kept to.
    pub fn compile(&self, grammar: &Grammar) -> Result<Form> {
        let n_bytes = match grammar {
            Grammar::JsonSchema(schema) => schema.to_string().len(),
            Grammar::Regex(text) | Grammar::Lark(text) | Grammar::Gbnf(text) => text.len(),
        };
        if n_bytes > MAX_GRAMMAR_BYTES {
            return Err(unusable(format!("it has {n_bytes} bytes, and may have {MAX_GRAMMAR_BYTES}")));
        }
        let compile = || {
            let grammar = match grammar.clone() {
                Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(schema),
                Grammar::Regex(regex) => TopLevelGrammar::from_regex(&regex),
                Grammar::Lark(lark) => TopLevelGrammar::from_lark(lark),
                Grammar::Gbnf(text) => return self.compile_gbnf(&text),
            };
            let matcher = Matcher::new(self.factory.create_parser(grammar));
            self.form(matcher)
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, compile);
            let thread = thread.map_err(|source| Error::Threads { n_threads: 1, source })?;
            thread.join().unwrap_or_else(|_| Err(unusable("the library that compiles it failed")))
        })
    }

    #[cfg(test)]
    pub(super) fn trie(&self) -> &TokTrie {
        self.factory.tok_env().tok_trie()
    }

    fn compile_gbnf(&self, text: &str) -> Result<Form> {
        let environment = self.factory.tok_env();
        let vocabulary = Vocabulary { trie: environment.tok_trie(), stop_tokens: &self.stop_tokens };
        let grammar = gbnf::compile(text, vocabulary)?;
        let limits = ParserLimits { step_max_items: MAX_ITEMS, ..self.factory.limits().clone() };
        let capabilities = InferenceCapabilities::default();
        let parser =
            self.factory.create_parser_from_init_ext(grammar, Logger::new(0, 0), capabilities, limits);
        self.form(Matcher::new(parser))
    }

    /// The form of a grammar that was compiled.
    fn form(&self, matcher: Matcher) -> Result<Form> {
        match matcher.get_error() {
            None => Ok(Form {
                matcher: matcher.into_cancellable(),
                watch: Arc::clone(&self.watch),
                time_saved: MAX_TIME_SAVED,
            }),
            Some(reason) => Err(unusable(reason)),
        }
    }
}

/// A form that an answer has, and where in it the answer is.
pub struct Form {
    matcher: Matcher,
    watch: Arc<Watch>,
    /// How long it may take now.
    time_saved: Duration,
}

impl Clone for Form {
    fn clone(&self) -> Self {
        let Self { matcher, watch, time_saved } = self;
        Self { matcher: matcher.deep_clone(), watch: Arc::clone(watch), time_saved: *time_saved }
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form")
    }
}

impl Form {
    /// Rules out what may not come next. Where the answer may end, all tokens that end one may come. If the choice depends on the
    /// `n_best` largest logits of those that may come alone, these may be all that is left.
    pub(super) fn mask(
        &mut self,
        logits: &mut [f32],
        n_best: Option<usize>,
        stop_tokens: &[u32],
    ) -> Result<()> {
        self.in_time(|form| form.mask_at_leisure(logits, n_best, stop_tokens))
    }

    /// The same, in whatever time it takes.
    fn mask_at_leisure(
        &mut self,
        logits: &mut [f32],
        n_best: Option<usize>,
        stop_tokens: &[u32],
    ) -> Result<()> {
        if let Some(n_best) = n_best.filter(|n| *n <= MAX_TRIED)
            && self.mask_all_but(n_best, logits, stop_tokens)?
        {
            return Ok(());
        }
        let allowed = self.matcher.compute_mask_or_eos().map_err(unusable)?;
        let may_end = stop_tokens.first().is_some_and(|end| allowed.is_allowed(*end));
        let ends: Vec<(u32, f32)> = stop_tokens.iter().map(|id| (*id, logits[*id as usize])).collect();
        // A model may have more logits than the vocabulary has tokens.
        let n_known = allowed.len().min(logits.len());
        logits[n_known..].fill(f32::NEG_INFINITY);
        allowed.iter_unset_entries(|id| {
            if let Some(logit) = logits.get_mut(id) {
                *logit = f32::NEG_INFINITY;
            }
        });
        if may_end {
            ends.into_iter().for_each(|(id, logit)| logits[id as usize] = logit);
        }
        Ok(())
    }

    /// Leaves the `n_best` that may come if they are found among few of the largest logits: a form that leaves a text much freedom
    /// takes long to ask of every token, and no time of these.
    fn mask_all_but(&mut self, n_best: usize, logits: &mut [f32], stop_tokens: &[u32]) -> Result<bool> {
        let mut left: SmallVec<[(u32, f32); 64]> = SmallVec::new();
        for (id, logit) in likeliest(logits, 2 * n_best + MORE_TRIED) {
            let id_of_end = stop_tokens.contains(&id).then(|| stop_tokens[0]);
            if self.matcher.validate_tokens(&[id_of_end.unwrap_or(id)]).map_err(unusable)? == 1 {
                left.push((id, logit));
                if left.len() == n_best {
                    logits.fill(f32::NEG_INFINITY);
                    left.into_iter().for_each(|(id, logit)| logits[id as usize] = logit);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Goes on after a token that was allowed.
    pub(super) fn accept(&mut self, token: u32, stop_tokens: &[u32]) -> Result<()> {
        if stop_tokens.contains(&token) {
            return Ok(());
        }
        self.time_saved = MAX_TIME_SAVED.min(self.time_saved + TIME_A_TOKEN);
        self.in_time(|form| form.matcher.consume_token(token).map_err(unusable))
    }

    /// Does something within the time that is saved.
    fn in_time(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let cancel = self.matcher.cancellation_handle().unwrap_or_default();
        let watch = Arc::clone(&self.watch);
        let began = Instant::now();
        let done = watch.run(cancel, self.time_saved, || work(self));
        self.time_saved = self.time_saved.saturating_sub(began.elapsed());
        if self.matcher.is_cancelled() {
            return Err(unusable(
                "it takes too long to find out which tokens may come next: the fewer ways there are to read a text by it, \
                 the less it takes",
            ));
        }
        done
    }
}

/// What is wrong, in a line: more that the library says is of its own state.
pub(super) fn unusable(reason: impl ToString) -> Error {
    let reason = reason.to_string();
    let line = reason.lines().next().unwrap_or_default();
    let end = line.char_indices().nth(MAX_REASON_CHARS).map_or(line.len(), |(at, _)| at);
    Error::Grammar { reason: line[..end].to_owned() }
}
