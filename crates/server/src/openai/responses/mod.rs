//! `/v1/responses`. Nothing is kept from one to the next: a conversation comes as a whole, as `input`.

mod items;
mod output;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use metallic::engine::Grammar;
use serde_json::{Map, Value, json};

use self::output::Output;
use super::{Failure, HARMLESS, heartbeat, tools};
use crate::ask::{self, Conversation, Question, sampling};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::service::Service;
use crate::stream;

/// What a response repeats of its request.
const REPEATED: [&str; 8] = [
    "instructions",
    "max_output_tokens",
    "metadata",
    "reasoning",
    "temperature",
    "text",
    "tool_choice",
    "top_p",
];

/// What others would tell beside an answer, and here is never there.
const INCLUDED: [&str; 6] = [
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
];

/// What a model says to an input, whole or as it comes.
pub(super) async fn create(State(service): State<Service>, body: Bytes) -> Result<Response, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let name: Option<String> = fields.take("model")?;
    let host = &service.host(name.as_deref()).await?;
    let mut response = repeated(&fields, host.name());
    refuse_what_needs_a_memory(&mut fields)?;
    let messages = items::read(fields.take("instructions")?, fields.value("input"))?;
    let (tools, calls) = tools::read_flat(&mut fields)?;
    let variables = reasoning(&mut fields)?;
    let grammar = text_format(&mut fields)?;
    if grammar.is_some() && !tools.is_empty() {
        let reason = "with tools an answer has the form that the model gives it";
        return Err(Error::field("text.format", reason).into());
    }
    let max_tokens = fields.count("max_output_tokens")?;
    if max_tokens == Some(0) {
        return Err(Error::field("max_output_tokens", "it must be at least 1").into());
    }
    for value in fields.take::<Vec<String>>("include")?.unwrap_or_default() {
        if !INCLUDED.contains(&value.as_str()) {
            return Err(Error::field("include", format!("{value:?} can't be told")).into());
        }
    }
    let sampling = sampling(&mut fields, host.tokenizer().n_vocab())?;
    let streams = fields.take("stream")?.unwrap_or(false);
    if let Some(options) = fields.object("stream_options")? {
        options.refuse_rest(&["include_obfuscation"])?;
    }
    fields.pass_defaults(&[("truncation", json!("disabled")), ("top_logprobs", json!(0))]);
    // What OpenAI's own tools may do at most: there are none.
    fields.value("max_tool_calls");
    fields.refuse_rest(&HARMLESS)?;

    response["parallel_tool_calls"] = (!calls.only_one).into();
    let form = ask::form(host, grammar).await?;
    let conversation = Conversation { messages, tools, calls, continues: false, variables };
    let mut question = Question::of_conversation(host, conversation).await?;
    let request = &mut question.request;
    (request.sampling, request.max_tokens) = (sampling, max_tokens);
    request.form = form.or(request.form.take());
    let reply = question.ask(host).await?;
    let output = Output::new(response);
    if streams {
        return Ok(stream::server_sent(vec![reply], output, heartbeat()));
    }
    Ok(Json(output.whole(reply).await?).into_response())
}

/// A response keeps nothing that a later one could refer to.
fn refuse_what_needs_a_memory(fields: &mut Fields) -> Result<()> {
    let reason = "responses are not kept: send all of the conversation as input";
    for field in ["previous_response_id", "conversation"] {
        if fields.value(field).is_some() {
            return Err(Error::field(field, reason));
        }
    }
    if fields.value("prompt").is_some() {
        return Err(Error::field("prompt", "prompts are not kept: send it as instructions and input"));
    }
    if fields.take("background")?.unwrap_or(false) {
        return Err(Error::field("background", "responses are not kept: ask for a stream instead"));
    }
    Ok(())
}

/// A response that has not begun, to a request of which no field has been read.
fn repeated(fields: &Fields, model: &str) -> Value {
    let mut response = json!({
        "id": format!("resp_{}", uuid::Uuid::new_v4().simple()),
        "object": "response",
        "created_at": jiff::Timestamp::now().as_second(),
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "model": model,
        "output": [],
        "previous_response_id": null,
        "store": false,
        "truncation": "disabled",
        "usage": null,
    });
    for field in REPEATED {
        response[field] = fields.given(field).cloned().unwrap_or_default();
    }
    let tools = fields.given("tools").filter(|tools| tools.is_array());
    response["tools"] = tools.cloned().unwrap_or(json!([]));
    let defaults = [
        ("metadata", json!({})),
        ("text", json!({ "format": { "type": "text" } })),
        ("tool_choice", json!("auto")),
    ];
    for (field, default) in defaults {
        if response[field].is_null() {
            response[field] = default;
        }
    }
    response
}

/// How a model is to think, as far as its template takes that. Summaries are the whole of it.
fn reasoning(fields: &mut Fields) -> Result<Map<String, Value>> {
    let mut variables: Map<String, Value> = fields.take("chat_template_kwargs")?.unwrap_or_default();
    if let Some(mut reasoning) = fields.object("reasoning")? {
        if let Some(effort) = reasoning.take::<String>("effort")? {
            variables.insert("reasoning_effort".to_owned(), Value::String(effort));
        }
        reasoning.refuse_rest(&["summary", "generate_summary"])?;
    }
    Ok(variables)
}

/// The form that an answer is to have.
fn text_format(fields: &mut Fields) -> Result<Option<Grammar>> {
    let Some(mut text) = fields.object("text")? else { return Ok(None) };
    let format = text.object("format")?;
    text.refuse_rest(&["verbosity"])?;
    let Some(mut format) = format else { return Ok(None) };
    let grammar = match format.required::<String>("type")?.as_str() {
        "text" => None,
        "json_object" => Some(Grammar::json_object()),
        "json_schema" => Some(Grammar::JsonSchema(format.required("schema")?)),
        other => return Err(Error::field(format.name("type"), format!("{other:?} is not supported"))),
    };
    format.refuse_rest(&["name", "description", "strict"])?;
    Ok(grammar)
}
