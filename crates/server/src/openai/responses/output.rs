//! A response's output, item by item, and the events that tell of it. A response that is asked for as a whole is what the
//! events would have made of it.

use std::collections::VecDeque;

use axum::response::sse::Event;
use metallic::FinishReason;
use metallic::engine::Stats;
use metallic::text::{Part, ToolCall};
use serde_json::{Map, Value, json};

use crate::ask::{Reply, Said, id_of};
use crate::error::{Error, Result};
use crate::openai::Failure;
use crate::stream::Writer;

/// A response as it comes.
pub(super) struct Output {
    /// The response, with the items that are complete.
    response: Value,
    items: Vec<Value>,
    open: Option<Item>,
    has_begun: bool,
    n_events: u64,
    /// Tokens whose text has not come, and those of thoughts.
    n_pending: usize,
    n_reasoning: usize,
}

/// An item that more may come of.
struct Item {
    id: String,
    kind: Kind,
    text: String,
}

#[derive(Clone, PartialEq)]
enum Kind {
    Reasoning,
    Message,
    Call { id: String, name: String },
}

impl Kind {
    /// What the events are called that tell of its text.
    fn events(&self) -> &'static str {
        match self {
            Kind::Reasoning => "response.reasoning_text",
            Kind::Message => "response.output_text",
            Kind::Call { .. } => "response.function_call_arguments",
        }
    }

    /// The part that its text is; a call has none.
    fn part(&self, text: &str) -> Option<Value> {
        match self {
            Kind::Reasoning => Some(json!({ "type": "reasoning_text", "text": text })),
            Kind::Message => {
                Some(json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] }))
            }
            Kind::Call { .. } => None,
        }
    }
}

impl Item {
    fn begin(kind: Kind) -> Self {
        let prefix = match kind {
            Kind::Reasoning => "rs",
            Kind::Message => "msg",
            Kind::Call { .. } => "fc",
        };
        Self { id: format!("{prefix}_{}", uuid::Uuid::new_v4().simple()), kind, text: String::new() }
    }

    fn object(&self, status: &str) -> Value {
        let Self { id, kind, text } = self;
        let content: Vec<Value> = kind.part(text).into_iter().filter(|_| status != "in_progress").collect();
        match kind {
            Kind::Reasoning => {
                json!({ "id": id, "type": "reasoning", "summary": [], "content": content, "status": status })
            }
            Kind::Message => json!({
                "id": id, "type": "message", "status": status, "role": "assistant", "content": content,
            }),
            Kind::Call { id: call_id, name } => json!({
                "id": id, "type": "function_call", "status": status,
                "call_id": call_id, "name": name, "arguments": text,
            }),
        }
    }
}

type Events = VecDeque<Event>;

impl Output {
    pub(super) fn new(response: Value) -> Self {
        Self {
            response,
            items: Vec::new(),
            open: None,
            has_begun: false,
            n_events: 0,
            n_pending: 0,
            n_reasoning: 0,
        }
    }

    /// All of it, when it has ended.
    pub(super) async fn whole(mut self, mut reply: Reply) -> Result<Value> {
        let mut events = Events::new();
        loop {
            let said = reply.next().await?;
            let is_end = matches!(said, Said::End { .. });
            self.said(0, said, &mut events);
            events.clear();
            if is_end {
                return Ok(self.response);
            }
        }
    }

    fn event(&mut self, kind: &str, data: Value) -> Event {
        let mut object = Map::new();
        object.insert("type".to_owned(), kind.into());
        object.insert("sequence_number".to_owned(), self.n_events.into());
        if let Value::Object(data) = data {
            object.extend(data);
        }
        self.n_events += 1;
        Event::default().event(kind).data(Value::Object(object).to_string())
    }

    fn tell(&mut self, kind: &str, data: Value, events: &mut Events) {
        let event = self.event(kind, data);
        events.push_back(event);
    }

    /// Tells of the item that is open, with its place.
    fn tell_of(&mut self, kind: &str, id: &str, more: Value, events: &mut Events) {
        let mut data = json!({ "item_id": id, "output_index": self.items.len() });
        if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
            data.extend(more);
        }
        self.tell(kind, data, events);
    }

    fn begin(&mut self, events: &mut Events) {
        if !std::mem::replace(&mut self.has_begun, true) {
            for kind in ["response.created", "response.in_progress"] {
                self.tell(kind, json!({ "response": self.response }), events);
            }
        }
    }

    fn begin_item(&mut self, kind: Kind, events: &mut Events) {
        self.close("completed", events);
        let item = Item::begin(kind);
        let added = json!({ "output_index": self.items.len(), "item": item.object("in_progress") });
        self.tell("response.output_item.added", added, events);
        if let Some(part) = item.kind.part("") {
            let more = json!({ "content_index": 0, "part": part });
            self.tell_of("response.content_part.added", &item.id, more, events);
        }
        self.open = Some(item);
    }

    /// More text of the item that is open.
    fn text(&mut self, text: &str, events: &mut Events) {
        let Some(mut item) = self.open.take() else { return };
        item.text.push_str(text);
        let more = match item.kind {
            Kind::Reasoning => json!({ "content_index": 0, "delta": text }),
            Kind::Message => json!({ "content_index": 0, "delta": text, "logprobs": [] }),
            Kind::Call { .. } => json!({ "delta": text }),
        };
        self.tell_of(&format!("{}.delta", item.kind.events()), &item.id, more, events);
        self.open = Some(item);
    }

    /// More text of this kind, in an item of its own.
    fn text_of(&mut self, kind: &Kind, text: &str, events: &mut Events) {
        if self.open.as_ref().is_none_or(|item| item.kind != *kind) {
            self.begin_item(kind.clone(), events);
        }
        self.text(text, events);
    }

    /// Ends the item that is open, if one is.
    fn close(&mut self, status: &str, events: &mut Events) {
        let Some(item) = self.open.take() else { return };
        let text = &item.text;
        let more = match &item.kind {
            Kind::Reasoning => json!({ "content_index": 0, "text": text }),
            Kind::Message => json!({ "content_index": 0, "text": text, "logprobs": [] }),
            Kind::Call { name, .. } => json!({ "name": name, "arguments": text }),
        };
        self.tell_of(&format!("{}.done", item.kind.events()), &item.id, more, events);
        if let Some(part) = item.kind.part(text) {
            let more = json!({ "content_index": 0, "part": part });
            self.tell_of("response.content_part.done", &item.id, more, events);
        }
        let object = item.object(status);
        let done = json!({ "output_index": self.items.len(), "item": object });
        self.tell("response.output_item.done", done, events);
        self.items.push(object);
    }

    /// A call of which nothing was told before.
    fn call(&mut self, call: &ToolCall, events: &mut Events) {
        self.begin_item(Kind::Call { id: id_of(call), name: call.name.clone() }, events);
        self.text(&Value::Object(call.arguments.clone()).to_string(), events);
        self.close("completed", events);
    }

    fn end(&mut self, reason: FinishReason, stats: &Stats, events: &mut Events) {
        let is_cut = matches!(reason, FinishReason::MaxTokens | FinishReason::ContextFull);
        let status = if is_cut { "incomplete" } else { "completed" };
        self.close(status, events);
        let response = &mut self.response;
        response["status"] = status.into();
        if is_cut {
            response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        response["output"] = std::mem::take(&mut self.items).into();
        response["usage"] = json!({
            "input_tokens": stats.n_prompt,
            "input_tokens_details": { "cached_tokens": stats.n_cached },
            "output_tokens": stats.n_generated,
            "output_tokens_details": { "reasoning_tokens": self.n_reasoning },
            "total_tokens": stats.n_prompt + stats.n_generated,
        });
        let data = json!({ "response": self.response });
        self.tell(&format!("response.{status}"), data, events);
    }
}

impl Writer for Output {
    type Item = Event;

    fn said(&mut self, _: usize, said: Said, events: &mut Events) {
        self.begin(events);
        let n_tokens = match said {
            Said::Token { .. } => {
                self.n_pending += 1;
                return;
            }
            _ => std::mem::take(&mut self.n_pending),
        };
        match said {
            Said::Token { .. } => {}
            Said::Part(Part::Reasoning(text)) => {
                self.n_reasoning += n_tokens;
                self.text_of(&Kind::Reasoning, &text, events);
            }
            Said::Part(Part::Content(text)) => self.text_of(&Kind::Message, &text, events),
            // What can't be read is said as it is.
            Said::Part(Part::Malformed(call)) => self.text_of(&Kind::Message, &call.text, events),
            Said::Part(Part::ToolCall(call)) => self.call(&call, events),
            Said::Part(_) => {}
            Said::CallBegun { id, name } => self.begin_item(Kind::Call { id, name }, events),
            Said::CallArguments(json) => self.text(&json, events),
            Said::CallEnded(_) => self.close("completed", events),
            Said::CallBroken(_) => self.close("incomplete", events),
            Said::End { reason, stats, .. } => self.end(reason, &stats, events),
        }
    }

    fn ended(&mut self, _: &mut Events) {}

    fn failed(&mut self, error: Error) -> Event {
        let message = error.to_string();
        let body = Failure(error).body();
        let code = body["error"]["code"].as_str().unwrap_or("server_error").to_owned();
        self.response["status"] = "failed".into();
        self.response["error"] = json!({ "code": code, "message": message });
        let data = json!({ "response": self.response });
        self.event("response.failed", data)
    }
}
