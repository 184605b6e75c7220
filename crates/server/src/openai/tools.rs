//! Tools, and whether an answer is to call them, as both of OpenAI's APIs have it.

use serde_json::{Value, json};

use crate::ask::{Calls, Required};
use crate::error::{Error, Result};
use crate::fields::Fields;

/// The tools that the model is told of, and how it is to call them.
pub(super) fn read(fields: &mut Fields) -> Result<(Vec<Value>, Calls)> {
    let tools: Vec<Value> = fields.take("tools")?.unwrap_or_default();
    for (i, tool) in tools.iter().enumerate() {
        if name_of(tool).is_none() {
            return Err(Error::field(format!("tools[{i}].function.name"), "it must be a string"));
        }
    }
    choose(fields, tools)
}

/// The same of tools in the flat form that the Responses API has.
pub(super) fn read_flat(fields: &mut Fields) -> Result<(Vec<Value>, Calls)> {
    let tools: Vec<Value> = fields.take("tools")?.unwrap_or_default();
    let tool = |(i, tool)| {
        let mut tool = Fields::of(format!("tools[{i}]"), tool)?;
        let kind: String = tool.required("type")?;
        if kind != "function" {
            let reason = format!("{kind:?} is run by OpenAI; a server of models has functions alone");
            return Err(Error::field(tool.name("type"), reason));
        }
        let mut function = json!({ "name": tool.required::<String>("name")? });
        for key in ["description", "parameters", "strict"] {
            if let Some(value) = tool.value(key) {
                function[key] = value;
            }
        }
        tool.refuse_rest(&["defer_loading"])?;
        Ok(json!({ "type": "function", "function": function }))
    };
    let tools = tools.into_iter().enumerate().map(tool).collect::<Result<Vec<_>>>()?;
    choose(fields, tools)
}

/// The name of a tool or of what refers to one, in the flat form or the other.
fn name_of(tool: &Value) -> Option<&str> {
    tool.get("function").unwrap_or(tool).get("name")?.as_str()
}

fn choose(fields: &mut Fields, mut tools: Vec<Value>) -> Result<(Vec<Value>, Calls)> {
    let only_one = fields.take("parallel_tool_calls")? == Some(false);
    let field = || "tool_choice".to_owned();
    let is_known = |tools: &[Value], name: &str| tools.iter().any(|tool| name_of(tool) == Some(name));
    let required = match fields.value("tool_choice") {
        None => None,
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => None,
            "none" => {
                tools.clear();
                None
            }
            "required" => Some(Required { field: field(), name: None }),
            _ => return Err(Error::field(field(), format!("{choice:?} is none of auto, none and required"))),
        },
        Some(choice) if choice["type"] == "function" => {
            let name = name_of(&choice).filter(|name| is_known(&tools, name));
            let name = name.ok_or_else(|| Error::field(field(), "it must name one of the tools"))?;
            Some(Required { field: field(), name: Some(name.to_owned()) })
        }
        Some(choice) if choice["type"] == "allowed_tools" => {
            let allowed = choice.get("allowed_tools").unwrap_or(&choice);
            let names: Option<Vec<&str>> =
                allowed["tools"].as_array().and_then(|tools| tools.iter().map(name_of).collect());
            let names = names.filter(|names| names.iter().all(|name| is_known(&tools, name)));
            let names = names.ok_or_else(|| Error::field(field(), "it must name tools that there are"))?;
            // What it may not call it need not know.
            tools.retain(|tool| name_of(tool).is_some_and(|name| names.contains(&name)));
            match allowed["mode"].as_str() {
                Some("auto") => None,
                Some("required") => Some(Required { field: field(), name: None }),
                _ => return Err(Error::field(field(), "its mode must be auto or required")),
            }
        }
        Some(_) => {
            let reason = "it must be auto, none, required, or of type function or allowed_tools";
            return Err(Error::field(field(), reason));
        }
    };
    if required.is_some() && tools.is_empty() {
        return Err(Error::field(field(), "there are no tools to call"));
    }
    let only_one = only_one && !tools.is_empty();
    Ok((tools, Calls { required, only_one }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(choice: Value) -> Result<(Vec<Value>, Calls)> {
        let tools = json!([
            {"type": "function", "function": {"name": "f"}},
            {"type": "function", "function": {"name": "g"}},
        ]);
        let body = json!({"tools": tools, "tool_choice": choice});
        read(&mut Fields::of("", body).unwrap())
    }

    #[test]
    fn a_choice_says_what_is_known_and_what_must_be_called() {
        let f = json!({"type": "function", "function": {"name": "f"}});
        for (choice, n_tools, required) in [
            (json!("auto"), 2, None),
            (json!("none"), 0, None),
            (json!("required"), 2, Some(None)),
            (f.clone(), 2, Some(Some("f"))),
            (json!({"type": "function", "name": "g"}), 2, Some(Some("g"))),
            (json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [f]}}), 1, None),
            (
                json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}),
                1,
                Some(None),
            ),
        ] {
            let (tools, calls) = chosen(choice.clone()).unwrap();
            let name = calls.required.as_ref().map(|required| required.name.as_deref());
            assert_eq!((tools.len(), name), (n_tools, required), "{choice}");
        }
        for choice in [
            json!("any"),
            json!(3),
            json!({"type": "function", "function": {"name": "h"}}),
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"name": "h"}]}),
            json!({"type": "allowed_tools", "tools": [{"name": "f"}]}),
        ] {
            let Err(error) = chosen(choice.clone()) else { panic!("{choice} is taken") };
            assert_eq!(error.param(), Some("tool_choice"), "{choice}");
        }
    }

    #[test]
    fn flat_tools_become_what_templates_know_and_those_that_others_run_are_refused() {
        let read = |tools: Value| {
            let body = json!({"tools": tools});
            read_flat(&mut Fields::of("", body).unwrap())
        };
        let (tools, _) =
            read(json!([{"type": "function", "name": "f", "parameters": {}, "strict": true}])).unwrap();
        let expected =
            json!({"type": "function", "function": {"name": "f", "parameters": {}, "strict": true}});
        assert_eq!(tools, [expected]);
        let Err(error) = read(json!([{"type": "web_search"}])) else { panic!("it is taken") };
        assert_eq!(error.param(), Some("tools[0].type"));
    }
}
