//! Ends a text at the first of some strings.

/// Looks for stop strings in text that arrives in pieces.
///
/// Text that may be the beginning of a stop string is held back until it is clear, so nothing of a stop string
/// is ever given out.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// Looks for any of `stops`. Empty strings are no stop.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        StopMatcher { stops, held: String::new(), stopped: false }
    }

    /// Takes more text. Gives the text that is surely not part of a stop string, and whether a stop string has
    /// been found; the text before it has then been given out, and nothing follows.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.stopped {
            return (String::new(), true);
        }
        self.held.push_str(text);
        let first = self.first_stop();
        // An earlier beginning could still become the first stop string.
        let undecided = undecided_from(&self.held, self.stops.iter().map(String::as_str));
        if let Some(at) = first.filter(|&at| at <= undecided) {
            self.stopped = true;
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let rest = self.held.split_off(undecided);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// Ends the text, and gives what was held back, up to a stop string if it holds one.
    pub fn finish(&mut self) -> String {
        self.stopped = true;
        let end = self.first_stop().unwrap_or(self.held.len());
        self.held.truncate(end);
        std::mem::take(&mut self.held)
    }

    fn first_stop(&self) -> Option<usize> {
        self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min()
    }
}

/// Where the longest end of a text starts that begins one of some strings, but is not all of it.
pub(super) fn undecided_from<'s>(text: &str, strings: impl Iterator<Item = &'s str> + Clone) -> usize {
    let longest = strings.clone().map(str::len).max().unwrap_or(0);
    let start = text.len().saturating_sub(longest.saturating_sub(1));
    let begins = |&at: &usize| {
        let end = text.get(at..);
        end.is_some_and(|end| {
            strings.clone().any(|string| string.len() > end.len() && string.starts_with(end))
        })
    };
    (start..text.len()).find(begins).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut out = String::new();
        let mut stopped = false;
        for piece in pieces {
            let (text, now) = matcher.push(piece);
            out += &text;
            stopped = now;
        }
        out += &matcher.finish();
        (out, stopped)
    }

    #[test]
    fn a_stop_string_ends_the_text_however_it_is_cut() {
        let text = "Hi there\n\nUser: 世界 and more";
        for stops in [&["\n\nUser:"][..], &["界", "nowhere"], &["\n\nUser", "\n\n"], &["there", "here"]] {
            let at = stops.iter().filter_map(|stop| text.find(stop)).min().unwrap();
            let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            for &a in &cuts {
                for &b in cuts.iter().filter(|&&b| b >= a) {
                    let found = run(stops, &[&text[..a], &text[a..b], &text[b..]]);
                    assert_eq!(found, (text[..at].to_owned(), true), "{stops:?} {a} {b}");
                }
            }
            let bytewise: Vec<_> = text.split_inclusive(|_: char| true).collect();
            assert_eq!(run(stops, &bytewise), (text[..at].to_owned(), true));
        }
    }

    #[test]
    fn what_only_looks_like_one_comes_out() {
        let mut matcher = StopMatcher::new(vec!["<end>".to_owned()]);
        assert_eq!(matcher.push("a<e"), ("a".to_owned(), false));
        assert_eq!(matcher.push("n"), (String::new(), false));
        assert_eq!(matcher.push("<en"), ("<en".to_owned(), false));
        assert_eq!(matcher.finish(), "<en");
        assert_eq!(run(&[], &["any", "thing"]), ("anything".to_owned(), false));
        assert_eq!(run(&[""], &["any"]), ("any".to_owned(), false));
    }

    #[test]
    fn the_first_stop_string_counts_even_if_it_ends_later() {
        // "b" is complete before "abc" is, but "abc" starts first.
        assert_eq!(run(&["b", "abc"], &["xa", "b", "cd"]), ("x".to_owned(), true));
        assert_eq!(run(&["b", "abc"], &["xa", "b", "d"]), ("xa".to_owned(), true));
        assert_eq!(run(&["b", "abc"], &["xa", "b"]).0, "xa");
    }

    #[test]
    fn nothing_follows_a_stop() {
        let mut matcher = StopMatcher::new(vec!["x".to_owned()]);
        assert_eq!(matcher.push("ax b"), ("a".to_owned(), true));
        assert_eq!(matcher.push("c"), (String::new(), true));
        assert_eq!(matcher.finish(), "");
    }
}
