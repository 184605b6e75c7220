//! What is asked of an engine, and what it answers.

use std::sync::Arc;

use super::{Form, Stats};
use crate::error::Error;
use crate::sampling::{Logprobs, SamplingParams};

/// What is asked of a model.
#[derive(Clone, Debug)]
pub struct Request {
    /// Tokens to continue.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Tokens to generate at most; `None` for as many as the context holds.
    pub max_tokens: Option<usize>,
    /// The answer ends before any of these. One that is the name of a special token, such as `<|im_end|>`,
    /// stands for that token, even if it has no text.
    pub stop: Vec<String>,
    /// Whether the answer goes on where the model would end it: the tokens that end an answer are never chosen.
    pub ignore_eos: bool,
    /// Control tokens whose text is part of the answer's, such as those that mark what is reasoning.
    pub control_tokens: Vec<u32>,
    /// Whether what follows has the bits that it has in a new sequence. A conversation's earlier answers were computed as
    /// answers, and a short prompt as one; kept for the next turn, they differ in rounding from the same tokens read as part
    /// of its prompt. With this, such tokens are read anew.
    pub exact: bool,
    /// What was computed of prompts is used again for those that begin alike, of the same group alone: how soon an answer comes
    /// tells what else was asked.
    pub group: u64,
    /// The form that the answer is to have; `None` for any.
    pub form: Option<Form>,
    /// Whether [`Event::Token`] tells how likely the model found each token, and how many of the likeliest
    /// it lists beside. It takes a copy of the logits for each token.
    pub logprobs: Option<usize>,
}

impl Request {
    /// A request with default sampling, no limit but the context, no stop strings, no form, no text of control
    /// tokens, and no log-probabilities.
    pub fn new(prompt: Vec<u32>) -> Self {
        Self {
            prompt,
            sampling: SamplingParams::default(),
            max_tokens: None,
            stop: Vec::new(),
            ignore_eos: false,
            control_tokens: Vec::new(),
            exact: false,
            group: 0,
            form: None,
            logprobs: None,
        }
    }
}

/// Names a request in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u64);

/// Something that happened to a request.
#[derive(Clone, Debug)]
pub enum Event {
    /// A token was chosen: one event for each that [`Stats::n_generated`] counts, the token that ends an
    /// answer included.
    ///
    /// Its text, if it has any, comes in [`Event::Text`] after it: at once, or with a later token's if it may
    /// begin a stop string or does not complete a character. So the tokens since the last text are those that
    /// a text is from, but for an end of it that is held back; the tokens of a stop string have no text.
    Token {
        /// Whose answer.
        request: RequestId,
        /// The token.
        token: u32,
        /// How likely it was, where [`Request::logprobs`] asks for that.
        logprobs: Option<Logprobs>,
    },
    /// More of the answer: never part of a UTF-8 sequence, never part of a stop string.
    Text {
        /// Whose answer.
        request: RequestId,
        /// The text.
        text: String,
    },
    /// The answer has ended. Nothing follows.
    Finished {
        /// Whose answer.
        request: RequestId,
        /// Why.
        reason: FinishReason,
        /// What it cost.
        stats: Stats,
    },
    /// The request could not be carried out, and what was said before is no answer. Nothing follows.
    Failed {
        /// Which.
        request: RequestId,
        /// Why.
        error: Arc<Error>,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model said that it was done.
    StopToken,
    /// A stop string came up, or the token that it names.
    StopString,
    /// As many tokens as were asked for.
    MaxTokens,
    /// The context holds no more.
    ContextFull,
    /// The caller wanted no more.
    Cancelled,
}
