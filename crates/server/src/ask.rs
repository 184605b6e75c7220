//! From a conversation or a text to what an engine is asked, and from what it says to the parts of an answer.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::tz::TimeZone;
use metallic::engine::{Form, Grammar, Stats};
use metallic::sampling::{Logprobs, SamplingParams};
use metallic::text::{AnswerSplitter, EncodeOptions, Message, Part, RenderOptions, ToolCall};
use metallic::{Event, FinishReason, Request};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::host::{Answers, Host};

/// What is asked, ready for the engine.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) request: Request,
    splitter: AnswerSplitter,
}

/// A conversation whose next message is wanted.
pub(crate) struct Conversation {
    pub(crate) messages: Vec<Message>,
    pub(crate) tools: Vec<Value>,
    /// What the template is told beside.
    pub(crate) variables: Map<String, Value>,
}

/// Something that was said.
pub(crate) enum Said {
    /// A token, before its text.
    Token { token: u32, logprobs: Option<Logprobs> },
    /// More of the answer.
    Part(Part),
    /// The end, whether tools are to be called, and what it took.
    End { reason: FinishReason, has_calls: bool, stats: Stats },
}

/// An answer as it comes.
pub(crate) struct Reply {
    answers: Answers,
    splitter: AnswerSplitter,
    ready: VecDeque<Said>,
    has_calls: bool,
}

/// An answer that has ended.
pub(crate) struct Whole {
    pub(crate) said: metallic::text::Answer,
    pub(crate) tokens: Vec<(u32, Option<Logprobs>)>,
    pub(crate) reason: FinishReason,
    pub(crate) stats: Stats,
}

impl Conversation {
    /// The text that it is to a model. Takes long for a long one.
    pub(crate) fn render(self, host: &Host) -> Result<String> {
        let template = host.template().ok_or(Error::NoTemplate)?;
        let tokenizer = host.tokenizer();
        let name_of = |id: Option<u32>| {
            let piece = id.and_then(|id| tokenizer.piece(id)).unwrap_or_default();
            String::from_utf8_lossy(piece).into_owned()
        };
        let Self { messages, tools, variables } = self;
        let options = RenderOptions {
            bos_token: name_of(tokenizer.bos()),
            eos_token: name_of(tokenizer.eos()),
            tools,
            variables,
            now: Some(jiff::Timestamp::now().to_zoned_datetime(TimeZone::UTC).datetime()),
            ..RenderOptions::default()
        };
        let text = template.render(&messages, &options)?;
        if !options.tools.is_empty() {
            let without = RenderOptions { tools: Vec::new(), ..options };
            if template.render(&messages, &without).is_ok_and(|other| other == text) {
                return Err(Error::field("tools", "the model's chat template has no place for them"));
            }
        }
        Ok(text)
    }
}

impl Question {
    /// What makes a model say the next message.
    pub(crate) async fn of_conversation(host: &Arc<Host>, conversation: Conversation) -> Result<Self> {
        let host = Arc::clone(host);
        in_background(move || {
            let text = conversation.render(&host)?;
            let tokenizer = host.tokenizer();
            // Some templates write BOS themselves, others leave it to the tokenizer. What follows is the model's to say.
            let options = EncodeOptions { add_bos: true, add_eos: false, parse_special: true };
            let mut request = Request::new(tokenizer.encode(&text, options)?);
            request.control_tokens = host.format().control_tokens(tokenizer, &text);
            Ok(Self { request, splitter: host.format().splitter(&text) })
        })
        .await
    }

    /// What makes a model go on with a text.
    pub(crate) async fn of_text(host: &Arc<Host>, text: String) -> Result<Self> {
        let host = Arc::clone(host);
        in_background(move || {
            let options = EncodeOptions { add_bos: true, add_eos: false, parse_special: true };
            let request = Request::new(host.tokenizer().encode(&text, options)?);
            Ok(Self { request, splitter: metallic::text::AnswerFormat::default().splitter(&text) })
        })
        .await
    }

    /// What makes a model go on with these tokens.
    pub(crate) fn of_tokens(tokens: Vec<u32>) -> Self {
        Self { request: Request::new(tokens), splitter: metallic::text::AnswerFormat::default().splitter("") }
    }

    /// Asks it.
    pub(crate) async fn ask(self, host: &Host) -> Result<Reply> {
        let Self { mut request, splitter } = self;
        // Where the same question is to have the same answer, what is cached of earlier ones must not change it.
        request.exact |= request.sampling.temperature == 0.0;
        Ok(Reply { answers: host.ask(request).await?, splitter, ready: VecDeque::new(), has_calls: false })
    }
}

impl Reply {
    /// What is said next. The end comes once, or an error; nothing may be asked for after either.
    pub(crate) async fn next(&mut self) -> Result<Said> {
        loop {
            if let Some(said) = self.ready.pop_front() {
                return Ok(said);
            }
            match self.answers.next().await? {
                Event::Token { token, logprobs, .. } => return Ok(Said::Token { token, logprobs }),
                Event::Text { text, .. } => {
                    let parts = self.splitter.push(&text);
                    self.take(parts);
                }
                Event::Finished { reason, stats, .. } => {
                    let parts = self.splitter.finish();
                    self.take(parts);
                    let has_calls = self.has_calls;
                    self.ready.push_back(Said::End { reason, has_calls, stats });
                }
                Event::Failed { error, .. } => return Err(Error::Engine(error)),
            }
        }
    }

    fn take(&mut self, parts: Vec<Part>) {
        self.has_calls |= parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
        self.ready.extend(parts.into_iter().map(Said::Part));
    }

    /// All of it.
    pub(crate) async fn whole(mut self) -> Result<Whole> {
        let (mut answer, mut tokens) = (metallic::text::Answer::default(), Vec::new());
        loop {
            match self.next().await? {
                Said::Token { token, logprobs } => tokens.push((token, logprobs)),
                Said::Part(part) => answer.push(part),
                Said::End { reason, stats, .. } => {
                    return Ok(Whole { said: answer, tokens, reason, stats });
                }
            }
        }
    }
}

/// Runs what takes long without keeping other requests waiting.
pub(crate) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!("reading a request failed: {error}");
        Err(Error::Stopped)
    })
}

/// The form that an answer is to have, which may be a grammar in GBNF; with another at once, it is refused.
pub(crate) fn grammar(fields: &mut Fields, other: Option<Grammar>) -> Result<Option<Grammar>> {
    // Some clients send an empty one where there is none.
    match fields.take::<String>("grammar")?.filter(|text| !text.is_empty()) {
        None => Ok(other),
        Some(_) if other.is_some() => Err(Error::field("grammar", "the answer has another form already")),
        Some(text) => Ok(Some(Grammar::Gbnf(text))),
    }
}

/// The form that a grammar gives an answer.
pub(crate) async fn form(host: &Arc<Host>, grammar: Option<Grammar>) -> Result<Option<Form>> {
    let Some(grammar) = grammar else { return Ok(None) };
    let host = Arc::clone(host);
    in_background(move || host.compile(&grammar).map(Some).map_err(|error| Error::Engine(Arc::new(error))))
        .await
}

/// The name of a call: the model's own, or a new one.
pub(crate) fn id_of(call: &ToolCall) -> String {
    call.id.clone().unwrap_or_else(|| format!("call_{}", uuid::Uuid::new_v4().simple()))
}

/// How tokens are chosen, by the names that OpenAI's API and llama-server have for it.
pub(crate) fn sampling(fields: &mut Fields, n_vocab: usize) -> Result<SamplingParams> {
    const ANY: f32 = f32::MAX;
    let default = SamplingParams::default();
    let mut logit_bias = Vec::new();
    if let Some(biases) = fields.take::<Map<String, Value>>("logit_bias")? {
        for (token, bias) in biases {
            let name = || fields.name(&format!("logit_bias.{token}"));
            let id = token.parse().ok().filter(|id: &u32| (*id as usize) < n_vocab);
            let id =
                id.ok_or_else(|| Error::field(name(), format!("no token of {n_vocab} has this number")))?;
            let bias = bias.as_f64().ok_or_else(|| Error::field(name(), "it must be a number"))? as f32;
            // OpenAI's way to forbid a token.
            logit_bias.push((id, if bias <= -100.0 { f32::NEG_INFINITY } else { bias }));
        }
    }
    let repeat_last_n = fields.whole("repeat_last_n")?;
    // Less than nothing is all that there is.
    let repeat_last_n = repeat_last_n.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let top_k = fields.whole("top_k")?.map(|n| n.clamp(0, i64::from(u32::MAX)) as usize);
    // Another one each time.
    let seed = fields.whole("seed")?.and_then(|seed| u64::try_from(seed).ok());
    fields.pass_defaults(&[
        ("mirostat", json!(0)),
        ("dry_multiplier", json!(0)),
        ("repetition_penalty", json!(1)),
        ("tfs_z", json!(1)),
        ("typ_p", json!(1)),
    ]);
    Ok(SamplingParams {
        temperature: fields.number("temperature", 0.0, ANY)?.unwrap_or(default.temperature),
        top_p: fields.number("top_p", 0.0, 1.0)?.unwrap_or(default.top_p),
        min_p: fields.number("min_p", 0.0, 1.0)?.unwrap_or(default.min_p),
        top_k: top_k.unwrap_or(default.top_k),
        typical_p: fields.number("typical_p", 0.0, 1.0)?.unwrap_or(default.typical_p),
        top_n_sigma: fields.number("top_n_sigma", -ANY, ANY)?.unwrap_or(default.top_n_sigma),
        xtc_probability: fields.number("xtc_probability", 0.0, 1.0)?.unwrap_or(default.xtc_probability),
        xtc_threshold: fields.number("xtc_threshold", 0.0, 1.0)?.unwrap_or(default.xtc_threshold),
        repeat_penalty: fields
            .number("repeat_penalty", f32::MIN_POSITIVE, ANY)?
            .unwrap_or(default.repeat_penalty),
        frequency_penalty: fields
            .number("frequency_penalty", -2.0, 2.0)?
            .unwrap_or(default.frequency_penalty),
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(default.presence_penalty),
        penalty_last_n: repeat_last_n.unwrap_or(default.penalty_last_n),
        seed,
        logit_bias,
        ..default
    })
}
