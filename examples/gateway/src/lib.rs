//! The gateway: a program around a [`fastsock::Bridge`] that does what a host does. It reads flags, a TOML file, `.env`
//! and the environment, logs JSON lines, and stops on signals. The binary `fastsock` and the command of the Python
//! package are both nothing but [`run`].
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![forbid(unsafe_code)]

mod admin;
mod check;
mod dead_letters;
mod descriptors;
mod dotenv;
mod flags;
mod logging;
mod manual;
mod service;
mod settings;
mod signals;
mod text;
mod top;
mod verbs;

use std::{
    cell::RefCell,
    ffi::OsString,
    io::{self, Write},
    net::TcpListener,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use fastsock::{Bridge, Error, ErrorKind, Leftover};
use tokio::runtime::{Builder, Runtime};
use tracing::{dispatcher::DefaultGuard, error, info, warn};

pub use settings::{OwnSetting, Program};

use crate::{
    descriptors::RaisedLimit,
    flags::{Action, Flags},
    logging::Logging,
    settings::{Settings, without_secrets},
    signals::Signals,
};

/// Runs the command with its arguments, of which the first is the program's name, until a signal ends it.
///
/// Reads the environment and `.env` of the working directory, writes to stdout, stderr and the log file, takes SIGTERM,
/// SIGINT, SIGHUP, SIGUSR1, SIGUSR2 and SIGXFSZ, raises the descriptor limit, logs panics. All of that is undone when it
/// returns, except that the signals stay taken (a handler that was there before is called as well), and that tracing's
/// global subscriber, if there was none, is now one that is silent. It may be run again.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match carry_out(args) {
        Ok(code) => code,
        Err(lines) => fail(&lines),
    }
}

/// The settings that only the gateway has: for hosts that read the same files and environments.
pub fn own_settings() -> &'static [OwnSetting] {
    settings::OWN_SETTINGS
}

fn carry_out(args: impl IntoIterator<Item = OsString>) -> Result<ExitCode, String> {
    let flags = Flags::parse(args)?;
    let settings = || Settings::gather(&flags, std::env::vars_os(), Path::new(""));
    Ok(match &flags.action {
        Action::Say(text) => say(text),
        Action::RedisScript => say(fastsock::REDIS_SEND_SCRIPT),
        Action::Man => say(&manual::page()),
        Action::Completions(shell) => say(&flags::completions(*shell)),
        Action::PrintConfig(form) => say(&settings()?.print(*form, flags.is_changed_only)),
        Action::Check => check(settings()),
        Action::Ask(verb) => verbs::carry_out(verb, settings()?.config())?,
        Action::Serve => serve(&settings()?, settings)?,
    })
}

fn say(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes()); // nobody reads it: nothing to do about that
    let _ = io::stdout().flush();
    ExitCode::SUCCESS
}

fn fail(lines: &str) -> ExitCode {
    for line in lines.lines() {
        let _ = writeln!(io::stderr(), "fastsock: {line}");
    }
    ExitCode::FAILURE
}

fn check(settings: Result<Settings, String>) -> ExitCode {
    let problems = ExitCode::from(PROBLEMS);
    let findings = match settings {
        Ok(settings) => check::check(&settings),
        Err(lines) => {
            fail(&lines);
            return problems;
        }
    };
    for finding in &findings {
        say(&format!("{}\n", finding.line));
    }
    match findings.iter().all(|finding| finding.is_ok) {
        true => ExitCode::SUCCESS,
        false => problems,
    }
}

/// Runs the gateway with its log.
fn serve(
    settings: &Settings,
    again: impl Fn() -> Result<Settings, String>,
) -> Result<ExitCode, String> {
    let logging = Logging::start(settings.program())
        .map_err(|e| format!("the thread that writes the log cannot be started: {e}"))?;
    let entrance = logging.entrance();
    let _entered = entrance();
    for warning in settings.warnings() {
        warn!(
            about = warning.about,
            hint = warning.hint,
            "{}",
            warning.message
        );
    }
    let _limit = RaisedLimit::raise();
    let runtime = runtime(settings.workers(), entrance)
        .map_err(|e| format!("the runtime cannot be started: {e}"))?;
    let (reopen, adjust) = (logging.reopener(), logging.adjuster());
    let reread = || {
        reopen();
        settings::reload::reload(settings, again(), &adjust)
    };
    let end = runtime.block_on(until_stopped(settings, reread));
    runtime.shutdown_timeout(THREADS_TIME);
    end.inspect_err(|line| error!(error = line, "Start failed"))
}

/// The life of the bridge: start, wait for a signal, stop.
async fn until_stopped(
    settings: &Settings,
    reread: impl Fn() -> Option<Settings>,
) -> Result<ExitCode, String> {
    let mut signals = Signals::take().map_err(|e| format!("signals cannot be taken: {e}"))?;
    let listener = service::listener()
        .map_err(|e| format!("LISTEN_FDS: the first socket is no TCP listener: {e}"))?;
    let bridge = start(settings, listener).await.map_err(|e| e.to_line())?;
    tell_ready(&bridge);
    service::ready(&format!("devices connect to {}", bridge.local_addr()));

    let reload = || {
        if let Some(settings) = reread() {
            bridge.adjust_limits(settings.config());
        }
        let bridge = bridge.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "the runtime is ours, and does not wait for it: files may hang"
        )]
        tokio::task::spawn_blocking(move || {
            let _ = bridge.reload(); // the bridge logs what came of it
        });
    };
    // Ends by a signal, or by a drain that an operator has asked for.
    let asked = tokio::select! {
        signal = signals.stop(&reload) => Some(signal),
        () = bridge.drained() => None,
        never = service::keep_alive() => never,
    };
    warn!(signal = asked, "Shutdown initiated... Exit code: 0");
    let window = match asked {
        Some("SIGTERM") => bridge.config().limits.drain_window,
        _ => Duration::ZERO,
    };
    let ending = async {
        if window > Duration::ZERO {
            bridge.drain(window).await;
        }
        bridge.stop(STOP_TIME).await
    };
    let only_reread = || drop(reread());
    tokio::select! {
        leftover = ending => tell_leftover(leftover),
        never = service::keep_alive() => never,
        never = service::keep_stopping(window + STOP_TIME + bridge.config().limits.close_timeout) => never,
        signal = signals.stop(&only_reread) => {
            error!(signal, "Shutdown cut short. Exit code: 1");
            return Ok(ExitCode::FAILURE);
        }
    }
    warn!("Shutdown complete.");
    Ok(ExitCode::SUCCESS)
}

/// Starts the bridge; without its admin listener if only the default port of that is taken.
async fn start(settings: &Settings, listener: Option<TcpListener>) -> fastsock::Result<Bridge> {
    let config = settings.config().clone();
    let again = listener.as_ref().and_then(|l| l.try_clone().ok());
    let builder = |config, listener| {
        let builder = Bridge::builder(config).process_metrics();
        match listener {
            Some(listener) => builder.listener(listener),
            None => builder,
        }
    };
    match builder(config.clone(), listener).start().await {
        Err(error) if is_default_admin_taken(settings, &error) => {
            warn!(
                error = error.to_line(),
                hint = "FASTSOCK_ADMIN_ADDR takes another address, or off",
                "Running without the admin listener"
            );
            builder(config.admin_addr(None), again).start().await
        }
        result => result,
    }
}

/// Whether a start goes on without the admin listener: nobody has asked for it at that port.
pub(crate) fn is_default_admin_taken(settings: &Settings, error: &Error) -> bool {
    error.kind() == ErrorKind::Bind
        && settings.is_default("FASTSOCK_ADMIN_ADDR")
        && error.to_string().contains("FASTSOCK_ADMIN_ADDR")
}

/// Logs that devices can connect, in the words of the original.
fn tell_ready(bridge: &Bridge) {
    let (config, addr) = (bridge.config(), bridge.local_addr());
    let url = config.remote.url.as_deref();
    info!(
        addr = %addr,
        node = bridge.node_name(),
        broker = config.redis.broker.as_str(),
        remote = url.map_or_else(|| "none".into(), without_secrets),
        routes = config.routing.routes.iter().len(),
        admin = bridge.admin_addr().map_or_else(|| "off".into(), |addr| format!("http://{addr}")),
        "WebSocket server running on {}://0.0.0.0:{}",
        if config.tls.cert.is_empty() { "ws" } else { "wss" },
        addr.port()
    );
}

fn tell_leftover(leftover: Leftover) {
    if leftover.spooled > 0 {
        info!(
            uplinks = leftover.spooled,
            "The spool keeps uplinks for the next start"
        );
    }
    if !leftover.is_empty() {
        let Leftover {
            sessions,
            uplinks,
            presence,
            events,
            ..
        } = leftover;
        error!(
            sessions,
            uplinks, presence, events, "Shutdown left something behind"
        );
    }
}

/// A runtime whose threads all log to the log.
fn runtime(
    workers: usize,
    entrance: impl Fn() -> Option<DefaultGuard> + Send + Sync + 'static,
) -> io::Result<Runtime> {
    thread_local! {
        static ENTERED: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
    }
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder
        .worker_threads(workers)
        .thread_name("fastsock")
        .on_thread_start(move || ENTERED.set(entrance()))
        .on_thread_stop(|| drop(ENTERED.take()))
        .enable_all()
        .build()
}

/// The exit code of a check that has found problems.
const PROBLEMS: u8 = 2;
/// How long a stop may take in all.
const STOP_TIME: Duration = Duration::from_secs(8);
/// How long threads that the bridge no longer needs are waited for; one may hang in a name lookup.
const THREADS_TIME: Duration = Duration::from_millis(100);
