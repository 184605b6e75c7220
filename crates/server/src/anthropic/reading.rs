//! Conversations as Anthropic's API has them, for templates.

use metallic::text::Message;
use serde_json::{Map, Value, json};

use crate::ask::Conversation;
use crate::error::{Error, Result};
use crate::fields::Fields;

/// The conversation of a request: its system prompt, its messages and its tools.
pub(super) fn conversation(fields: &mut Fields) -> Result<Conversation> {
    let mut messages = Vec::new();
    if let Some(system) = fields.value("system") {
        messages.push(Message::new("system", text_of("system", system)?));
    }
    let turns: Vec<Value> = fields.required("messages")?;
    if turns.is_empty() {
        return Err(Error::field("messages", "there are none"));
    }
    for (i, turn) in turns.into_iter().enumerate() {
        read_turn(&format!("messages.{i}"), turn, &mut messages)?;
    }
    let mut tools = tools(fields.take("tools")?.unwrap_or_default())?;
    if let Some(mut choice) = fields.object("tool_choice")? {
        match choice.required::<String>("type")?.as_str() {
            "auto" => {}
            "none" => tools.clear(),
            _ => {
                return Err(Error::field(
                    choice.name("type"),
                    "it can be auto or none: a call can't be enforced",
                ));
            }
        }
        if choice.take("disable_parallel_tool_use")? == Some(true) {
            let reason = "that there be one call alone can't be enforced";
            return Err(Error::field(choice.name("disable_parallel_tool_use"), reason));
        }
    }
    let mut variables = Map::new();
    if let Some(mut thinking) = fields.object("thinking")? {
        // What templates call it whose models can do either. A budget of tokens is not theirs to keep.
        let thinks = match thinking.required::<String>("type")?.as_str() {
            "enabled" | "adaptive" => true,
            "disabled" => false,
            other => return Err(Error::field(thinking.name("type"), format!("{other:?} is not known"))),
        };
        variables.insert("enable_thinking".to_owned(), Value::Bool(thinks));
    }
    Ok(Conversation { messages, tools, variables })
}

/// One turn: a message, or several where the user's has results of tools.
fn read_turn(path: &str, turn: Value, messages: &mut Vec<Message>) -> Result<()> {
    let mut fields = Fields::of(path, turn)?;
    let role: String = fields.required("role")?;
    if !["user", "assistant", "system"].contains(&role.as_str()) {
        return Err(Error::field(
            fields.name("role"),
            format!("{role:?} is none of user, assistant and system"),
        ));
    }
    let name = fields.name("content");
    let blocks = match fields.value("content") {
        Some(Value::String(text)) => vec![json!({ "type": "text", "text": text })],
        Some(Value::Array(blocks)) => blocks,
        _ => return Err(Error::field(name, "it must be a string or an array of blocks")),
    };
    fields.refuse_rest(&[])?;
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    for (i, block) in blocks.into_iter().enumerate() {
        let mut block = Fields::of(format!("{name}.{i}"), block)?;
        match block.required::<String>("type")?.as_str() {
            "text" => text.push_str(&block.required::<String>("text")?),
            "thinking" => thinking.push_str(&block.required::<String>("thinking")?),
            // Nobody but who wrote it can read it.
            "redacted_thinking" => {}
            "tool_use" => {
                let (id, name) = (block.required::<String>("id")?, block.required::<String>("name")?);
                let input: Map<String, Value> = block.take("input")?.unwrap_or_default();
                calls.push(json!({
                    "id": id,
                    "type": "function",
                    "function": { "name": name, "arguments": input },
                }));
            }
            "tool_result" => {
                let id: String = block.required("tool_use_id")?;
                let content_name = block.name("content");
                let content =
                    block.value("content").map(|content| text_of(&content_name, content)).transpose()?;
                let mut message = Message::new("tool", content.unwrap_or_default());
                message.tool_call_id = Some(id);
                messages.push(message);
            }
            other => {
                let reason = format!("{other:?} is not supported: models here read text alone");
                return Err(Error::field(block.name("type"), reason));
            }
        }
    }
    if text.is_empty()
        && thinking.is_empty()
        && calls.is_empty()
        && messages.last().is_some_and(|m| m.role == "tool")
    {
        return Ok(());
    }
    let mut message = Message::new(role, text);
    if !thinking.is_empty() {
        message.more.insert("reasoning_content".to_owned(), Value::String(thinking));
    }
    if !calls.is_empty() {
        message.tool_calls = Some(Value::Array(calls));
    }
    messages.push(message);
    Ok(())
}

/// A text, or blocks of it.
fn text_of(path: &str, content: Value) -> Result<String> {
    match content {
        Value::String(text) => Ok(text),
        Value::Array(blocks) => {
            let text = |(i, block): (usize, Value)| -> Result<String> {
                let mut block = Fields::of(format!("{path}.{i}"), block)?;
                match block.required::<String>("type")?.as_str() {
                    "text" => block.required("text"),
                    other => Err(Error::field(
                        block.name("type"),
                        format!("{other:?} is not supported: models here read text alone"),
                    )),
                }
            };
            Ok(blocks.into_iter().enumerate().map(text).collect::<Result<Vec<_>>>()?.concat())
        }
        _ => Err(Error::field(path, "it must be a string or an array of blocks")),
    }
}

/// Tools as templates have them.
fn tools(tools: Vec<Value>) -> Result<Vec<Value>> {
    let tool = |(i, tool): (usize, Value)| -> Result<Value> {
        let mut tool = Fields::of(format!("tools.{i}"), tool)?;
        match tool.take::<String>("type")?.as_deref() {
            None | Some("custom") => {}
            Some(other) => {
                return Err(Error::field(
                    tool.name("type"),
                    format!("{other:?} is not a tool of this server"),
                ));
            }
        }
        let name: String = tool.required("name")?;
        let description: Option<String> = tool.take("description")?;
        let schema: Value = tool.required("input_schema")?;
        tool.refuse_rest(&["cache_control"])?;
        let mut function = json!({ "name": name, "parameters": schema });
        if let Some(description) = description {
            function["description"] = Value::String(description);
        }
        Ok(json!({ "type": "function", "function": function }))
    };
    tools.into_iter().enumerate().map(tool).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<Conversation> {
        conversation(&mut Fields::of("", body).unwrap())
    }

    #[test]
    fn results_of_tools_are_messages_of_their_own_before_what_the_user_says() {
        let body = json!({
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "text", "text": "b"},
                    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "c"}]},
                    {"type": "text", "text": "d"},
                ]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_2"}]},
            ],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "thinking": {"type": "disabled"},
        });
        let Conversation { messages, tools, variables } = read(body).unwrap();
        let said: Vec<_> = messages
            .iter()
            .map(|m| (m.role.as_str(), m.content.as_ref().unwrap().as_str().unwrap()))
            .collect();
        assert_eq!(
            said,
            [
                ("system", "Be brief."),
                ("user", "a"),
                ("assistant", "b"),
                ("tool", "c"),
                ("user", "d"),
                ("tool", "")
            ]
        );
        assert_eq!(messages[2].more["reasoning_content"], "hm");
        assert_eq!(messages[2].tool_calls.as_ref().unwrap()[0]["function"]["arguments"], json!({"x": 1}));
        assert_eq!(messages[3].tool_call_id.as_deref(), Some("toolu_1"));
        assert_eq!(
            tools,
            [json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}})]
        );
        assert_eq!(variables["enable_thinking"], false);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let with = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
        for (body, field) in [
            (json!({"messages": []}), "messages"),
            (json!({"messages": [{"role": "robot", "content": "a"}]}), "messages.0.role"),
            (with(json!(1)), "messages.0.content"),
            (with(json!([{"type": "image"}])), "messages.0.content.0.type"),
            (with(json!([{"type": "tool_result", "content": "a"}])), "messages.0.content.0.tool_use_id"),
        ] {
            let Err(error) = read(body.clone()) else { panic!("{body} is taken") };
            assert_eq!(error.param(), Some(field), "{body}");
        }
    }
}
