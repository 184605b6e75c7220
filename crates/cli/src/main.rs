//! The command `metallic`: runs GGUF language models from the terminal.
//!
//! `args` is the command line; each command is a file of its own; `fetch` knows models by name. This
//! is the only crate that reads arguments and the environment.
#![forbid(unsafe_code)]

mod align;
mod args;
#[cfg(feature = "serve")]
mod batch;
mod bench;
mod budget;
mod chat;
mod chat_template;
mod completions;
mod cost;
mod failure;
mod fetch;
#[cfg_attr(not(feature = "gpu"), path = "no_gpu.rs")]
mod gpu;
mod input;
mod inspect;
mod interrupt;
#[cfg(feature = "gpu")]
mod kernel_store;
mod logits;
mod memory;
mod model_file;
mod models;
mod output_file;
mod perplexity;
mod placing;
mod plan;
mod prompt_cache;
mod pull;
mod question;
mod rates;
mod rm;
mod run;
mod sampling_args;
#[cfg(feature = "serve")]
mod serve;
mod session;
mod settings;
mod show;
mod size;
mod speculation;
mod speech;
mod table;
mod terminal;
mod tokenize;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::panic;
use std::process::ExitCode;

use tracing::level_filters::LevelFilter;

use crate::args::{Cli, Command, GlobalArgs};
use crate::failure::Result;
use crate::fetch::Fetcher;
use crate::interrupt::Interrupt;
use crate::terminal::{Terminal, Wishes};

fn main() -> ExitCode {
    report_panics_in_a_line();
    let args: Vec<OsString> = env::args_os().collect();
    let wishes = Wishes::of(|name| env::var_os(name));
    let Cli { global, command } = match Cli::read(&args) {
        Ok(cli) => cli,
        Err(message) => {
            Terminal::new(args::colour_choice(&args), wishes, false).usage(&message);
            return ExitCode::from(message.exit_code() as u8);
        }
    };
    let terminal = Terminal::new(global.color, wishes, global.quiet);
    start_logging(&global, &terminal);
    match execute(command, &terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                terminal.error(&failure);
            }
            failure.exit_code()
        }
    }
}

fn execute(command: Command, terminal: &Terminal) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let fetcher = Fetcher::new(terminal, &interrupt);
    match &command {
        Command::Run(args) => run::run(args, &fetcher),
        Command::Chat(args) => chat::run(args, &fetcher),
        Command::Inspect(args) => inspect::run(args, &fetcher),
        Command::Tokenize(args) => tokenize::run(args, &fetcher),
        Command::Logits(args) => logits::run(args, &fetcher),
        Command::Perplexity(args) => perplexity::run(args, &fetcher),
        Command::Bench(args) => bench::run(args, &fetcher),
        Command::Plan(args) => plan::run(args, &fetcher),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args, &fetcher),
        #[cfg(feature = "serve")]
        Command::Batch(args) => batch::run(args, &fetcher),
        Command::Devices(args) => gpu::run(args, terminal),
        Command::Align(args) => align::run(args, &fetcher),
        Command::Pull(args) => pull::run(args, &fetcher),
        Command::Models(args) => models::run(args, terminal),
        Command::Show(args) => show::run(args, &fetcher),
        Command::Rm(args) => rm::run(args),
        Command::Completions(args) => completions::run(args),
    }
}

/// Logs to standard error: warnings unless quiet is asked for, and more with each `-v`.
fn start_logging(global: &GlobalArgs, terminal: &Terminal) {
    let level = match global.verbose {
        0 if global.quiet => LevelFilter::ERROR,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(terminal.colour_err())
        .with_target(global.verbose > 1)
        .without_time()
        .init();
}

/// A panic is a bug of ours: one line says so, unless a backtrace was asked for.
fn report_panics_in_a_line() {
    if env::var_os("RUST_BACKTRACE").is_none_or(|value| value == "0") {
        panic::set_hook(Box::new(|info| {
            let line = failure::one_line(&info.to_string());
            let _ = writeln!(
                io::stderr(),
                "error: a bug in metallic: {line}: please report it, \
                                            with what RUST_BACKTRACE=1 adds to this line"
            );
        }));
    }
}
