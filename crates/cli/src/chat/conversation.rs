//! What was said, by turns: what the model is told of it, what is taken back, and what gives way when the context
//! is full.

use metallic::text::Message;
use serde_json::Value;

/// A conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Conversation {
    /// What the model is told first. It stays whatever gives way.
    opening: Vec<Message>,
    /// Each is what the user said and all that came of it: calls of tools, their results, the answer.
    turns: Vec<Vec<Message>>,
    /// How many of the oldest turns the model is not told of.
    n_forgotten: usize,
}

impl Conversation {
    /// Messages that were said before, in order.
    pub(super) fn of(messages: Vec<Message>) -> Self {
        let mut conversation = Self::default();
        for message in messages {
            match (message.role.as_str(), conversation.turns.last_mut()) {
                ("system" | "developer", None) => conversation.opening.push(message),
                ("user", _) | (_, None) => conversation.turns.push(vec![message]),
                (_, Some(turn)) => turn.push(message),
            }
        }
        conversation
    }

    /// All that was said.
    pub(super) fn messages(&self) -> Vec<Message> {
        self.since(0)
    }

    /// What the model is told.
    pub(super) fn told(&self) -> Vec<Message> {
        self.since(self.n_forgotten)
    }

    fn since(&self, first: usize) -> Vec<Message> {
        self.opening.iter().chain(self.turns[first..].iter().flatten()).cloned().collect()
    }

    pub(super) fn n_turns(&self) -> usize {
        self.turns.len()
    }

    pub(super) fn n_forgotten(&self) -> usize {
        self.n_forgotten
    }

    /// The text of the system message.
    pub(super) fn system(&self) -> Option<&str> {
        self.opening.first()?.content.as_ref()?.as_str()
    }

    /// Has the model told this first, or nothing.
    pub(super) fn set_system(&mut self, text: Option<&str>) {
        self.opening = text.map(|text| Message::new("system", text)).into_iter().collect();
    }

    /// Begins a turn.
    pub(super) fn ask(&mut self, text: &str) {
        self.turns.push(vec![Message::new("user", text)]);
    }

    /// Adds to the turn.
    pub(super) fn add(&mut self, message: Message) {
        match self.turns.last_mut() {
            Some(turn) => turn.push(message),
            None => self.turns.push(vec![message]),
        }
    }

    /// Adds the result of the first of the model's last calls that has none, and gives how many calls are left
    /// without; `None` if there is no such call.
    pub(super) fn add_result(&mut self, text: &str) -> Option<usize> {
        let turn = self.turns.last_mut()?;
        let at = turn.iter().rposition(|message| message.role == "assistant")?;
        let n_results = turn.len() - at - 1;
        let calls = turn[at].tool_calls.as_ref()?.as_array()?;
        let (call, n_left) = (calls.get(n_results)?, calls.len() - n_results - 1);
        let field = |value: &Value| value.as_str().map(str::to_owned);
        let mut result = Message::new("tool", text);
        result.tool_call_id = field(&call["id"]);
        result.name = field(&call["function"]["name"]);
        turn.push(result);
        Some(n_left)
    }

    /// Takes the last turn back, and gives what the user said.
    pub(super) fn undo(&mut self) -> Option<String> {
        let turn = self.turns.pop()?;
        self.n_forgotten = self.n_forgotten.min(self.turns.len());
        Some(text_of(turn.first()?))
    }

    /// Takes back what came after the user's last words; false if there is nothing to answer anew.
    pub(super) fn take_answer_back(&mut self) -> bool {
        let Some(turn) = self.turns.last_mut() else { return false };
        let is_question = turn.first().is_some_and(|message| message.role == "user");
        if is_question {
            turn.truncate(1);
        }
        is_question
    }

    /// No longer tells the model of the oldest turn that it is told of; false if there is only the last.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let can_forget = self.n_forgotten + 1 < self.turns.len();
        self.n_forgotten += usize::from(can_forget);
        can_forget
    }
}

fn text_of(message: &Message) -> String {
    match &message.content {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(parts: &[(&str, &str)]) -> Vec<Message> {
        parts.iter().map(|(role, text)| Message::new(*role, *text)).collect()
    }

    fn texts(messages: &[Message]) -> Vec<String> {
        messages.iter().map(text_of).collect()
    }

    #[test]
    fn calls_and_their_results_give_way_with_their_turn_and_the_opening_stays() {
        let mut conversation = Conversation::of(said(&[
            ("system", "s"),
            ("user", "a"),
            ("assistant", "call"),
            ("tool", "result"),
            ("assistant", "A"),
            ("user", "b"),
            ("assistant", "B"),
        ]));
        conversation.ask("c");
        assert_eq!(conversation.n_turns(), 3);
        assert!(conversation.forget_oldest());
        assert_eq!(texts(&conversation.told()), ["s", "b", "B", "c"]);
        assert!(conversation.forget_oldest());
        assert_eq!(texts(&conversation.told()), ["s", "c"]);
        assert!(!conversation.forget_oldest(), "the last turn is what is answered");
        assert_eq!(texts(&conversation.messages()), ["s", "a", "call", "result", "A", "b", "B", "c"]);
    }

    #[test]
    fn turns_are_taken_back_whole_and_answers_alone() {
        let mut conversation = Conversation::default();
        assert!(conversation.undo().is_none() && !conversation.take_answer_back());
        for (question, answer) in [("a", "A"), ("b", "B")] {
            conversation.ask(question);
            conversation.add(Message::new("assistant", answer));
        }
        conversation.forget_oldest();
        assert!(conversation.take_answer_back());
        assert_eq!(texts(&conversation.messages()), ["a", "A", "b"]);
        assert_eq!(conversation.undo().as_deref(), Some("b"));
        assert_eq!(conversation.undo().as_deref(), Some("a"));
        assert_eq!((conversation.n_forgotten(), conversation.told()), (0, vec![]));
        // Words that nobody asked for can't be answered anew.
        assert!(!Conversation::of(said(&[("assistant", "Hello!")])).take_answer_back());
    }

    #[test]
    fn results_go_to_calls_in_their_order() {
        let mut calls = Message::new("assistant", "");
        calls.tool_calls = Some(serde_json::json!([
            {"id": "1", "type": "function", "function": {"name": "a"}},
            {"type": "function", "function": {"name": "b"}},
        ]));
        let mut conversation = Conversation::of(said(&[("user", "q")]));
        assert_eq!(conversation.add_result("x"), None);
        conversation.add(calls);
        assert_eq!([(); 3].map(|()| conversation.add_result("x")), [Some(1), Some(0), None]);
        let messages = conversation.messages();
        let found: Vec<_> =
            messages[2..].iter().map(|m| (m.name.as_deref(), m.tool_call_id.as_deref())).collect();
        assert_eq!(found, [(Some("a"), Some("1")), (Some("b"), None)]);
    }

    #[test]
    fn the_system_message_is_changed_in_place() {
        let mut conversation = Conversation::of(said(&[("system", "s"), ("user", "a")]));
        conversation.set_system(Some("t"));
        assert_eq!(
            (conversation.system(), texts(&conversation.told())),
            (Some("t"), vec!["t".into(), "a".into()])
        );
        conversation.set_system(None);
        assert_eq!((conversation.system(), conversation.messages().len()), (None, 1));
    }
}
