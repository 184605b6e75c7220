//! `/v1/chat/completions`.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use metallic::engine::{Grammar, Stats};
use metallic::sampling::Logprobs;
use metallic::text::{Answer, Part, Tokenizer, ToolCall};
use serde_json::{Map, Value, json};

use super::{
    Failure, HARMLESS, MAX_CHOICES, done, event, finish_reason, heartbeat, messages, streaming, tools, usage,
};
use crate::ask::{self, Conversation, Question, Reply, Said, Whole, id_of, sampling};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::host::Host;
use crate::service::Service;
use crate::stream::{self, Writer};

/// Of the likeliest tokens as many may be asked for.
const MAX_TOP_LOGPROBS: usize = 20;

/// The next message of a conversation, whole or as it comes.
pub(super) async fn complete(State(service): State<Service>, body: Bytes) -> Result<Response, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let name: Option<String> = fields.take("model")?;
    let host = &service.host(name.as_deref()).await?;
    let asked = Asked::read(&mut fields, host)?;
    fields.refuse_rest(&HARMLESS)?;
    let Asked { conversation, n_choices, streams, includes_usage, grammar, adjust } = asked;
    let form = ask::form(host, grammar).await?;
    let mut question = Question::of_conversation(host, conversation).await?;
    adjust(&mut question);
    question.request.form = form.or(question.request.form.take());
    let replies = ask_each(question, n_choices, host).await?;
    let head = Head::new("chatcmpl", host.name());
    if streams {
        let begun = vec![false; replies.len()];
        let stats = Vec::new();
        let tokenizer = Arc::clone(host.tokenizer());
        let n_calls = vec![0; replies.len()];
        let pending = vec![Vec::new(); replies.len()];
        let writer = ChatChunks { head, includes_usage, tokenizer, begun, n_calls, pending, stats };
        return Ok(stream::server_sent(replies, writer, heartbeat()));
    }
    let whole = try_join_all(replies.into_iter().map(Reply::whole)).await?;
    let choices = whole.iter().enumerate().map(|(index, whole)| choice(index, whole, host.tokenizer()));
    let mut response = head.object("chat.completion", choices.collect());
    response["usage"] = usage(whole.iter().map(|whole| &whole.stats));
    Ok(Json(response).into_response())
}

/// What a request asks for.
struct Asked {
    conversation: Conversation,
    n_choices: usize,
    streams: bool,
    includes_usage: bool,
    grammar: Option<Grammar>,
    /// What is not the conversation's, for the engine.
    adjust: Box<dyn FnOnce(&mut Question) + Send>,
}

impl Asked {
    fn read(fields: &mut Fields, host: &Host) -> Result<Self> {
        let messages = messages::read(fields.required("messages")?)?;
        let (tools, calls) = tools::read(fields)?;
        let variables = variables(fields)?;
        let limits = Limits::read(fields)?;
        let logprobs = logprobs(fields)?;
        let sampling = sampling(fields, host.tokenizer().n_vocab())?;
        let n_choices = fields.take("n")?.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&n_choices) {
            return Err(Error::field("n", format!("it must be from 1 to {MAX_CHOICES}")));
        }
        let format = response_format(fields)?;
        let field = if format.is_some() { "response_format" } else { "grammar" };
        let grammar = ask::grammar(fields, format)?;
        if grammar.is_some() && !tools.is_empty() {
            return Err(Error::field(field, "with tools an answer has the form that the model gives it"));
        }
        fields.pass_defaults(&[
            ("functions", json!([])),
            ("modalities", json!(["text"])),
            ("id_slot", json!(-1)),
        ]);
        let (streams, includes_usage) = streaming(fields)?;
        let Limits { max_tokens, stop, ignore_eos } = limits;
        let adjust = Box::new(move |question: &mut Question| {
            let request = &mut question.request;
            request.sampling = sampling;
            request.max_tokens = max_tokens;
            request.stop = stop;
            request.ignore_eos = ignore_eos;
            request.logprobs = logprobs;
        });
        let conversation = Conversation { messages, tools, calls, continues: false, variables };
        Ok(Self { conversation, n_choices, streams, includes_usage, grammar, adjust })
    }
}

/// The form that an answer is to have.
fn response_format(fields: &mut Fields) -> Result<Option<Grammar>> {
    let Some(mut format) = fields.object("response_format")? else { return Ok(None) };
    let grammar = match format.required::<String>("type")?.as_str() {
        "text" => None,
        "json_object" => Some(Grammar::json_object()),
        "json_schema" => {
            let missing = Error::field(format.name("json_schema"), "it is missing");
            let mut schema = format.object("json_schema")?.ok_or(missing)?;
            let grammar = Grammar::JsonSchema(schema.required("schema")?);
            schema.refuse_rest(&["name", "description", "strict"])?;
            Some(grammar)
        }
        other => return Err(Error::field(format.name("type"), format!("{other:?} is not supported"))),
    };
    format.refuse_rest(&[])?;
    Ok(grammar)
}

/// What ends an answer.
#[derive(Clone)]
pub(super) struct Limits {
    pub(super) max_tokens: Option<usize>,
    pub(super) stop: Vec<String>,
    pub(super) ignore_eos: bool,
}

impl Limits {
    pub(super) fn read(fields: &mut Fields) -> Result<Self> {
        let (old, new) = (fields.count("max_tokens")?, fields.count("max_completion_tokens")?);
        if new.or(old) == Some(0) {
            return Err(Error::field("max_tokens", "it must be at least 1"));
        }
        let stop = fields.texts("stop")?;
        if stop.iter().any(String::is_empty) {
            return Err(Error::field("stop", "an empty text would stop every answer"));
        }
        Ok(Self { max_tokens: new.or(old), stop, ignore_eos: fields.take("ignore_eos")?.unwrap_or(false) })
    }
}

/// Has several answers made of one question, each with numbers of its own.
pub(super) async fn ask_each(question: Question, n_choices: usize, host: &Host) -> Result<Vec<Reply>> {
    let asked = (0..n_choices as u64).map(|choice| {
        let mut question = question.clone();
        let seed = &mut question.request.sampling.seed;
        *seed = seed.map(|seed| seed.wrapping_add(choice));
        question.ask(host)
    });
    try_join_all(asked).await
}

/// What the template is told beside messages and tools.
fn variables(fields: &mut Fields) -> Result<Map<String, Value>> {
    let mut variables: Map<String, Value> = fields.take("chat_template_kwargs")?.unwrap_or_default();
    let ours = ["messages", "tools", "documents", "bos_token", "eos_token", "add_generation_prompt"];
    if let Some(name) = ours.iter().find(|name| variables.contains_key(**name)) {
        return Err(Error::field(format!("chat_template_kwargs.{name}"), "the request says it otherwise"));
    }
    if let Some(effort) = fields.take::<String>("reasoning_effort")? {
        variables.insert("reasoning_effort".to_owned(), Value::String(effort));
    }
    Ok(variables)
}

/// Whether tokens have log-probabilities, and of how many of the likeliest.
fn logprobs(fields: &mut Fields) -> Result<Option<usize>> {
    let top: Option<usize> = fields.take("top_logprobs")?;
    match (fields.take("logprobs")?, top) {
        (_, Some(top)) if top > MAX_TOP_LOGPROBS => {
            Err(Error::field("top_logprobs", format!("it must be from 0 to {MAX_TOP_LOGPROBS}")))
        }
        (Some(true), top) => Ok(Some(top.unwrap_or(0))),
        (_, Some(1..)) => Err(Error::field("top_logprobs", "they are told with logprobs alone")),
        _ => Ok(None),
    }
}

/// What all objects of a response begin with.
pub(super) struct Head {
    id: String,
    created: i64,
    model: String,
}

impl Head {
    pub(super) fn new(kind: &str, model: &str) -> Self {
        let id = format!("{kind}-{}", uuid::Uuid::new_v4().simple());
        Self { id, created: jiff::Timestamp::now().as_second(), model: model.to_owned() }
    }

    pub(super) fn object(&self, kind: &str, choices: Vec<Value>) -> Value {
        let Self { id, created, model } = self;
        json!({ "id": id, "object": kind, "created": created, "model": model, "choices": choices })
    }
}

/// An answer that is complete.
fn choice(index: usize, whole: &Whole, tokenizer: &Tokenizer) -> Value {
    let Answer { reasoning, content, tool_calls } = &whole.said;
    let has_calls = !tool_calls.is_empty();
    let mut message = json!({ "role": "assistant", "content": content });
    if has_calls {
        message["tool_calls"] = tool_calls.iter().map(|call| function(call, None)).collect();
        if content.is_empty() {
            message["content"] = Value::Null;
        }
    }
    if !reasoning.is_empty() {
        message["reasoning_content"] = json!(reasoning);
    }
    let logprobs: Vec<_> = whole
        .tokens
        .iter()
        .filter_map(|(token, logprobs)| Some(logprob(*token, logprobs.as_ref()?, tokenizer)))
        .collect();
    json!({
        "index": index,
        "message": message,
        "logprobs": if logprobs.is_empty() { Value::Null } else { json!({ "content": logprobs }) },
        "finish_reason": finish_reason(whole.reason, has_calls),
    })
}

/// A call, in a stream with its number among those of the answer.
fn function(call: &ToolCall, number: Option<usize>) -> Value {
    let arguments = Value::Object(call.arguments.clone()).to_string();
    let mut value = json!({
        "id": id_of(call),
        "type": "function",
        "function": { "name": call.name, "arguments": arguments },
    });
    if let Some(number) = number {
        value["index"] = json!(number);
    }
    value
}

/// A token with how likely it was, and the likeliest.
fn logprob(token: u32, logprobs: &Logprobs, tokenizer: &Tokenizer) -> Value {
    let one = |token: u32, logprob: f32| {
        let piece = tokenizer.piece(token).unwrap_or_default();
        json!({ "token": String::from_utf8_lossy(piece), "logprob": logprob, "bytes": piece })
    };
    let mut value = one(token, logprobs.chosen);
    value["top_logprobs"] = logprobs.top.iter().map(|top| one(top.token, top.logprob)).collect();
    value
}

/// Chunks of answers as they come.
struct ChatChunks {
    head: Head,
    includes_usage: bool,
    tokenizer: Arc<Tokenizer>,
    /// Of each answer, whether it has begun,
    begun: Vec<bool>,
    /// how many calls it has,
    n_calls: Vec<usize>,
    /// and tokens whose text has not come.
    pending: Vec<Vec<Value>>,
    /// Of those that have ended.
    stats: Vec<Stats>,
}

impl ChatChunks {
    fn chunk(&mut self, choice: usize, mut delta: Value, finish_reason: Option<&str>) -> Value {
        if !std::mem::replace(&mut self.begun[choice], true) {
            delta["role"] = json!("assistant");
        }
        let tokens = std::mem::take(&mut self.pending[choice]);
        let logprobs = if tokens.is_empty() { Value::Null } else { json!({ "content": tokens }) };
        let choice =
            json!({ "index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason });
        let mut chunk = self.head.object("chat.completion.chunk", vec![choice]);
        if self.includes_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

impl Writer for ChatChunks {
    type Item = Event;

    fn said(&mut self, choice: usize, said: Said, events: &mut VecDeque<Event>) {
        let (delta, finish) = match said {
            Said::Token { token, logprobs } => {
                let value = logprobs.map(|logprobs| logprob(token, &logprobs, &self.tokenizer));
                self.pending[choice].extend(value);
                return;
            }
            Said::Part(Part::Reasoning(text)) => (json!({ "reasoning_content": text }), None),
            Said::Part(Part::Content(text)) => (json!({ "content": text }), None),
            Said::Part(Part::ToolCall(call)) => {
                let number = self.n_calls[choice];
                self.n_calls[choice] += 1;
                (json!({ "tool_calls": [function(&call, Some(number))] }), None)
            }
            Said::CallBegun { id, name } => {
                let number = self.n_calls[choice];
                self.n_calls[choice] += 1;
                let function = json!({ "name": name, "arguments": "" });
                let call = json!({ "index": number, "id": id, "type": "function", "function": function });
                (json!({ "tool_calls": [call] }), None)
            }
            Said::CallArguments(json) => {
                let number = self.n_calls[choice].saturating_sub(1);
                let call = json!({ "index": number, "function": { "arguments": json } });
                (json!({ "tool_calls": [call] }), None)
            }
            // All of it has been said.
            Said::CallEnded(_) | Said::CallBroken(_) => return,
            // What can't be read is said as it is.
            Said::Part(Part::Malformed(call)) => (json!({ "content": call.text }), None),
            Said::Part(_) => return,
            Said::End { reason, has_calls, stats } => {
                self.stats.push(stats);
                (json!({}), Some(finish_reason(reason, has_calls)))
            }
        };
        events.push_back(event(&self.chunk(choice, delta, finish)));
    }

    fn ended(&mut self, events: &mut VecDeque<Event>) {
        if self.includes_usage {
            let mut chunk = self.head.object("chat.completion.chunk", Vec::new());
            chunk["usage"] = usage(self.stats.iter());
            events.push_back(event(&chunk));
        }
        events.push_back(done());
    }

    fn failed(&mut self, error: Error) -> Event {
        event(&Failure(error).body())
    }
}
