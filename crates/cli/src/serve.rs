//! `metallic serve`: models for the clients of HTTP APIs.

pub(crate) mod library;

use std::fs;
use std::net::{IpAddr, TcpListener, ToSocketAddrs};
use std::sync::Mutex;
use std::time::Duration;

use metallic::loader::DEFAULT_MAX_CONTEXT;
use metallic_server::{Access, Limits, Options, Service, Terms, Wish, router};

use self::library::Models;
use crate::args::ServeArgs;
use crate::budget;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::{Fetcher, ModelName};
use crate::speculation;

/// Loads the first model and serves all until a signal says to stop.
pub(crate) fn run(args: &ServeArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    // Before minutes are spent on a model.
    let listener = listen(args)?;
    let address = listener.local_addr().map_err(cannot_serve)?;
    let access = access(args, address.ip())?;
    let terminal = fetcher.terminal;
    let ram_bytes = budget::to_run_in(&args.engine.compute).map(|budget| budget.ram_bytes);
    let n_ctx = args.engine.ctx_size.map_or(DEFAULT_MAX_CONTEXT, |n_ctx| n_ctx as usize);
    let limits = limits(args, ram_bytes, n_ctx);
    let own_bytes = limits.bytes();
    let ram_bytes = ram_bytes.map(|bytes| bytes.saturating_sub(own_bytes));
    let library = library(args, limits.bytes_of_model(n_ctx, args.parallel.into()), fetcher)?;
    let first = library.named.first().map(|(name, _)| name.clone());
    let wish = Wish { ram_bytes, n_ctx: None };
    let first = first.map(|name| library.load_first(&name, &wish)).transpose()?;
    let terms = Terms { ram_bytes, own_bytes, shrinks: args.shrink, manages: args.manage };
    let service = Service::of_library(library, terms)
        .map_err(|refused| Failure::new(Kind::General, refused.message))?;
    let what = match &first {
        Some((name, _)) if args.models().len() == 1 => name.clone(),
        _ => "the models".to_owned(),
    };
    if !service.has_models() && !is_managed(args) {
        return Err(Failure::new(Kind::NoModel, "there is no model to serve")
            .advice("name one, or with --manage let clients download them"));
    }
    if let Some((_, hosted)) = first {
        service.add(hosted);
    }

    terminal.note(format_args!("serving {what} at http://{address}/v1; Ctrl-C ends it"));
    if !args.no_web {
        terminal.note(format_args!("a page to talk and to see where the memory goes: http://{address}/"));
    }
    let interrupt = fetcher.interrupt.clone();
    // For as long as it serves, a signal is heeded.
    let heed = fetcher.interrupt.heed();
    let drain = Duration::from_secs(args.drain.into());
    let router = router(service, Options { access, limits: limits.clone(), page: !args.no_web });
    let served = metallic_server::serve(listener, router, &limits, drain, move || interrupt.has_come());
    drop(heed);
    served.map_err(cannot_serve)
}

/// Whether models may come and go.
fn is_managed(args: &ServeArgs) -> bool {
    args.manage || !args.manage_key.is_empty()
}

/// The models that were named, downloaded if need be, and what else there is.
fn library(args: &ServeArgs, request_bytes: u64, fetcher: &Fetcher<'_>) -> Result<Models> {
    if args.alias.is_some() && args.models().len() != 1 {
        return Err(Failure::new(Kind::Usage, "--alias names one model, and there must be one"));
    }
    let named = args.models().into_iter().map(|model| {
        let name = args.alias.clone().unwrap_or_else(|| name_of(model));
        Ok((name, fetcher.locate(model)?.path))
    });
    let mut engine = args.engine.clone();
    engine.n_sequences = args.parallel.into();
    Ok(Models {
        named: named.collect::<Result<_>>()?,
        folder: args.models_dir.clone(),
        has_store: is_managed(args) || (args.models().is_empty() && args.models_dir.is_none()),
        engine,
        draft: speculation::draft_file(&args.speculation, fetcher)?,
        speculation: args.speculation.clone(),
        request_bytes,
        chat_template: args.chat_template.clone(),
        terminal: fetcher.terminal.clone(),
        rates: Mutex::default(),
    })
}

/// Of the memory, one part in this many is for clients, where the flags say nothing else.
pub(crate) const CLIENTS_SHARE: u64 = 8;

/// What the flags say of how much is taken on, within the memory there is.
fn limits(args: &ServeArgs, ram_bytes: Option<u64>, n_ctx: usize) -> Limits {
    let seconds = |n: u32| Duration::from_secs(n.into());
    let unless_0 = |n: u32| (n > 0).then(|| seconds(n));
    let share = ram_bytes.map_or(u64::MAX, |bytes| bytes / CLIENTS_SHARE);
    let usual = Limits::default().within(share, n_ctx, args.parallel.into());
    Limits {
        connections: args.max_connections.map_or(usual.connections, |n| n as usize),
        idle: seconds(args.idle_timeout),
        queue: args.max_queue.map_or(usual.queue, usize::from),
        body_bytes: args.max_body.map_or(usual.body_bytes, |n| n as usize),
        prompt_tokens: args.max_prompt.map(|n| n as usize),
        first_token: unless_0(args.first_token_timeout),
        request: unless_0(args.request_timeout),
    }
}

/// What clients call a model: of a file its name alone.
pub(crate) fn name_of(model: &ModelName) -> String {
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
    if keys.iter().chain(&args.manage_key).any(|key| key.trim().is_empty()) {
        return Err(Failure::new(
            Kind::Usage,
            "--api-key or --manage-key has an empty key, which everyone has",
        ));
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
    if !address.is_loopback() && keys.is_empty() && args.manage_key.is_empty() {
        tracing::warn!("everyone who reaches {} may ask: --api-key lets in those who have a key", args.host);
    }
    let mut access = Access {
        keys,
        manage_keys: args.manage_key.clone(),
        separate_keys: args.separate_keys,
        origins: args.cors_origin.clone(),
        ..Access::default()
    };
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
