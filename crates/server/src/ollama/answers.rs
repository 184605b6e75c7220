//! `/api/chat` and `/api/generate`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use metallic::FinishReason;
use metallic::engine::{Grammar, Stats};
use metallic::sampling::SamplingParams;
use metallic::text::{Answer, Message, Part, ToolCall};
use serde_json::{Map, Value, json};

use super::Failure;
use super::manage::keep_alive;
use crate::ask::{self, Calls, Conversation, Question, Reply, Said, sampling};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::host::Host;
use crate::service::Service;
use crate::stream::{self, Writer};

/// Options that say how a machine is used, which is this server's to know.
const OF_THE_MACHINE: [&str; 11] = [
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "numa",
    "low_vram",
    "use_mmap",
    "use_mlock",
    "num_keep",
    "f16_kv",
    "vocab_only",
];

/// The next message of a conversation.
pub(super) async fn chat(State(service): State<Service>, body: Bytes) -> Result<Response, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let name: Option<String> = fields.take("model")?;
    let host = &service.host(name.as_deref()).await?;
    let turns: Vec<Value> = fields.take("messages")?.unwrap_or_default();
    let tools: Vec<Value> = fields.take("tools")?.unwrap_or_default();
    let common = Common::read(&mut fields, host)?;
    let stays = keep_alive(&mut fields)?;
    fields.refuse_rest(&[])?;
    let names = Names { model: host.name().to_owned(), is_chat: true, began: Instant::now() };
    if turns.is_empty() {
        keep(&service, host, stays);
        return Ok(Json(names.loaded()).into_response());
    }
    let turns = turns.into_iter().enumerate();
    let messages = turns.map(|(i, turn)| message(&format!("messages[{i}]"), turn)).collect::<Result<_>>()?;
    let variables = common.variables.clone();
    let conversation = Conversation { messages, tools, calls: Calls::default(), continues: false, variables };
    let question = Question::of_conversation(host, conversation).await?;
    let response = common.respond(question, names, host).await;
    keep(&service, host, stays);
    response
}

/// Lets a model go when it has been idle for as long as was asked, where those who ask may say so.
fn keep(service: &Service, host: &Host, stays: Option<Duration>) {
    if let Some(idle) = stays
        && service.is_managed()
    {
        service.unload_after(host.name(), idle);
    }
}

/// What comes after a prompt: an answer to it, or with `raw` how it goes on.
pub(super) async fn generate(State(service): State<Service>, body: Bytes) -> Result<Response, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let name: Option<String> = fields.take("model")?;
    let host = &service.host(name.as_deref()).await?;
    let prompt: String = fields.take("prompt")?.unwrap_or_default();
    let system: Option<String> = fields.take("system")?;
    let is_raw = fields.take("raw")?.unwrap_or(false) || host.template().is_none();
    let common = Common::read(&mut fields, host)?;
    // Clients send them empty.
    for field in ["suffix", "template", "context", "images"] {
        if fields.value(field).is_some_and(|value| value != json!("") && value != json!([])) {
            return Err(Error::field(field, "it is not supported, and would change the answer").into());
        }
    }
    let stays = keep_alive(&mut fields)?;
    fields.refuse_rest(&[])?;
    let has_system = system.as_deref().is_some_and(|text| !text.is_empty());
    for (field, is_given) in [("system", has_system), ("think", !common.variables.is_empty())] {
        if is_raw && is_given {
            let reason = "a text that goes on, raw or without a chat template, has no place for it";
            return Err(Error::field(field, reason).into());
        }
    }
    let names = Names { model: host.name().to_owned(), is_chat: false, began: Instant::now() };
    if prompt.is_empty() {
        keep(&service, host, stays);
        return Ok(Json(names.loaded()).into_response());
    }
    let question = if is_raw {
        Question::of_text(host, prompt).await?
    } else {
        let system = system.filter(|text| !text.is_empty()).map(|text| Message::new("system", text));
        let messages = system.into_iter().chain([Message::new("user", prompt)]).collect();
        let variables = common.variables.clone();
        let (tools, calls) = (Vec::new(), Calls::default());
        let conversation = Conversation { messages, tools, calls, continues: false, variables };
        Question::of_conversation(host, conversation).await?
    };
    let response = common.respond(question, names, host).await;
    keep(&service, host, stays);
    response
}

/// What both endpoints are asked.
struct Common {
    streams: bool,
    variables: Map<String, Value>,
    sampling: SamplingParams,
    max_tokens: Option<usize>,
    stop: Vec<String>,
    grammar: Option<Grammar>,
}

impl Common {
    fn read(fields: &mut Fields, host: &Host) -> Result<Self> {
        let grammar = match fields.value("format") {
            None => None,
            Some(Value::String(format)) if format.is_empty() => None,
            Some(Value::String(format)) if format == "json" => Some(Grammar::json_object()),
            Some(schema @ Value::Object(_)) => Some(Grammar::JsonSchema(schema)),
            Some(_) => return Err(Error::field("format", "it must be json or a schema")),
        };
        let mut variables = Map::new();
        match fields.value("think") {
            None => {}
            Some(Value::Bool(thinks)) => drop(variables.insert("enable_thinking".to_owned(), thinks.into())),
            Some(Value::String(effort)) => {
                drop(variables.insert("reasoning_effort".to_owned(), effort.into()))
            }
            Some(_) => return Err(Error::field("think", "it must be true, false, or how much")),
        }
        fields.pass_defaults(&[("logprobs", json!(false)), ("top_logprobs", json!(0))]);
        let streams = fields.take("stream")?.unwrap_or(true);
        let none = || Fields::of("options", json!({}));
        let mut options = fields.object("options")?.map_or_else(none, Ok)?;
        let sampling = sampling(&mut options, host.tokenizer().n_vocab())?;
        // Less than nothing is as many as the context holds.
        let max_tokens = options.count("num_predict")?;
        if max_tokens == Some(0) {
            return Err(Error::field(options.name("num_predict"), "it must be at least 1"));
        }
        let stop: Vec<String> = options.texts("stop")?.into_iter().filter(|stop| !stop.is_empty()).collect();
        if let Some(n_ctx) = options.count("num_ctx")?
            && n_ctx > host.n_ctx()
        {
            let reason = format!("the model was loaded with a context of {}: -c sets it", host.n_ctx());
            return Err(Error::field(options.name("num_ctx"), reason));
        }
        options.refuse_rest(&OF_THE_MACHINE)?;
        Ok(Self { streams, variables, sampling, max_tokens, stop, grammar })
    }

    async fn respond(
        self,
        mut question: Question,
        names: Names,
        host: &Arc<Host>,
    ) -> Result<Response, Failure> {
        let request = &mut question.request;
        (request.sampling, request.max_tokens, request.stop) = (self.sampling, self.max_tokens, self.stop);
        request.form = ask::form(host, self.grammar).await?;
        let reply = question.ask(host).await?;
        Ok(if self.streams { stream::lines(reply, names) } else { whole(reply, &names).await? })
    }
}

async fn whole(reply: Reply, names: &Names) -> Result<Response> {
    let whole = reply.whole().await?;
    Ok(Json(names.end(&whole.said, whole.reason, &whole.stats)).into_response())
}

/// A message for templates.
fn message(path: &str, value: Value) -> Result<Message> {
    let mut fields = Fields::of(path, value)?;
    let role: String = fields.required("role")?;
    if !["system", "user", "assistant", "tool"].contains(&role.as_str()) {
        let reason = format!("{role:?} is none of system, user, assistant and tool");
        return Err(Error::field(fields.name("role"), reason));
    }
    let mut message = Message::new(role, fields.take::<String>("content")?.unwrap_or_default());
    if let Some(thinking) = fields.take::<String>("thinking")?.filter(|text| !text.is_empty()) {
        message.more.insert("reasoning_content".to_owned(), Value::String(thinking));
    }
    let calls: Vec<Value> = fields.take("tool_calls")?.unwrap_or_default();
    let calls = calls.into_iter().enumerate().map(|(i, call)| {
        let mut call = Fields::of(format!("{path}.tool_calls[{i}]"), call)?;
        let mut function: Map<String, Value> = call.required("function")?;
        function.remove("index");
        Ok(json!({ "type": "function", "function": function }))
    });
    let calls = calls.collect::<Result<Vec<_>>>()?;
    if !calls.is_empty() {
        message.tool_calls = Some(Value::Array(calls));
    }
    let tool: Option<String> = fields.take("tool_name")?.or(fields.take("name")?);
    message.name = tool;
    if fields.value("images").is_some_and(|images| images != json!([])) {
        return Err(Error::field(fields.name("images"), "models here read text alone"));
    }
    fields.refuse_rest(&["tool_call_id"])?;
    Ok(message)
}

/// What every object of an answer has.
struct Names {
    model: String,
    is_chat: bool,
    began: Instant,
}

impl Names {
    /// An object that says this.
    fn object(&self, said: &Answer, is_done: bool) -> Value {
        let Self { model, is_chat, .. } = self;
        let mut object = json!({
            "model": model,
            "created_at": jiff::Timestamp::now().to_string(),
            "done": is_done,
        });
        let Answer { reasoning, content, tool_calls } = said;
        let (target, text) = if *is_chat {
            object["message"] = json!({ "role": "assistant" });
            (&mut object["message"], "content")
        } else {
            (&mut object, "response")
        };
        target[text] = content.as_str().into();
        if !reasoning.is_empty() {
            target["thinking"] = reasoning.as_str().into();
        }
        if !tool_calls.is_empty() {
            let call = |(i, call): (usize, &ToolCall)| json!({ "function": { "index": i, "name": call.name, "arguments": call.arguments } });
            target["tool_calls"] = tool_calls.iter().enumerate().map(call).collect();
        }
        object
    }

    /// That the model is there, which is all that some clients want to know.
    fn loaded(&self) -> Value {
        let mut object = self.object(&Answer::default(), true);
        object["done_reason"] = "load".into();
        object
    }

    /// The last one, which says this and what it took.
    fn end(&self, said: &Answer, reason: FinishReason, stats: &Stats) -> Value {
        let mut object = self.object(said, true);
        let is_cut = matches!(reason, FinishReason::MaxTokens | FinishReason::ContextFull);
        object["done_reason"] = if is_cut { "length" } else { "stop" }.into();
        let nanoseconds = |time: std::time::Duration| Value::from(time.as_nanos() as u64);
        object["total_duration"] = nanoseconds(self.began.elapsed());
        object["load_duration"] = 0.into();
        object["prompt_eval_count"] = stats.n_prompt.into();
        object["prompt_eval_duration"] = nanoseconds(stats.prefill);
        object["eval_count"] = stats.n_generated.into();
        object["eval_duration"] = nanoseconds(stats.decode);
        object
    }
}

fn line(object: &Value) -> Bytes {
    Bytes::from(format!("{object}\n"))
}

impl Writer for Names {
    type Item = Bytes;

    fn said(&mut self, _: usize, said: Said, lines: &mut VecDeque<Bytes>) {
        let part = match said {
            // Here a call is whole.
            Said::Token { .. } | Said::CallBegun { .. } | Said::CallArguments(_) => return,
            Said::Part(part) => part,
            Said::CallEnded(call) => Part::ToolCall(call),
            Said::CallBroken(call) => Part::Malformed(call),
            Said::End { reason, stats, .. } => {
                lines.push_back(line(&self.end(&Answer::default(), reason, &stats)));
                return;
            }
        };
        let mut answer = Answer::default();
        answer.push(part);
        lines.push_back(line(&self.object(&answer, false)));
    }

    fn ended(&mut self, _: &mut VecDeque<Bytes>) {}

    fn failed(&mut self, error: Error) -> Bytes {
        line(&json!({ "error": error.to_string() }))
    }
}
