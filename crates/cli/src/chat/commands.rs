//! What can be typed in a chat beside text: one table, from which `/help` and `metallic chat --help` are made.

use std::fmt::Write as _;
use std::path::Path;

use metallic::text::Message;

use super::conversation::Conversation;
use super::{Chat, write_new};
use crate::failure::{Failure, Kind, Result};
use crate::input;

/// Something that can be typed.
pub(super) struct Command {
    /// The first is shown; the others are what other programs call it.
    names: &'static [&'static str],
    arguments: &'static str,
    help: &'static str,
    /// What it does with its arguments.
    run: fn(&mut Chat<'_>, &str) -> Result<Next>,
}

/// What comes after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The user's next words.
    Read,
    /// The model's answer to the last ones.
    Answer,
    /// The end.
    Leave,
}

const COMMANDS: &[Command] = &[
    Command {
        names: &["/system"],
        arguments: "[TEXT]",
        help: "show the system message, or set it; \"\" for none",
        run: |chat, text| chat.system(text),
    },
    Command {
        names: &["/set"],
        arguments: "[NAME [VALUE]]",
        help: "show how answers are made, or change it: /set temp 0.2",
        run: |chat, arguments| chat.set(arguments),
    },
    Command {
        names: &["/tools"],
        arguments: "[FILE]",
        help: "tell the model of the tools in a file; of none without one",
        run: |chat, file| chat.use_tools(file),
    },
    Command {
        names: &["/result"],
        arguments: "TEXT",
        help: "give the model the result of its call of a tool",
        run: |chat, text| chat.give_result(text),
    },
    Command {
        names: &["/regen", "/retry"],
        arguments: "",
        help: "answer the last message anew",
        run: |chat, _| chat.regenerate(),
    },
    Command {
        names: &["/undo"],
        arguments: "",
        help: "take back the last message and its answer",
        run: |chat, _| chat.undo(),
    },
    Command {
        names: &["/save"],
        arguments: "FILE",
        help: "write the conversation to a new file of JSON",
        run: |chat, file| chat.save(file),
    },
    Command {
        names: &["/load"],
        arguments: "FILE",
        help: "go on with the conversation in a file",
        run: |chat, file| chat.load(file),
    },
    Command {
        names: &["/context"],
        arguments: "",
        help: "show the model and what is left of its context",
        run: |chat, _| chat.show_context(),
    },
    Command {
        names: &["/reset", "/clear"],
        arguments: "",
        help: "forget the conversation",
        run: |chat, _| {
            chat.reset();
            Ok(Next::Read)
        },
    },
    Command {
        names: &["/help", "/?"],
        arguments: "",
        help: "this list",
        run: |chat, _| {
            chat.reply(help());
            Ok(Next::Read)
        },
    },
    Command {
        names: &["/exit", "/quit", "/bye"],
        arguments: "",
        help: "leave; so does Ctrl-D",
        run: |_, _| Ok(Next::Leave),
    },
];

/// What else there is to know.
const KEYS: &[(&str, &str)] = &[
    ("\"\"\" … \"\"\"", "several lines, as they are; a \\ at the end of a line goes on, too"),
    ("//…", "text that begins with a slash"),
    ("Ctrl-C", "stops the answer; at the prompt, twice leaves"),
];

/// The command of this name.
pub(super) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.names.contains(&name))
}

/// All that can be typed, a line each.
pub(crate) fn help() -> String {
    let commands = COMMANDS.iter().map(|command| {
        (format!("{} {}", command.names[0], command.arguments).trim_end().to_owned(), command.help)
    });
    let keys = KEYS.iter().map(|(keys, help)| ((*keys).to_owned(), *help));
    let rows: Vec<(String, &str)> = commands.chain(keys).collect();
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = rows.iter().map(|(what, help)| format!("{what:width$}  {help}")).collect();
    lines.join("\n")
}

impl Command {
    pub(super) fn run(&self, chat: &mut Chat<'_>, arguments: &str) -> Result<Next> {
        let takes = self.arguments;
        if takes.is_empty() && !arguments.is_empty() {
            return Err(usage(format!("{} takes nothing after it", self.names[0])));
        }
        if !takes.is_empty() && !takes.starts_with('[') && arguments.is_empty() {
            return Err(usage(format!("{} needs a {takes}", self.names[0])));
        }
        (self.run)(chat, arguments)
    }
}

fn usage(what: impl Into<String>) -> Failure {
    Failure::new(Kind::Usage, what)
}

impl Chat<'_> {
    fn system(&mut self, text: &str) -> Result<Next> {
        match text {
            "" => self.reply(self.conversation.system().unwrap_or("there is no system message")),
            "\"\"" => self.conversation.set_system(None),
            text => {
                let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                self.conversation.set_system(Some(quoted.unwrap_or(text)));
            }
        }
        Ok(Next::Read)
    }

    fn set(&mut self, arguments: &str) -> Result<Next> {
        let (name, value) = arguments.split_once(char::is_whitespace).unwrap_or((arguments, ""));
        match (name, value.trim()) {
            ("", _) => self.reply(self.session.settings().table()),
            (name, "") => self.reply(self.session.settings().row(name)?),
            (name, value) => self.session.set(name, value)?,
        }
        Ok(Next::Read)
    }

    fn use_tools(&mut self, file: &str) -> Result<Next> {
        self.tools = if file.is_empty() {
            Vec::new()
        } else {
            crate::run::tools(Path::new(file), self.session.text_limit())?
        };
        self.reply(format_args!("the model knows of {}", counted(self.tools.len(), "tool")));
        Ok(Next::Read)
    }

    fn give_result(&mut self, text: &str) -> Result<Next> {
        match self.conversation.add_result(text) {
            Some(0) => Ok(Next::Answer),
            Some(n_left) => {
                self.reply(format_args!("{} without a result", counted(n_left, "call")));
                Ok(Next::Read)
            }
            None => Err(usage("there is no call of a tool without a result")),
        }
    }

    fn regenerate(&mut self) -> Result<Next> {
        if self.conversation.take_answer_back() {
            Ok(Next::Answer)
        } else {
            Err(usage("there is no message to answer"))
        }
    }

    fn undo(&mut self) -> Result<Next> {
        match self.conversation.undo() {
            Some(text) => self.reply(format_args!("took back: {text}")),
            None => return Err(usage("there is nothing to take back")),
        }
        Ok(Next::Read)
    }

    fn save(&mut self, file: &str) -> Result<Next> {
        let messages = self.conversation.messages();
        let json = serde_json::to_string_pretty(&messages)
            .map_err(|e| Failure::new(Kind::General, "can't write the conversation as JSON").because(e))?;
        write_new(Path::new(file), &(json + "\n"), self.fetcher.interrupt)?;
        self.reply(format_args!("{} in {file}", counted(messages.len(), "message")));
        Ok(Next::Read)
    }

    fn load(&mut self, file: &str) -> Result<Next> {
        let text = input::file(Path::new(file), self.session.text_limit())?;
        let messages: Vec<Message> = serde_json::from_str(&text).map_err(|e| {
            usage(format!("{file} is not a conversation"))
                .because(e)
                .advice("it is a JSON list such as [{\"role\": \"user\", \"content\": \"Hello\"}]")
        })?;
        self.reply(counted(messages.len(), "message"));
        self.conversation = Conversation::of(messages);
        Ok(Next::Read)
    }

    fn show_context(&mut self) -> Result<Next> {
        let n_ctx = self.session.n_ctx();
        let n_turns = self.conversation.n_turns();
        let n_used = if n_turns == 0 { 0 } else { self.prompt()?.tokens().len() };
        let (name, turns) = (self.session.name(), counted(n_turns - self.conversation.n_forgotten(), "turn"));
        let mut line = if n_used <= n_ctx {
            format!("{name}: {n_used} of {n_ctx} tokens for {turns}, {} left", n_ctx - n_used)
        } else {
            format!("{name}: {n_used} tokens for {turns}, more than the context of {n_ctx} holds")
        };
        if self.conversation.n_forgotten() > 0 {
            let _ = write!(line, "; {} gave way", counted(self.conversation.n_forgotten(), "turn"));
        }
        self.reply(line);
        Ok(Next::Read)
    }
}

/// `1 turn`, `2 turns`.
fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_their_own_and_all_are_in_the_help() {
        let names: Vec<&str> = COMMANDS.iter().flat_map(|command| command.names).copied().collect();
        let help = help();
        for (i, name) in names.iter().enumerate() {
            assert!(name.starts_with('/') && !names[..i].contains(name), "{name}");
        }
        for command in COMMANDS {
            assert!(help.lines().any(|line| line.starts_with(command.names[0])), "{}", command.names[0]);
        }
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
}
