//! A message of a conversation, as templates see it.

use serde_json::{Map, Value};

/// One message of a conversation.
///
/// Templates ask whether a field is there, so what is absent is not serialised.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or `tool`; some templates know others.
    pub role: String,
    /// What is said: text, or a list of parts where the template knows them. Beside calls of tools it may be
    /// null, which some templates tell from a field that is not there.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
    /// The tools that an assistant's message calls, as OpenAI's API has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Value>,
    /// The call that a tool's message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The name of the tool that answers, or of the person who speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Further fields, such as `reasoning_content`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A value that is there, be it null.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    serde::Deserialize::deserialize(deserializer).map(Some)
}

impl Message {
    /// A message of text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message {
            role: role.into(),
            content: Some(Value::String(content.into())),
            tool_calls: None,
            tool_call_id: None,
            name: None,
            more: Map::new(),
        }
    }
}
