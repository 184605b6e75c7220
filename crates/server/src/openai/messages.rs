//! Messages of a conversation as OpenAI's API has them, for templates.

use metallic::text::Message;
use serde_json::{Value, json};

use crate::body::json_in_text;
use crate::error::{Error, Result};
use crate::fields::Fields;

/// The messages of a request.
pub(crate) fn read(values: Vec<Value>) -> Result<Vec<Message>> {
    if values.is_empty() {
        return Err(Error::field("messages", "there are none"));
    }
    values.into_iter().enumerate().map(|(i, value)| message(&format!("messages[{i}]"), value)).collect()
}

fn message(path: &str, value: Value) -> Result<Message> {
    let mut fields = Fields::of(path, value)?;
    let role: String = fields.required("role")?;
    let role = match role.as_str() {
        // What OpenAI calls the system's messages of late, and the answers of tools in the past.
        "developer" => "system".to_owned(),
        "system" | "user" | "assistant" | "tool" => role,
        _ => {
            let reason = format!("{role:?} is none of system, developer, user, assistant and tool");
            return Err(Error::field(fields.name("role"), reason));
        }
    };
    let content =
        fields.value("content").map(|content| text_of(&fields.name("content"), content)).transpose()?;
    let calls: Option<Vec<Value>> = fields.take("tool_calls")?;
    if content.is_none() && calls.is_none() && role != "assistant" {
        return Err(Error::field(fields.name("content"), "it is missing"));
    }
    let mut message = Message::new(role, content.unwrap_or_default());
    message.name = fields.take("name")?;
    message.tool_call_id = fields.take("tool_call_id")?;
    if let Some(calls) = calls.filter(|calls| !calls.is_empty()) {
        let calls = calls.into_iter().enumerate();
        let calls: Result<Vec<Value>> =
            calls.map(|(i, value)| call(&format!("{path}.tool_calls[{i}]"), value)).collect();
        message.tool_calls = Some(Value::Array(calls?));
    }
    if let Some(reasoning) = fields.take::<String>("reasoning_content")? {
        message.more.insert("reasoning_content".to_owned(), Value::String(reasoning));
    }
    // Of answers that clients send back: nothing that a template reads.
    fields.refuse_rest(&["refusal", "annotations", "audio", "reasoning", "id"])?;
    Ok(message)
}

/// A call as templates have it: with its arguments as an object.
fn call(path: &str, value: Value) -> Result<Value> {
    let mut fields = Fields::of(path, value)?;
    let id: Option<String> = fields.take("id")?;
    let mut function = fields
        .object("function")?
        .ok_or_else(|| Error::field(format!("{path}.function"), "it is missing"))?;
    let name: String = function.required("name")?;
    let arguments = match function.value("arguments") {
        None => json!({}),
        Some(Value::String(text)) if text.trim().is_empty() => json!({}),
        Some(Value::String(text)) => {
            json_in_text(&text).map_err(|reason| Error::field(function.name("arguments"), reason))?
        }
        Some(arguments) => arguments,
    };
    let mut call = json!({ "type": "function", "function": { "name": name, "arguments": arguments } });
    if let Some(id) = id {
        call["id"] = Value::String(id);
    }
    Ok(call)
}

/// The text of a content: itself, or that of its parts.
pub(super) fn text_of(path: &str, content: Value) -> Result<String> {
    match content {
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let text = |(i, part): (usize, Value)| -> Result<String> {
                let path = format!("{path}[{i}]");
                if let Value::String(text) = part {
                    return Ok(text);
                }
                let mut part = Fields::of(path, part)?;
                let kind: String = part.required("type")?;
                match kind.as_str() {
                    "text" | "input_text" | "output_text" => part.required("text"),
                    "refusal" => part.required("refusal"),
                    _ => Err(Error::field(
                        part.name("type"),
                        format!("{kind:?} is not supported: models here read text alone"),
                    )),
                }
            };
            Ok(parts.into_iter().enumerate().map(text).collect::<Result<Vec<_>>>()?.concat())
        }
        _ => Err(Error::field(path, "it must be a string or an array of parts")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_becomes_what_templates_read() {
        let messages = read(vec![
            json!({"role": "developer", "content": "Be brief."}),
            json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
            json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
            ]}),
            json!({"role": "tool", "tool_call_id": null, "content": ""}),
        ]);
        let messages = messages.unwrap();
        assert_eq!((&*messages[0].role, &messages[0].content), ("system", &Some("Be brief.".into())));
        assert_eq!(messages[1].content, Some("ab".into()));
        assert_eq!(
            messages[2].tool_calls,
            Some(
                json!([{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}])
            )
        );
        assert_eq!((&messages[3].content, &messages[3].tool_call_id), (&Some("".into()), &None));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (message, field) in [
            (json!({"content": "a"}), "messages[0].role"),
            (json!({"role": "robot", "content": "a"}), "messages[0].role"),
            (json!({"role": "user"}), "messages[0].content"),
            (json!({"role": "user", "content": 1}), "messages[0].content"),
            (json!({"role": "user", "content": [{"type": "image_url"}]}), "messages[0].content[0].type"),
            (json!({"role": "user", "content": "a", "mood": "bad"}), "messages[0].mood"),
            (
                json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
                "messages[0].tool_calls[0].function.arguments",
            ),
        ] {
            assert_eq!(read(vec![message.clone()]).unwrap_err().param(), Some(field), "{message}");
        }
        assert_eq!(read(Vec::new()).unwrap_err().param(), Some("messages"));
    }
}
