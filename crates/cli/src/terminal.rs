//! What goes to the screen besides a command's output: notes, progress, colours.
//!
//! Output goes to standard output and nothing else does; notes, progress and errors go to standard
//! error. Progress is drawn on a terminal only.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::ColorChoice;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::failure::Failure;
use crate::gpu::GpuCounters;

/// How often a spinner turns.
const SPINNER_TICK: Duration = Duration::from_millis(100);

/// How long work is done before a sign of life appears that only long work needs.
const LATE: Duration = Duration::from_millis(400);

/// What the user's terminal can show and what they asked to see.
#[derive(Clone, Debug)]
pub(crate) struct Terminal {
    quiet: bool,
    colour_out: bool,
    colour_err: bool,
    safe_out: bool,
    /// Who is told of progress in place of the screen.
    watched: Option<Watched>,
}

/// Tells how far the work is whose progress a terminal would draw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched(Arc<Mutex<Option<ProgressBar>>>);

impl Watched {
    /// What is done, of how much; 0 of 0 where nothing is known.
    #[cfg(feature = "serve")]
    pub(crate) fn progress(&self) -> (u64, u64) {
        let bar = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bar.as_ref().map_or((0, 0), |bar| (bar.position(), bar.length().unwrap_or(0)))
    }
}

/// What the environment says of terminals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// `NO_COLOR` is set and not empty (no-color.org), or `CLICOLOR` is 0.
    no_colour: bool,
    /// `CLICOLOR_FORCE` is set and not 0 (bixense.com/clicolors).
    force_colour: bool,
    /// `TERM` is dumb: the terminal knows no escape sequences.
    dumb: bool,
}

impl Wishes {
    /// Those of a program's environment.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let value = |name| variable(name).filter(|value| !value.is_empty());
        Self {
            no_colour: value("NO_COLOR").is_some() || value("CLICOLOR").is_some_and(|value| value == "0"),
            force_colour: value("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
            dumb: value("TERM").is_some_and(|value| value == "dumb"),
        }
    }

    /// Whether there are colours on a stream.
    fn colours(self, choice: ColorChoice, is_terminal: bool) -> bool {
        match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => !self.no_colour && (self.force_colour || (is_terminal && !self.dumb)),
        }
    }
}

/// A text's looks, where colours are on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    /// For headings.
    Bold,
    /// For what matters less.
    Dim,
    /// For the word `error`.
    Red,
    /// For the prompt.
    Green,
}

impl Style {
    /// The SGR code (ECMA-48, 8.3.117).
    fn sgr(self) -> u8 {
        match self {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Red => 31,
            Style::Green => 32,
        }
    }
}

impl Terminal {
    /// What the flags and the environment make of the streams there are.
    pub(crate) fn new(choice: ColorChoice, wishes: Wishes, quiet: bool) -> Self {
        Terminal {
            quiet,
            colour_out: wishes.colours(choice, io::stdout().is_terminal()),
            colour_err: wishes.colours(choice, io::stderr().is_terminal()),
            safe_out: io::stdout().is_terminal(),
            watched: None,
        }
    }

    /// The same without progress on the screen, and what is told of it instead.
    #[cfg(feature = "serve")]
    pub(crate) fn watched(&self) -> (Self, Watched) {
        let watched = Watched::default();
        (Self { watched: Some(watched.clone()), ..self.clone() }, watched)
    }

    /// Whether standard error takes colours.
    pub(crate) fn colour_err(&self) -> bool {
        self.colour_err
    }

    /// The text in this style for standard output.
    pub(crate) fn paint(&self, style: Style, text: impl Display) -> String {
        paint(self.colour_out, style, text)
    }

    /// The text in this style for standard error.
    pub(crate) fn paint_err(&self, style: Style, text: impl Display) -> String {
        paint(self.colour_err, style, text)
    }

    /// A line on standard error, unless the user asked for quiet. It is a courtesy: if standard error
    /// can't be written, the work goes on.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// What the user has asked the program itself, on standard error, be it quiet or not.
    pub(crate) fn reply(&self, text: impl Display) {
        let _ = writeln!(io::stderr(), "{}", without_controls(&text.to_string()));
    }

    /// The error line.
    pub(crate) fn error(&self, failure: &Failure) {
        let _ = writeln!(io::stderr(), "{} {failure}", self.paint_err(Style::Red, "error:"));
    }

    /// What clap has to say: that a command line is wrong, or what was asked for with `--help`. Nobody is left to tell
    /// if it can't be written.
    pub(crate) fn usage(&self, message: &clap::Error) {
        let text = message.render();
        let in_colour = |colour: bool| if colour { text.ansi().to_string() } else { text.to_string() };
        let _ = if message.use_stderr() {
            io::stderr().write_all(in_colour(self.colour_err).as_bytes())
        } else {
            io::stdout().write_all(in_colour(self.colour_out).as_bytes())
        };
    }

    /// Text that a model or a file made, fit for standard output: on a terminal, control characters
    /// other than tabs and line feeds are replaced, so that no model can drive the terminal.
    pub(crate) fn safe<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.safe_out { without_controls(text) } else { Cow::Borrowed(text) }
    }

    /// A bar that counts bytes up to `total`, on a terminal.
    pub(crate) fn byte_bar(&self, label: &str, total: u64) -> ProgressBar {
        self.bar(label, total, "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
    }

    /// A bar that counts steps up to `total`, on a terminal, from before the first, which may take long.
    pub(crate) fn step_bar(&self, label: &str, total: u64) -> ProgressBar {
        let bar = self.bar(label, total, "{msg} {wide_bar} {pos}/{len} {eta}");
        bar.tick();
        bar
    }

    /// A sign of life with a count of bytes, for work of unknown length, on a terminal.
    pub(crate) fn byte_spinner(&self, label: &str) -> ProgressBar {
        ticking(self.bar(label, 0, "{spinner} {msg} {bytes} {elapsed}"))
    }

    /// A sign of life, on a terminal.
    pub(crate) fn spinner(&self, label: &str) -> ProgressBar {
        ticking(self.bar(label, 0, "{spinner} {msg} {elapsed}"))
    }

    /// A count of tokens up to `total`, on a terminal, once it takes a while; and of the kernels that are compiled
    /// meanwhile.
    pub(crate) fn token_count(&self, label: &'static str, total: u64, gpu: GpuCounters) -> ProgressBar {
        let before = gpu.n_compiled();
        let count = move |state: &ProgressState, out: &mut dyn fmt::Write| {
            if state.elapsed() >= LATE {
                let (n, total, time) = (state.pos(), state.len().unwrap_or(total), state.elapsed().as_secs());
                let kernels = match gpu.n_compiled() - before {
                    0 => String::new(),
                    n => format!(", {n} kernels compiled"),
                };
                // A line that can't be drawn is no loss.
                let _ = write!(out, "{label}: {n} of {total} tokens, {time} s{kernels}");
            }
        };
        let bar = self.bar(label, total, "{count}");
        bar.set_style(bar.style().with_key("count", count));
        ticking(bar)
    }

    fn bar(&self, label: &str, total: u64, template: &str) -> ProgressBar {
        // Hidden as well, by itself, where there is no terminal or a dumb one.
        let is_hidden = self.quiet || self.watched.is_some();
        let target = if is_hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(total), target)
            .with_style(style)
            .with_message(label.to_owned());
        if let Some(Watched(watched)) = &self.watched {
            *watched.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        }
        bar
    }
}

/// The bar with a spinner that turns by itself, if it is seen and the system has a thread for it: where that is refused,
/// the bar's own crate would panic.
fn ticking(bar: ProgressBar) -> ProgressBar {
    let has_thread = || thread::Builder::new().spawn(|| ()).is_ok_and(|thread| thread.join().is_ok());
    if !bar.is_hidden() && has_thread() {
        bar.enable_steady_tick(SPINNER_TICK);
    }
    bar
}

fn paint(colour: bool, style: Style, text: impl Display) -> String {
    if colour { format!("\x1b[{}m{text}\x1b[0m", style.sgr()) } else { text.to_string() }
}

/// The text with control characters other than tabs and line feeds replaced.
pub(crate) fn without_controls(text: &str) -> Cow<'_, str> {
    let is_unsafe = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_unsafe) {
        Cow::Owned(text.replace(is_unsafe, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A number of bytes for people: `93.8 MiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        assert_eq!(human_bytes(0), "0 B");
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(98_362_432), "93.8 MiB");
        assert_eq!(human_bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn a_model_cannot_drive_the_terminal() {
        assert_eq!(without_controls("a\tb\nc"), "a\tb\nc");
        assert_eq!(without_controls("\x1b[2Jx\u{9b}1m\r"), "\u{fffd}[2Jx\u{fffd}1m\u{fffd}");
    }

    #[test]
    fn colours_follow_the_choice_and_the_environment() {
        let wishes = |variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            };
            Wishes::of(variable)
        };
        for (variables, on_terminal, elsewhere) in [
            (&[][..], true, false),
            (&[("NO_COLOR", "")], true, false),
            (&[("NO_COLOR", "0")], false, false),
            (&[("CLICOLOR", "0")], false, false),
            (&[("CLICOLOR", "1")], true, false),
            (&[("TERM", "dumb")], false, false),
            (&[("TERM", "xterm")], true, false),
            (&[("CLICOLOR_FORCE", "1")], true, true),
            (&[("CLICOLOR_FORCE", "0")], true, false),
            (&[("CLICOLOR_FORCE", "1"), ("TERM", "dumb")], true, true),
            (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false, false),
        ] {
            let wishes = wishes(variables);
            for (choice, is_terminal, expected) in [
                (ColorChoice::Auto, true, on_terminal),
                (ColorChoice::Auto, false, elsewhere),
                (ColorChoice::Always, false, true),
                (ColorChoice::Never, true, false),
            ] {
                assert_eq!(
                    wishes.colours(choice, is_terminal),
                    expected,
                    "{variables:?} {choice} {is_terminal}"
                );
            }
        }
        let always = Terminal::new(ColorChoice::Always, Wishes::default(), false);
        assert_eq!(always.paint(Style::Bold, "x"), "\x1b[1mx\x1b[0m");
        let never = Terminal::new(ColorChoice::Never, Wishes::default(), false);
        assert_eq!(never.paint_err(Style::Red, "x"), "x");
    }
}
