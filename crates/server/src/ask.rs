//! From a conversation or a text to what an engine is asked, and from what it says to the parts of an answer.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::tz::TimeZone;
use metallic::engine::{Form, Grammar, Stats};
use metallic::sampling::{Logprobs, SamplingParams};
use metallic::text::{
    AnswerSplitter, CallFormError, EncodeOptions, MalformedCall, Message, Part, RenderOptions, ToolCall,
};
use metallic::{Event, FinishReason, Request};
use serde_json::{Map, Value, json};

use crate::asked::Asked;
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::host::{Answers, Host};

/// What is asked, ready for the engine.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) request: Request,
    splitter: AnswerSplitter,
    only_one_call: bool,
}

/// A conversation whose next message is wanted.
pub(crate) struct Conversation {
    pub(crate) messages: Vec<Message>,
    pub(crate) tools: Vec<Value>,
    pub(crate) calls: Calls,
    /// Whether the last message is the answer's beginning, which is to be gone on with.
    pub(crate) continues: bool,
    /// What the template is told beside.
    pub(crate) variables: Map<String, Value>,
}

/// How an answer is to call tools.
#[derive(Clone, Default)]
pub(crate) struct Calls {
    /// That it must, if it must.
    pub(crate) required: Option<Required>,
    /// Whether it may have one call at most.
    pub(crate) only_one: bool,
}

/// That an answer must call tools.
#[derive(Clone)]
pub(crate) struct Required {
    /// The field that says so.
    pub(crate) field: String,
    /// The tool that is to be called; any, if none is named.
    pub(crate) name: Option<String>,
}

/// Something that was said.
pub(crate) enum Said {
    /// A token, before its text.
    Token { token: u32, logprobs: Option<Logprobs> },
    /// More of the answer. Calls come here if nothing was told of them before.
    Part(Part),
    /// A call has begun.
    CallBegun { id: String, name: String },
    /// More of the JSON that its arguments are.
    CallArguments(String),
    /// The whole of a call that has begun before, with the same id.
    CallEnded(ToolCall),
    /// The text of calls that can't be read, of which some have begun.
    CallBroken(MalformedCall),
    /// The end, whether tools are to be called, and what it took.
    End { reason: FinishReason, has_calls: bool, stats: Stats },
}

/// An answer as it comes.
pub(crate) struct Reply {
    asked: Arc<Asked>,
    answers: Answers,
    splitter: AnswerSplitter,
    ready: VecDeque<Said>,
    has_calls: bool,
    /// The ids of calls that have begun and not ended.
    begun: VecDeque<String>,
    only_one_call: bool,
    /// Whether a call has ended that is to be the only one.
    is_over: bool,
    n_prompt: usize,
    n_generated: usize,
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
        let Self { mut messages, tools, variables, continues, .. } = self;
        let begun = continues.then(|| mark_end(&mut messages)).transpose()?;
        let options = RenderOptions {
            bos_token: name_of(tokenizer.bos()),
            eos_token: name_of(tokenizer.eos()),
            tools,
            variables,
            add_generation_prompt: begun.is_none(),
            now: Some(jiff::Timestamp::now().to_zoned_datetime(TimeZone::UTC).datetime()),
        };
        let text = template.render(&messages, &options)?;
        if !options.tools.is_empty() {
            let without = RenderOptions { tools: Vec::new(), ..options };
            if template.render(&messages, &without).is_ok_and(|other| other == text) {
                return Err(Error::field("tools", "the model's chat template has no place for them"));
            }
        }
        match begun {
            None => Ok(text),
            // What comes after is the end of the turn.
            Some(mark) => match text.split(&mark).collect::<Vec<_>>()[..] {
                [before, _] => Ok(before.to_owned()),
                _ => Err(Error::field(
                    "messages",
                    "the model's chat template can't have its last one continued",
                )),
            },
        }
    }
}

/// Marks where the text of the last message ends, and gives the mark.
fn mark_end(messages: &mut [Message]) -> Result<String> {
    let mark = format!("<{}>", uuid::Uuid::new_v4().simple());
    match messages.last_mut().map(|message| &mut message.content) {
        Some(Some(Value::String(text))) => {
            text.truncate(text.trim_end().len());
            text.push_str(&mark);
            Ok(mark)
        }
        _ => Err(Error::field("messages", "the last one has no text that could be continued")),
    }
}

impl Question {
    /// What makes a model say the next message.
    pub(crate) async fn of_conversation(host: &Arc<Host>, conversation: Conversation) -> Result<Self> {
        let host = Arc::clone(host);
        in_background(move || {
            let Conversation { tools, calls, .. } = &conversation;
            let (calls, tools) = (calls.clone(), calls.required.is_some().then(|| tools.clone()));
            let text = conversation.render(&host)?;
            let tokenizer = host.tokenizer();
            // Some templates write BOS themselves, others leave it to the tokenizer. What follows is the model's to say.
            let options = EncodeOptions { add_bos: true, add_eos: false, parse_special: true };
            let mut request = Request::new(tokenizer.encode(&text, options)?);
            request.control_tokens = host.format().control_tokens(tokenizer, &text);
            if let (Some(required), Some(tools)) = (&calls.required, tools) {
                let grammar = required.grammar(&host, &text, tools, calls.only_one)?;
                let form = host.compile(&grammar).map_err(|error| Error::Engine(Arc::new(error)))?;
                request.form = Some(form);
            }
            let splitter = host.format().splitter(&text);
            // Where calls are required, the form has room for one.
            let only_one_call = calls.only_one && calls.required.is_none();
            Ok(Self { request, splitter, only_one_call })
        })
        .await
    }

    /// What makes a model go on with a text.
    pub(crate) async fn of_text(host: &Arc<Host>, text: String) -> Result<Self> {
        let host = Arc::clone(host);
        in_background(move || {
            let options = EncodeOptions { add_bos: true, add_eos: false, parse_special: true };
            let request = Request::new(host.tokenizer().encode(&text, options)?);
            let splitter = metallic::text::AnswerFormat::default().splitter(&text);
            Ok(Self { request, splitter, only_one_call: false })
        })
        .await
    }

    /// What makes a model go on with these tokens.
    pub(crate) fn of_tokens(tokens: Vec<u32>) -> Self {
        let splitter = metallic::text::AnswerFormat::default().splitter("");
        Self { request: Request::new(tokens), splitter, only_one_call: false }
    }

    /// Asks it.
    pub(crate) async fn ask(self, host: &Host) -> Result<Reply> {
        let Self { mut request, splitter, only_one_call } = self;
        // Where the same question is to have the same answer, what is cached of earlier ones must not change it.
        request.exact |= request.sampling.temperature == 0.0;
        let asked = Asked::current();
        request.group = asked.group();
        let (n_prompt, limits) = (request.prompt.len(), &asked.shared.limits);
        if let Some(most) = limits.prompt_tokens.filter(|most| n_prompt > *most) {
            return Err(Error::PromptTooLong { n_prompt, most });
        }
        let answers = host.ask(request, limits.queue).await?;
        asked.begin_answer(host.name(), n_prompt);
        Ok(Reply {
            asked,
            answers,
            splitter,
            ready: VecDeque::new(),
            has_calls: false,
            begun: VecDeque::new(),
            only_one_call,
            is_over: false,
            n_prompt,
            n_generated: 0,
        })
    }
}

impl Required {
    /// The grammar of answers to a prompt that call tools.
    fn grammar(&self, host: &Host, prompt: &str, mut tools: Vec<Value>, only_one: bool) -> Result<Grammar> {
        if let Some(name) = &self.name {
            tools.retain(|tool| tool["function"]["name"] == **name);
        }
        let only_one = only_one || self.name.is_some();
        let grammar = host.format().calls_grammar(host.tokenizer(), prompt, &tools, only_one);
        grammar.map(Grammar::Lark).map_err(|error| match error {
            CallFormError::Name { .. } => Error::field("tools", error.to_string()),
            _ => Error::field(&self.field, error.to_string()),
        })
    }
}

impl Reply {
    /// What is said next. The end comes once, or an error; nothing may be asked for after either.
    pub(crate) async fn next(&mut self) -> Result<Said> {
        loop {
            if let Some(said) = self.ready.pop_front() {
                return Ok(said);
            }
            if self.is_over {
                // What the model would go on with, nobody asked for: it ends with the one who hears it.
                let stats = Stats {
                    n_prompt: self.n_prompt,
                    n_read: self.n_prompt,
                    n_generated: self.n_generated,
                    ..Stats::default()
                };
                self.asked.end_answer("one call", false);
                return Ok(Said::End { reason: FinishReason::StopToken, has_calls: true, stats });
            }
            match self.event().await.inspect_err(|error| self.asked.end_answer(&error.to_string(), true))? {
                Event::Token { token, logprobs, .. } => {
                    self.asked.has_token();
                    self.n_generated += 1;
                    return Ok(Said::Token { token, logprobs });
                }
                Event::Text { text, .. } => {
                    let parts = self.splitter.push(&text);
                    self.take(parts);
                }
                Event::Finished { reason, stats, .. } => {
                    let parts = self.splitter.finish();
                    self.take(parts);
                    self.asked.end_answer(word_for(reason), false);
                    self.is_over = false;
                    let has_calls = self.has_calls;
                    self.ready.push_back(Said::End { reason, has_calls, stats });
                }
                // It is an error of `event`.
                Event::Failed { .. } => {}
            }
        }
    }

    /// What the engine says next, where it says it in time.
    async fn event(&mut self) -> Result<Event> {
        match self.asked.in_time(self.answers.next()).await?? {
            Event::Failed { error, .. } => Err(Error::Engine(error)),
            event => Ok(event),
        }
    }

    fn take(&mut self, parts: Vec<Part>) {
        for part in parts {
            if self.is_over {
                return;
            }
            let said = match part {
                Part::CallBegun { id, name } => {
                    self.has_calls = true;
                    let id = id.unwrap_or_else(new_id);
                    self.begun.push_back(id.clone());
                    Said::CallBegun { id, name }
                }
                Part::CallArguments(json) => Said::CallArguments(json),
                Part::ToolCall(call) => {
                    self.has_calls = true;
                    self.is_over = self.only_one_call;
                    match self.begun.pop_front() {
                        Some(id) => Said::CallEnded(ToolCall { id: Some(id), ..call }),
                        None => Said::Part(Part::ToolCall(call)),
                    }
                }
                Part::Malformed(call) if !self.begun.is_empty() => {
                    self.begun.clear();
                    Said::CallBroken(call)
                }
                part => Said::Part(part),
            };
            self.ready.push_back(said);
        }
    }

    /// All of it.
    pub(crate) async fn whole(mut self) -> Result<Whole> {
        let (mut answer, mut tokens) = (metallic::text::Answer::default(), Vec::new());
        loop {
            match self.next().await? {
                Said::Token { token, logprobs } => tokens.push((token, logprobs)),
                Said::Part(part) => answer.push(part),
                Said::CallBegun { .. } | Said::CallArguments(_) => {}
                Said::CallEnded(call) => answer.push(Part::ToolCall(call)),
                Said::CallBroken(call) => answer.push(Part::Malformed(call)),
                Said::End { reason, stats, .. } => {
                    return Ok(Whole { said: answer, tokens, reason, stats });
                }
            }
        }
    }
}

/// Why an answer ended, for the log.
fn word_for(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::StopToken => "stop",
        FinishReason::StopString => "stop string",
        FinishReason::MaxTokens => "limit",
        FinishReason::ContextFull => "context full",
        FinishReason::Cancelled => "cancelled",
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
    let asked = Asked::current();
    // Fails where it is closed, which it never is.
    let _turn = asked.shared.compiling.acquire().await;
    let host = Arc::clone(host);
    in_background(move || host.compile(&grammar).map(Some).map_err(|error| Error::Engine(Arc::new(error))))
        .await
}

/// The name of a call: the model's own, or a new one.
pub(crate) fn id_of(call: &ToolCall) -> String {
    call.id.clone().unwrap_or_else(new_id)
}

fn new_id() -> String {
    format!("call_{}", uuid::Uuid::new_v4().simple())
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
