//! `/v1/messages`.

use std::collections::VecDeque;
use std::mem;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use metallic::FinishReason;
use metallic::engine::Stats;
use metallic::text::{Answer, Part, ToolCall};
use serde_json::{Value, json};

use super::{Failure, reading};
use crate::ask::{self, Question, Said, id_of, sampling};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::service::Service;
use crate::stream::{self, Writer};

/// Fields that change no answer of ours: for whom it is, and what others would keep or charge.
const HARMLESS: [&str; 6] =
    ["metadata", "service_tier", "cache_control", "container", "inference_geo", "betas"];

/// The next message of a conversation, whole or as it comes.
pub(super) async fn create(State(service): State<Service>, body: Bytes) -> Result<Response, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let name: Option<String> = fields.take("model")?;
    let host = &service.host(name.as_deref()).await?;
    let (conversation, grammar) = reading::read(&mut fields)?;
    let max_tokens: usize = fields.required("max_tokens")?;
    if max_tokens == 0 {
        return Err(Error::field("max_tokens", "it must be at least 1").into());
    }
    let stop = fields.texts("stop_sequences")?;
    if stop.iter().any(String::is_empty) {
        return Err(Error::field("stop_sequences", "an empty text would stop every answer").into());
    }
    let sampling = sampling(&mut fields, host.tokenizer().n_vocab())?;
    let streams = fields.take("stream")?.unwrap_or(false);
    fields.refuse_rest(&HARMLESS)?;

    let form = ask::form(host, grammar).await?;
    let mut question = Question::of_conversation(host, conversation).await?;
    question.request.form = form.or(question.request.form.take());
    let only_stop = if let [stop] = &stop[..] { Some(stop.clone()) } else { None };
    let request = &mut question.request;
    (request.sampling, request.max_tokens, request.stop) = (sampling, Some(max_tokens), stop);
    let n_prompt = request.prompt.len();
    let reply = question.ask(host).await?;
    let id = format!("msg_{}", uuid::Uuid::new_v4().simple());
    let message = json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": host.name(),
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": { "input_tokens": n_prompt, "output_tokens": 0 },
    });
    if streams {
        let writer = Events { message: Some(message), open: None, n_blocks: 0, only_stop };
        let ping = event("ping", &json!({ "type": "ping" }));
        return Ok(stream::server_sent(vec![reply], writer, ping));
    }
    let whole = reply.whole().await?;
    let has_calls = !whole.said.tool_calls.is_empty();
    let mut message = message;
    message["content"] = Value::Array(blocks(&whole.said));
    message["stop_reason"] = stop_reason(whole.reason, has_calls).into();
    message["stop_sequence"] = stopped_by(whole.reason, only_stop);
    message["usage"] = usage(&whole.stats);
    Ok(Json(message).into_response())
}

/// The tokens of a conversation.
pub(super) async fn count_tokens(
    State(service): State<Service>,
    body: Bytes,
) -> Result<Json<Value>, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let name: Option<String> = fields.take("model")?;
    let host = &service.host(name.as_deref()).await?;
    let (conversation, _) = reading::read(&mut fields)?;
    fields.refuse_rest(&HARMLESS)?;
    let question = Question::of_conversation(host, conversation).await?;
    Ok(Json(json!({ "input_tokens": question.request.prompt.len() })))
}

/// An answer's content.
fn blocks(answer: &Answer) -> Vec<Value> {
    let Answer { reasoning, content, tool_calls } = answer;
    let mut blocks = Vec::new();
    if !reasoning.is_empty() {
        blocks.push(json!({ "type": "thinking", "thinking": reasoning, "signature": "" }));
    }
    if !content.is_empty() {
        blocks.push(json!({ "type": "text", "text": content }));
    }
    blocks.extend(tool_calls.iter().map(|call| tool_use(call, Value::Object(call.arguments.clone()))));
    blocks
}

fn tool_use(call: &ToolCall, input: Value) -> Value {
    json!({ "type": "tool_use", "id": id_of(call), "name": call.name, "input": input })
}

/// Why an answer ended, in Anthropic's words.
fn stop_reason(reason: FinishReason, has_calls: bool) -> &'static str {
    match reason {
        FinishReason::StopToken | FinishReason::StopString if has_calls => "tool_use",
        FinishReason::StopToken | FinishReason::Cancelled => "end_turn",
        FinishReason::StopString => "stop_sequence",
        FinishReason::MaxTokens | FinishReason::ContextFull => "max_tokens",
    }
}

/// The text that ended it, where there is one that can have.
fn stopped_by(reason: FinishReason, only_stop: Option<String>) -> Value {
    only_stop.filter(|_| reason == FinishReason::StopString).into()
}

fn usage(stats: &Stats) -> Value {
    json!({
        "input_tokens": stats.n_prompt - stats.n_cached,
        "cache_read_input_tokens": stats.n_cached,
        "output_tokens": stats.n_generated,
    })
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// What a block of content has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    Call,
}

/// Events of an answer as it comes.
struct Events {
    /// The message, until it has begun.
    message: Option<Value>,
    /// The block that text goes to.
    open: Option<Block>,
    /// Blocks that were begun.
    n_blocks: usize,
    only_stop: Option<String>,
}

impl Events {
    fn begin(&mut self, events: &mut VecDeque<Event>) {
        if let Some(message) = self.message.take() {
            events.push_back(event("message_start", &json!({ "type": "message_start", "message": message })));
        }
    }

    fn begin_block(&mut self, block: &Value, events: &mut VecDeque<Event>) {
        let start = json!({ "type": "content_block_start", "index": self.n_blocks, "content_block": block });
        events.push_back(event("content_block_start", &start));
        self.n_blocks += 1;
    }

    fn delta(&self, delta: &Value, events: &mut VecDeque<Event>) {
        let delta = json!({ "type": "content_block_delta", "index": self.n_blocks - 1, "delta": delta });
        events.push_back(event("content_block_delta", &delta));
    }

    fn end_block(&mut self, events: &mut VecDeque<Event>) {
        let stop = json!({ "type": "content_block_stop", "index": self.n_blocks - 1 });
        events.push_back(event("content_block_stop", &stop));
    }

    /// More text, in a block of its kind.
    fn text(&mut self, block: Block, text: &str, events: &mut VecDeque<Event>) {
        if self.open != Some(block) {
            self.close(events);
            let empty = match block {
                Block::Thinking => json!({ "type": "thinking", "thinking": "", "signature": "" }),
                Block::Text | Block::Call => json!({ "type": "text", "text": "" }),
            };
            self.begin_block(&empty, events);
            self.open = Some(block);
        }
        let delta = match block {
            Block::Thinking => json!({ "type": "thinking_delta", "thinking": text }),
            Block::Text | Block::Call => json!({ "type": "text_delta", "text": text }),
        };
        self.delta(&delta, events);
    }

    fn close(&mut self, events: &mut VecDeque<Event>) {
        if self.open.take().is_some() {
            self.end_block(events);
        }
    }
}

impl Writer for Events {
    type Item = Event;

    fn said(&mut self, _: usize, said: Said, events: &mut VecDeque<Event>) {
        self.begin(events);
        match said {
            Said::Token { .. } => {}
            Said::Part(Part::Reasoning(text)) => self.text(Block::Thinking, &text, events),
            Said::Part(Part::Content(text)) => self.text(Block::Text, &text, events),
            Said::Part(Part::Malformed(call)) => self.text(Block::Text, &call.text, events),
            Said::Part(Part::ToolCall(mut call)) => {
                self.close(events);
                let input = Value::Object(mem::take(&mut call.arguments)).to_string();
                self.begin_block(&tool_use(&call, json!({})), events);
                self.delta(&json!({ "type": "input_json_delta", "partial_json": input }), events);
                self.end_block(events);
            }
            Said::CallBegun { id, name } => {
                self.close(events);
                self.begin_block(&json!({ "type": "tool_use", "id": id, "name": name, "input": {} }), events);
                self.open = Some(Block::Call);
            }
            Said::CallArguments(json) => {
                self.delta(&json!({ "type": "input_json_delta", "partial_json": json }), events);
            }
            Said::CallEnded(_) | Said::CallBroken(_) => self.close(events),
            Said::Part(_) => {}
            Said::End { reason, has_calls, stats } => {
                self.close(events);
                let delta = json!({
                    "type": "message_delta",
                    "delta": {
                        "stop_reason": stop_reason(reason, has_calls),
                        "stop_sequence": stopped_by(reason, self.only_stop.take()),
                    },
                    "usage": usage(&stats),
                });
                events.push_back(event("message_delta", &delta));
            }
        }
    }

    fn ended(&mut self, events: &mut VecDeque<Event>) {
        events.push_back(event("message_stop", &json!({ "type": "message_stop" })));
    }

    fn failed(&mut self, error: Error) -> Event {
        event("error", &Failure(error).body())
    }
}
