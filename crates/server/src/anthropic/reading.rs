//! Conversations as Anthropic's API has them, for templates.

use metallic::engine::Grammar;
use metallic::text::Message;
use serde_json::{Map, Value, json};

use crate::ask::{Calls, Conversation, Required};
use crate::error::{Error, Result};
use crate::fields::Fields;

/// The conversation of a request: its system prompt, its messages and its tools; and the form that the answer is to have.
pub(super) fn read(fields: &mut Fields) -> Result<(Conversation, Option<Grammar>)> {
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
    let mut calls = Calls::default();
    if let Some(mut choice) = fields.object("tool_choice")? {
        let field = choice.name("type");
        let name = choice.take::<String>("name")?;
        let must = match choice.required::<String>("type")?.as_str() {
            "auto" => false,
            "none" => {
                tools.clear();
                false
            }
            "any" => true,
            "tool" => {
                let is_known = tools.iter().any(|tool| tool["function"]["name"].as_str() == name.as_deref());
                if name.is_none() || !is_known {
                    return Err(Error::field(choice.name("name"), "it must name one of the tools"));
                }
                true
            }
            other => {
                let reason = format!("{other:?} is none of auto, any, tool and none");
                return Err(Error::field(field, reason));
            }
        };
        if must && tools.is_empty() {
            return Err(Error::field(field, "there are no tools to call"));
        }
        calls.required = must.then_some(Required { field, name });
        calls.only_one = choice.take("disable_parallel_tool_use")? == Some(true) && !tools.is_empty();
        choice.refuse_rest(&[])?;
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
    pass_context_management(fields)?;
    let grammar = output(fields, &mut variables)?;
    if grammar.is_some() && !tools.is_empty() {
        let reason = "with tools an answer has the form that the model gives it";
        return Err(Error::field("output_config.format", reason));
    }
    // A last message of the assistant's is how the answer begins, unless it is one that only tools can answer.
    let continues = messages.last().is_some_and(|last| {
        last.role == "assistant"
            && last.tool_calls.is_none()
            && last.content.as_ref().is_some_and(|c| *c != "")
    });
    Ok((Conversation { messages, tools, calls, continues, variables }, grammar))
}

/// What is to be left out of a conversation that has grown long. Here nothing is: the answer is to all of it, or there is an
/// error that it is too long.
fn pass_context_management(fields: &mut Fields) -> Result<()> {
    let Some(mut management) = fields.object("context_management")? else { return Ok(()) };
    let edits: Vec<Value> = management.take("edits")?.unwrap_or_default();
    for (i, edit) in edits.into_iter().enumerate() {
        let kind = edit["type"].as_str().unwrap_or_default();
        if !["clear_tool_uses_", "clear_thinking_", "compact_"].iter().any(|known| kind.starts_with(known)) {
            let name = format!("context_management.edits.{i}.type");
            return Err(Error::field(name, format!("{kind:?} is not known")));
        }
    }
    management.refuse_rest(&[])
}

/// The form that an answer is to have, and how hard the model is to think, as far as its template takes that.
fn output(fields: &mut Fields, variables: &mut Map<String, Value>) -> Result<Option<Grammar>> {
    let mut format = fields.object("output_format")?;
    if let Some(mut config) = fields.object("output_config")? {
        if let Some(effort) = config.take::<String>("effort")? {
            variables.insert("reasoning_effort".to_owned(), Value::String(effort));
        }
        format = config.object("format")?.or(format);
        config.refuse_rest(&[])?;
    }
    let Some(mut format) = format else { return Ok(None) };
    let kind: String = format.required("type")?;
    if kind != "json_schema" {
        return Err(Error::field(format.name("type"), format!("{kind:?} is not supported")));
    }
    let schema = format.required("schema")?;
    format.refuse_rest(&["name"])?;
    Ok(Some(Grammar::JsonSchema(schema)))
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
                let mut content = content.unwrap_or_default();
                // Templates know no failure but what is said of it.
                if block.take("is_error")?.unwrap_or(false) {
                    content.insert_str(0, "Error: ");
                }
                let mut message = Message::new("tool", content);
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
        // How strict a call keeps to the schema is for `tool_choice` to say: one that must be made does.
        let others = [
            "cache_control",
            "strict",
            "defer_loading",
            "allowed_callers",
            "input_examples",
            "eager_input_streaming",
        ];
        tool.refuse_rest(&others)?;
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

    fn read_body(body: Value) -> Result<Conversation> {
        read(&mut Fields::of("", body).unwrap()).map(|(conversation, _)| conversation)
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
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_2", "is_error": true}]},
            ],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "thinking": {"type": "disabled"},
        });
        let Conversation { messages, tools, variables, .. } = read_body(body).unwrap();
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
                ("tool", "Error: ")
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
            let Err(error) = read_body(body.clone()) else { panic!("{body} is taken") };
            assert_eq!(error.param(), Some(field), "{body}");
        }
    }
}
