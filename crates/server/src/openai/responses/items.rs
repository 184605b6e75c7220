//! From the items of an input to messages: what of it is one turn of the assistant's, templates have as one message.

use metallic::text::Message;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::openai::messages::text_of;

/// A turn of the assistant's, whose items come one after the other.
#[derive(Default)]
struct Turn {
    reasoning: String,
    text: String,
    calls: Vec<Value>,
}

impl Turn {
    fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.text.is_empty() && self.calls.is_empty()
    }

    /// Ends it, if it has begun.
    fn end(&mut self, messages: &mut Vec<Message>) {
        if self.is_empty() {
            return;
        }
        let Turn { reasoning, text, calls } = std::mem::take(self);
        let mut message = Message::new("assistant", text);
        if !reasoning.is_empty() {
            message.more.insert("reasoning_content".to_owned(), Value::String(reasoning));
        }
        if !calls.is_empty() {
            message.tool_calls = Some(Value::Array(calls));
        }
        messages.push(message);
    }
}

/// The conversation that an input is, after the instructions.
pub(super) fn read(instructions: Option<String>, input: Option<Value>) -> Result<Vec<Message>> {
    let mut messages: Vec<Message> =
        instructions.into_iter().map(|text| Message::new("system", text)).collect();
    let n_instructions = messages.len();
    let items = match input {
        Some(Value::String(text)) => {
            messages.push(Message::new("user", text));
            return Ok(messages);
        }
        Some(Value::Array(items)) if !items.is_empty() => items,
        None => return Err(Error::field("input", "it is missing")),
        Some(_) => return Err(Error::field("input", "it must be a string or an array of items")),
    };
    let mut turn = Turn::default();
    for (i, item) in items.into_iter().enumerate() {
        let mut item = Fields::of(format!("input[{i}]"), item)?;
        let kind: Option<String> = item.take("type")?;
        match kind.as_deref() {
            None | Some("message") => {
                let role: String = item.required("role")?;
                let name = item.name("content");
                let content = item.value("content").ok_or_else(|| Error::field(&name, "it is missing"))?;
                let text = text_of(&name, content)?;
                let role = match role.as_str() {
                    "assistant" => {
                        turn.text.push_str(&text);
                        item.refuse_rest(&["id", "status", "phase"])?;
                        continue;
                    }
                    "developer" | "system" => "system",
                    "user" => "user",
                    _ => {
                        let reason = format!("{role:?} is none of user, assistant, system and developer");
                        return Err(Error::field(item.name("role"), reason));
                    }
                };
                turn.end(&mut messages);
                match messages.last_mut().map(|last| &mut last.content) {
                    // Many templates have room for one system's message alone, before all others.
                    Some(Some(Value::String(before)))
                        if role == "system" && i == 0 && n_instructions == 1 =>
                    {
                        before.push_str("\n\n");
                        before.push_str(&text);
                    }
                    _ => messages.push(Message::new(role, text)),
                }
                item.refuse_rest(&["id", "status"])?;
            }
            Some("reasoning") => {
                // A new turn's, if the last has said something.
                if !turn.text.is_empty() || !turn.calls.is_empty() {
                    turn.end(&mut messages);
                }
                let parts: Vec<Value> = item.take("content")?.unwrap_or_default();
                let summary: Vec<Value> = item.take("summary")?.unwrap_or_default();
                let parts = if parts.is_empty() { summary } else { parts };
                let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
                turn.reasoning.push_str(&texts.concat());
                item.refuse_rest(&["id", "status", "encrypted_content"])?;
            }
            Some("function_call") => {
                let (id, name): (String, String) = (item.required("call_id")?, item.required("name")?);
                let arguments: String = item.take("arguments")?.unwrap_or_default();
                let arguments = if arguments.trim().is_empty() { "{}" } else { &arguments };
                let arguments: Value = serde_json::from_str(arguments).map_err(|error| {
                    Error::field(item.name("arguments"), format!("they are not JSON: {error}"))
                })?;
                let function = json!({ "name": name, "arguments": arguments });
                turn.calls.push(json!({ "id": id, "type": "function", "function": function }));
                item.refuse_rest(&["id", "status", "caller", "namespace"])?;
            }
            Some("function_call_output") => {
                turn.end(&mut messages);
                let name = item.name("output");
                let id: String = item.required("call_id")?;
                let output = item.value("output").ok_or_else(|| Error::field(&name, "it is missing"))?;
                let mut message = Message::new("tool", text_of(&name, output)?);
                message.tool_call_id = Some(id);
                messages.push(message);
                item.refuse_rest(&["id", "status", "caller"])?;
            }
            Some("item_reference") => {
                return Err(Error::field(item.name("type"), "items are not kept: send the item itself"));
            }
            Some(other) => {
                let reason = format!("{other:?} is not supported: models here read text, and call functions");
                return Err(Error::field(item.name("type"), reason));
            }
        }
    }
    turn.end(&mut messages);
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_one_turn_are_one_message() {
        let input = json!([
            {"role": "developer", "content": "In French."},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "b", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{\"x\":1}"},
            {"type": "function_call", "call_id": "call_2", "name": "g", "arguments": ""},
            {"type": "function_call_output", "call_id": "call_1", "output": "c"},
            {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "d"}]},
            {"role": "assistant", "content": "e"},
            {"role": "user", "content": "f"},
        ]);
        let messages = read(Some("Be brief.".to_owned()), Some(input)).unwrap();
        let said: Vec<_> = messages
            .iter()
            .map(|m| (m.role.as_str(), m.content.as_ref().unwrap().as_str().unwrap()))
            .collect();
        assert_eq!(
            said,
            [
                ("system", "Be brief.\n\nIn French."),
                ("user", "a"),
                ("assistant", "b"),
                ("tool", "c"),
                ("tool", "d"),
                ("assistant", "e"),
                ("user", "f")
            ]
        );
        assert_eq!(messages[2].more["reasoning_content"], "hm");
        let calls = messages[2].tool_calls.as_ref().unwrap();
        assert_eq!(calls[0]["function"], json!({"name": "f", "arguments": {"x": 1}}));
        assert_eq!((&calls[1]["id"], &calls[1]["function"]["arguments"]), (&json!("call_2"), &json!({})));
        assert_eq!(messages[4].tool_call_id.as_deref(), Some("call_2"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (input, field) in [
            (json!(null), "input"),
            (json!([]), "input"),
            (json!([{"content": "a"}]), "input[0].role"),
            (json!([{"role": "tool", "content": "a"}]), "input[0].role"),
            (json!([{"role": "user", "content": [{"type": "input_image"}]}]), "input[0].content[0].type"),
            (json!([{"type": "item_reference", "id": "x"}]), "input[0].type"),
            (json!([{"type": "web_search_call"}]), "input[0].type"),
            (
                json!([{"type": "function_call", "call_id": "a", "name": "f", "arguments": "{"}]),
                "input[0].arguments",
            ),
            (json!([{"type": "function_call_output", "call_id": "a"}]), "input[0].output"),
        ] {
            let input = Some(input).filter(|input| !input.is_null());
            let Err(error) = read(None, input.clone()) else { panic!("{input:?} is taken") };
            assert_eq!(error.param(), Some(field), "{input:?}");
        }
    }
}
