//! `metallic serve`: a model for the clients of HTTP APIs.

use std::fs;
use std::net::{IpAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use metallic::Engine;
use metallic_server::{Access, Hosted, Options, Service, router};

use crate::args::{RateArgs, ServeArgs};
use crate::budget;
use crate::chat_template;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::{Fetcher, ModelName};
use crate::model_file::{self, Planned, SMALLER_CONTEXT};

/// Loads the model and serves it until a signal says to stop.
pub(crate) fn run(args: &ServeArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    // Before minutes are spent on a model.
    let listener = listen(args)?;
    let address = listener.local_addr().map_err(cannot_serve)?;
    let access = access(args, address.ip())?;
    let path = fetcher.locate(&args.model)?.path;
    let file = model_file::open(&path)?;
    let tokenizer = model_file::tokenizer(&file)?;
    let n_bytes = file.n_bytes();
    let template = chat_template::choose(&file, &path, args.chat_template.as_deref())?;
    let budget = budget::to_run_in(&args.engine.compute);
    let mut engine_args = args.engine.clone();
    engine_args.n_sequences = args.parallel.into();
    let (given, terminal) = (RateArgs::default(), fetcher.terminal);
    let planned = Planned::new(file, &engine_args, budget, SMALLER_CONTEXT, &given, terminal)?;
    let model = planned.load(&engine_args, terminal)?;
    let name = args.alias.clone().unwrap_or_else(|| name_of(&args.model));
    if template.is_none() {
        terminal.note(format_args!("{name} has no chat template: it continues texts, at /v1/completions"));
    }
    let template = template.map(chat_template::Chosen::into_template);
    let service =
        Service::new(
            [Hosted::new(name.clone(), Engine::new(model, tokenizer), template).file_bytes(n_bytes)],
        );

    terminal.note(format_args!("serving {name} at http://{address}/v1; Ctrl-C ends it"));
    if !args.no_web {
        terminal.note(format_args!("a page to talk with it: http://{address}/"));
    }
    let interrupt = fetcher.interrupt.clone();
    // For as long as it serves, a signal is heeded.
    let heed = fetcher.interrupt.heed();
    let drain = Duration::from_secs(args.drain.into());
    let router = router(service, Options { access, page: !args.no_web });
    let served = metallic_server::serve(listener, router, drain, move || interrupt.has_come());
    drop(heed);
    served.map_err(cannot_serve)
}

/// What clients call a model: of a file its name alone.
fn name_of(model: &ModelName) -> String {
    match model {
        ModelName::Path(path) => {
            path.file_stem().map_or_else(|| model.to_string(), |name| name.to_string_lossy().into_owned())
        }
        _ => model.to_string(),
    }
}

/// Where connections are taken.
fn listen(args: &ServeArgs) -> Result<TcpListener> {
    let failure = |error| {
        let what = format!("can't listen at {} on port {}", args.host, args.port);
        Failure::new(Kind::General, what).because(error).advice("choose another --port or --host")
    };
    let addresses = (args.host.as_str(), args.port).to_socket_addrs().map_err(failure)?;
    TcpListener::bind(&addresses.collect::<Vec<_>>()[..]).map_err(failure)
}

/// Who may ask: programs and pages of this machine, or whoever has a key.
fn access(args: &ServeArgs, address: IpAddr) -> Result<Access> {
    let mut keys = args.api_key.clone();
    if keys.iter().any(|key| key.trim().is_empty()) {
        return Err(Failure::new(Kind::Usage, "--api-key has an empty key, which everyone has"));
    }
    if let Some(path) = &args.api_key_file {
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::new(Kind::Usage, format!("can't read {}", path.display())).because(error)
        })?;
        let text = text.trim_start_matches('\u{feff}');
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        keys.extend(lines.map(str::to_owned));
    }
    if args.api_key_file.is_some() && keys.is_empty() {
        let what = "--api-key-file has no key: one stands on each line that does not begin with #";
        return Err(Failure::new(Kind::Usage, what));
    }
    if !address.is_loopback() && keys.is_empty() {
        tracing::warn!("everyone who reaches {} may ask: --api-key lets in those who have a key", args.host);
    }
    let mut access = Access { keys, origins: args.cors_origin.clone(), ..Access::default() };
    if address.is_loopback() {
        // By whatever name it was bound, and by those that it has anyway.
        let bound = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        let names = Access::local().hosts.into_iter().flatten().chain([args.host.clone(), bound]);
        access.hosts = Some(names.collect());
    }
    Ok(access)
}

fn cannot_serve(error: std::io::Error) -> Failure {
    Failure::new(Kind::General, "can't serve").because(error)
}
