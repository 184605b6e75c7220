//! Lines that make up what the user enters at once.

/// What stands around several lines.
const QUOTES: &str = "\"\"\"";

/// What the user has entered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    /// Something to say to the model.
    Text(String),
    /// A command's name, with its slash, and what follows it.
    Command(String, String),
    /// More than is kept of one.
    TooLong,
}

/// An entry that is not complete.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    /// The longest entry.
    max_bytes: usize,
    is_too_long: bool,
    /// What stands before the quotes.
    before: String,
    text: String,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    /// The last line ended with a backslash.
    Continued,
    Quoted,
}

impl Lines {
    pub(super) fn new(max_bytes: usize) -> Self {
        let (before, text) = (String::new(), String::new());
        Self { max_bytes, is_too_long: false, before, text, state: State::Empty }
    }

    /// Adds to the text, of which nothing is kept once it is too long.
    fn append(&mut self, line: &str, end: &str) {
        self.is_too_long |= self.text.len() + line.len() > self.max_bytes;
        if self.is_too_long {
            self.text = String::new();
        } else {
            self.text.push_str(line);
            self.text.push_str(end);
        }
    }

    /// Takes a line, and gives the entry that is complete with it. A line that a backslash ends goes on in the next;
    /// between triple quotes, which a command may precede, lines are taken as they are.
    pub(super) fn push(&mut self, line: &str) -> Option<Entry> {
        match self.state {
            State::Quoted => return self.push_quoted(line),
            State::Empty => {
                if let Some((before, after)) = line.split_once(QUOTES).filter(|(before, _)| may_quote(before))
                {
                    self.before = before.trim().to_owned();
                    self.state = State::Quoted;
                    let after = after.strip_prefix('\n').unwrap_or(after); // of a paste
                    return if after.is_empty() { None } else { self.push_quoted(after) };
                }
            }
            State::Continued => {}
        }
        match line.strip_suffix('\\') {
            Some(line) => {
                self.append(line, "\n");
                self.state = State::Continued;
                None
            }
            None => {
                self.append(line, "");
                self.finish()
            }
        }
    }

    fn push_quoted(&mut self, line: &str) -> Option<Entry> {
        match line.trim_end().strip_suffix(QUOTES) {
            Some(line) => {
                self.append(line, "");
                // Quotes in a line of their own end the line before.
                if self.text.ends_with('\n') {
                    self.text.pop();
                }
                self.finish()
            }
            None => {
                self.append(line, "\n");
                None
            }
        }
    }

    /// Whether an entry has begun.
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Empty
    }

    /// Ends the entry, complete or not; `None` if there is none.
    pub(super) fn finish(&mut self) -> Option<Entry> {
        let empty = Self::new(self.max_bytes);
        let Lines { before, text, state, is_too_long, .. } = std::mem::replace(self, empty);
        if is_too_long {
            return Some(Entry::TooLong);
        }
        if state == State::Quoted {
            return Some(if before.is_empty() { Entry::Text(text) } else { Entry::Command(before, text) });
        }
        let trimmed = text.trim();
        match trimmed.strip_prefix('/') {
            // The way to say what begins with a slash.
            Some(rest) if rest.starts_with('/') => Some(Entry::Text(rest.to_owned())),
            Some(_) => {
                let (name, arguments) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
                Some(Entry::Command(name.to_owned(), arguments.trim().to_owned()))
            }
            None if trimmed.is_empty() => None,
            None => Some(Entry::Text(trimmed.to_owned())),
        }
    }
}

/// Whether quotes after this open a text: nothing, or a command.
fn may_quote(before: &str) -> bool {
    let is_command = before.starts_with('/') && before.split_whitespace().count() == 1;
    before.trim().is_empty() || (is_command && before.ends_with(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Entry {
        Entry::Text(text.to_owned())
    }

    fn command(name: &str, arguments: &str) -> Entry {
        Entry::Command(name.to_owned(), arguments.to_owned())
    }

    fn entries(lines: &[&str]) -> Vec<Entry> {
        let mut open = Lines::new(64);
        let mut entries: Vec<Entry> = lines.iter().filter_map(|line| open.push(line)).collect();
        entries.extend(open.finish());
        entries
    }

    #[test]
    fn a_line_is_an_entry_unless_it_goes_on() {
        assert_eq!(entries(&["a", "", "  b "]), [text("a"), text("b")]);
        assert_eq!(entries(&["a \\", "b\\", "", "c"]), [text("a \nb"), text("c")]);
        assert_eq!(entries(&["a\\"]), [text("a")], "the end of input ends it");
        assert_eq!(entries(&["one\ntwo"]), [text("one\ntwo")], "as it is pasted");
    }

    #[test]
    fn between_quotes_lines_are_as_they_are() {
        let quoted = ["\"\"\"", "  a\\", "", "/help", "\"\"\"", "b"];
        assert_eq!(entries(&quoted), [text("  a\\\n\n/help"), text("b")]);
        assert_eq!(entries(&["\"\"\"a", "b\"\"\""]), [text("a\nb")]);
        assert_eq!(entries(&["\"\"\"a b\"\"\" "]), [text("a b")]);
        assert_eq!(entries(&["\"\"\"\"\"\""]), [text("")]);
        assert_eq!(entries(&["\"\"\"", "a", "", "\"\"\""]), [text("a\n")]);
        assert_eq!(entries(&["\"\"\"", "a"]), [text("a\n")], "the end of input ends it");
        assert_eq!(entries(&["\"\"\"\na\nb\n\"\"\""]), [text("a\nb")], "as it is pasted");
        assert_eq!(entries(&["say \"\"\" please"]), [text("say \"\"\" please")]);
        assert_eq!(entries(&["/system \"\"\"be", "brief\"\"\""]), [command("/system", "be\nbrief")]);
    }

    #[test]
    fn of_an_entry_that_is_too_long_the_end_is_found() {
        let long = "a".repeat(65);
        assert_eq!(entries(&[&long, "b"]), [Entry::TooLong, text("b")]);
        assert_eq!(entries(&["\"\"\"", &long, "b", "\"\"\"", "c"]), [Entry::TooLong, text("c")]);
        assert_eq!(entries(&[&format!("\"\"\"{long}\"\"\""), "c"]), [Entry::TooLong, text("c")]);
        let short = format!("{}\\", &long[..33]);
        assert_eq!(entries(&[&short, &short, "c", "d"]), [Entry::TooLong, text("d")]);
        assert_eq!(entries(&[&long[..64]]), [text(&long[..64])]);
    }

    #[test]
    fn a_slash_begins_a_command_and_two_begin_text() {
        assert_eq!(entries(&["/set temp  0.5 "]), [command("/set", "temp  0.5")]);
        assert_eq!(entries(&["/usr/bin is what?"]), [command("/usr/bin", "is what?")]);
        assert_eq!(entries(&["//usr/bin is what?"]), [text("/usr/bin is what?")]);
        assert_eq!(entries(&["/"]), [command("/", "")]);
    }
}
