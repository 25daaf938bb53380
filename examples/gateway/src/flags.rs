//! The command line.

use std::{ffi::OsString, fmt::Write, path::PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;

use crate::settings::{PrintForm, Settings, all_known, section_of};

/// What the command line asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Flags {
    /// What to do.
    pub(crate) action: Action,
    /// The TOML file of `--config`.
    pub(crate) config_file: Option<PathBuf>,
    /// The names and values of `--set` and its short forms, in order.
    pub(crate) given: Vec<(String, String)>,
    /// Whether `--changed` leaves defaults out.
    pub(crate) is_changed_only: bool,
}

/// What the command does.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Action {
    /// Runs the gateway.
    #[default]
    Serve,
    /// Tests the settings, Redis and the remote.
    Check,
    /// Prints the settings.
    PrintConfig(PrintForm),
    /// Prints the script that keeps a message in Redis.
    RedisScript,
    /// Asks a running gateway.
    Ask(Verb),
    /// Prints the man page.
    Man,
    /// Prints the completions for a shell.
    Completions(Shell),
    /// Prints this text: the help, or the version.
    Say(String),
}

/// Carries messages between devices on WebSockets, Redis and an HTTP backend.
///
/// Without a command it runs the gateway.
#[derive(Debug, Parser)]
#[command(
    name = "fastsock",
    version,
    disable_help_subcommand = true,
    subcommand_help_heading = "Commands"
)]
struct Line {
    /// Test the settings and their files, ports, spool, log, Redis and the remote, then exit
    #[arg(long, conflicts_with = "print_config", hide_short_help = true)]
    check: bool,
    /// Print every setting and where it comes from as a file, env or toml, then exit
    #[arg(long, value_name = "FORM", hide_short_help = true, num_args = 0..=1, require_equals = true, default_missing_value = "env", value_parser = form)]
    print_config: Option<PrintForm>,
    /// With --print-config: only what differs from the defaults
    #[arg(long, requires = "print_config", hide_short_help = true)]
    changed: bool,
    #[command(flatten)]
    settings: SettingFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args, Debug)]
struct SettingFlags {
    /// Read settings from a TOML file
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The same as --set websocket_port=PORT
    #[arg(long, value_name = "PORT", global = true, hide_short_help = true)]
    port: Option<String>,
    /// Set one setting, by its variable or by its name in TOML
    #[arg(long = "set", value_name = "NAME=VALUE", global = true, value_parser = assignment)]
    given: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Test the settings and their files, ports, spool, log, Redis and the remote
    Check,
    /// Print every setting and where it comes from
    Config {
        /// As a file for env or toml
        #[arg(long, default_value = "env", value_parser = form)]
        form: PrintForm,
        /// Only what differs from the defaults
        #[arg(long)]
        changed: bool,
    },
    /// Print the script that keeps a message in Redis, for EVAL (docs/mailbox.md)
    RedisScript {
        #[command(subcommand)]
        which: Script,
    },
    #[command(flatten)]
    Ask(Verb),
    /// Print the man page, for man(1)
    #[command(hide = true)]
    Man,
    /// Print what a shell needs to complete this command
    #[command(hide = true)]
    Completions {
        /// For which shell
        shell: Shell,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum Script {
    /// Keeps a message for a device and rings
    Send,
}

/// What is asked of a running gateway.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(crate) enum Verb {
    /// Show a running gateway in one look; exit 1 unless it takes devices
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the devices that are connected, or show one
    Clients {
        /// Show all of this device, connected or not
        client_id: Option<String>,
        /// List only client ids that begin so
        #[arg(long, default_value = "", conflicts_with = "client_id")]
        prefix: String,
        /// List at most so many
        #[arg(long, conflicts_with = "client_id")]
        limit: Option<usize>,
        /// Print a JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Send a message to a device
    Send {
        /// To whom
        client_id: String,
        /// The message; read from standard input when it is not given
        message: Option<String>,
        /// Send what is read as it is, as BINARY unless it is UTF-8
        #[arg(long, conflicts_with = "message")]
        raw: bool,
    },
    /// Send a message to a device and print its answer
    Call {
        /// Whom to ask
        client_id: String,
        /// The message
        message: String,
        /// The answer is the CALLRESULT or CALLERROR of the OCPP CALL that the message is
        #[arg(long, required_unless_present = "match", conflicts_with = "match")]
        ocpp: bool,
        /// The answer has this JSON value at this JSON pointer: --match /id 7
        #[arg(long, num_args = 2, value_names = ["POINTER", "VALUE"])]
        r#match: Vec<String>,
        /// Wait for so many milliseconds
        #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
        timeout: u64,
    },
    /// Close the session of a device with 4510
    Kick {
        /// Whose
        client_id: String,
    },
    /// Take no new devices, close those that are connected over a window, and stop
    Drain {
        /// The window, such as 30s; without it FASTSOCK_DRAIN_WINDOW counts
        #[arg(long)]
        window: Option<String>,
    },
    /// Watch a gateway: rates, latencies, slowest devices, Redis, backend
    Top {
        /// Look so often, in seconds
        #[arg(long, default_value_t = 2.0)]
        every: f64,
        /// Look so many times, then exit; 0: until Ctrl-C
        #[arg(long, default_value_t = 0)]
        count: u64,
    },
    /// Follow what happens to one device, a line an event, until Ctrl-C
    Trace {
        /// Which device
        client_id: String,
        /// Show payloads, too
        #[arg(long)]
        payloads: bool,
        /// Print a JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Look at uplinks that were given up and kept; replay or drop them
    DeadLetters {
        #[command(subcommand)]
        asked: Letters,
        /// Print a JSON object a line
        #[arg(long, global = true)]
        json: bool,
    },
}

/// What is to be done with dead letters.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(crate) enum Letters {
    /// A line each, the oldest uplink first: id, client id, reason, last status, attempts, age
    List {
        /// At most so many
        #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
        limit: usize,
    },
    /// All of one
    Show {
        /// Its id
        id: String,
    },
    /// Deliver one again, or all
    Replay(Which),
    /// Drop one for good, or all
    Drop(Which),
}

/// One dead letter, or all.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Its id
    pub(crate) id: Option<String>,
    /// All there are now
    #[arg(long)]
    all: bool,
}

impl Flags {
    /// Reads the arguments, of which the first is the program's name.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let matches = command().try_get_matches_from(args);
        let line = match matches.and_then(|matches| Line::from_arg_matches(&matches)) {
            Ok(line) => line,
            Err(error) => return text_of(&error).map(Self::saying),
        };
        let SettingFlags {
            config,
            port,
            given,
        } = line.settings;
        let port = port.map(|port| ("WEBSOCKET_PORT".to_owned(), port));
        let mut is_changed_only = line.changed;
        let action = match (line.command, line.print_config) {
            (Some(Command::Ask(verb)), _) => Action::Ask(verb),
            (Some(Command::Check), _) => Action::Check,
            (Some(Command::Config { form, changed }), _) => {
                is_changed_only = changed;
                Action::PrintConfig(form)
            }
            (
                Some(Command::RedisScript {
                    which: Script::Send,
                }),
                _,
            ) => Action::RedisScript,
            (Some(Command::Man), _) => Action::Man,
            (Some(Command::Completions { shell }), _) => Action::Completions(shell),
            (None, Some(form)) => Action::PrintConfig(form),
            (None, None) if line.check => Action::Check,
            (None, None) => Action::Serve,
        };
        Ok(Self {
            action,
            config_file: config,
            given: given.into_iter().chain(port).collect(),
            is_changed_only,
        })
    }

    fn saying(text: String) -> Self {
        Self {
            action: Action::Say(text),
            ..Self::default()
        }
    }
}

/// The command line as clap knows it: for the man page and the completions, too.
pub(crate) fn command() -> clap::Command {
    Line::command().after_long_help(long_help())
}

/// What a shell needs to complete the command.
pub(crate) fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Line::command(), "fastsock", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// What is asked for as text, or a mistake as one line.
fn text_of(error: &clap::Error) -> Result<String, String> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(error.to_string()),
        _ => {
            let text = error.to_string();
            let paragraph = text.split("\n\n").next().unwrap_or_default();
            let words: Vec<_> = paragraph.split_whitespace().collect();
            let line = words.join(" ");
            let line = line.strip_prefix("error: ").unwrap_or(&line);
            Err(format!("{line}; see fastsock --help"))
        }
    }
}

fn long_help() -> String {
    let defaults = Settings::default();
    let mut text = format!("{AFTER_HELP}\n\n{ORDER}");
    let mut section = "";
    for known in all_known() {
        if section_of(known) != section {
            section = section_of(known);
            let _ = write!(text, "\n{section}:\n");
        }
        let default = defaults.show(known);
        let (variable, about, allowed) = (known.variable(), known.about().trim(), known.allowed());
        let _ = write!(
            text,
            "\n  {variable}={default}\n      {about}\n      Give {allowed}.\n"
        );
    }
    text
}

fn form(word: &str) -> Result<PrintForm, String> {
    PrintForm::parse(word).ok_or_else(|| "give env or toml".into())
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not name=value"))?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

pub(crate) const AFTER_HELP: &str = "\
status, clients, send, call, kick, drain, top, trace and dead-letters ask the running gateway at FASTSOCK_ADMIN_ADDR,
with FASTSOCK_ADMIN_TOKEN. --help shows every setting; man fastsock has all of it.";

pub(crate) const ORDER: &str = "\
A flag wins over the environment, that over .env in the working directory, that over the TOML file, that over the
defaults. In TOML a setting is called as its variable, in lower case and without FASTSOCK_; sections may nest, so that
[redis] port = 6380 is redis_port. Every secret can also be given as NAME_FILE, the file that holds it.

These are the settings with their defaults.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, String> {
        Flags::parse(["fastsock"].iter().chain(args).map(OsString::from))
    }

    #[test]
    fn flags_are_read_in_order() {
        let flags = parse(&[
            "--config=a.toml",
            "--set",
            "A=b=c",
            "--set",
            " B = d",
            "--port",
            "1",
            "--check",
        ]);
        let given = [("A", "b=c"), ("B", " d"), ("WEBSOCKET_PORT", "1")];
        let expected = Flags {
            action: Action::Check,
            config_file: Some("a.toml".into()),
            given: given
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            is_changed_only: false,
        };
        assert_eq!(flags, Ok(expected));
        assert_eq!(parse(&["check"]).unwrap().action, Action::Check);
        for (args, form, is_changed_only) in [
            (&["config"][..], "env", false),
            (&["config", "--form", "toml", "--changed"], "toml", true),
            (&["--print-config"], "env", false),
            (&["--print-config=toml", "--changed"], "toml", true),
        ] {
            let flags = parse(args).unwrap();
            let expected = Action::PrintConfig(PrintForm::parse(form).unwrap());
            assert_eq!(
                (flags.action, flags.is_changed_only),
                (expected, is_changed_only)
            );
        }
        let script = parse(&["redis-script", "send"]).unwrap().action;
        assert_eq!(script, Action::RedisScript);
        assert_eq!(parse(&["man"]).unwrap().action, Action::Man);
        let completions = parse(&["completions", "zsh"]).unwrap().action;
        assert_eq!(completions, Action::Completions(Shell::Zsh));
        assert_eq!(parse(&[]).unwrap().action, Action::Serve);
    }

    #[test]
    fn a_running_gateway_is_asked_by_verbs() {
        let which = |id: Option<&str>| Which {
            id: id.map(Into::into),
            all: id.is_none(),
        };
        let letters = |asked, json| Verb::DeadLetters { asked, json };
        let id = || "1".to_owned();
        for (line, verb) in [
            ("status --json", Verb::Status { json: true }),
            (
                "clients",
                Verb::Clients {
                    client_id: None,
                    prefix: String::new(),
                    limit: None,
                    json: false,
                },
            ),
            (
                "clients --prefix a --limit 3 --json",
                Verb::Clients {
                    client_id: None,
                    prefix: "a".into(),
                    limit: Some(3),
                    json: true,
                },
            ),
            (
                "clients dev1",
                Verb::Clients {
                    client_id: Some("dev1".into()),
                    prefix: String::new(),
                    limit: None,
                    json: false,
                },
            ),
            (
                "send dev1 hello",
                Verb::Send {
                    client_id: "dev1".into(),
                    message: Some("hello".into()),
                    raw: false,
                },
            ),
            (
                "send dev1 --raw",
                Verb::Send {
                    client_id: "dev1".into(),
                    message: None,
                    raw: true,
                },
            ),
            (
                "call dev1 hello --match /id 7",
                Verb::Call {
                    client_id: "dev1".into(),
                    message: "hello".into(),
                    ocpp: false,
                    r#match: vec!["/id".into(), "7".into()],
                    timeout: 30_000,
                },
            ),
            (
                "call dev1 [2] --ocpp --timeout 50",
                Verb::Call {
                    client_id: "dev1".into(),
                    message: "[2]".into(),
                    ocpp: true,
                    r#match: Vec::new(),
                    timeout: 50,
                },
            ),
            (
                "kick dev1",
                Verb::Kick {
                    client_id: "dev1".into(),
                },
            ),
            (
                "drain --window 30s",
                Verb::Drain {
                    window: Some("30s".into()),
                },
            ),
            (
                "top --every 0.5 --count 1",
                Verb::Top {
                    every: 0.5,
                    count: 1,
                },
            ),
            (
                "trace dev1 --payloads",
                Verb::Trace {
                    client_id: "dev1".into(),
                    payloads: true,
                    json: false,
                },
            ),
            (
                "dead-letters list",
                letters(Letters::List { limit: usize::MAX }, false),
            ),
            (
                "--set a=b dead-letters list --limit 3 --json",
                letters(Letters::List { limit: 3 }, true),
            ),
            (
                "dead-letters --json show 1",
                letters(Letters::Show { id: id() }, true),
            ),
            (
                "dead-letters replay 1",
                letters(Letters::Replay(which(Some("1"))), false),
            ),
            (
                "dead-letters replay --all",
                letters(Letters::Replay(which(None)), false),
            ),
            (
                "dead-letters drop 1",
                letters(Letters::Drop(which(Some("1"))), false),
            ),
            (
                "dead-letters drop --all --port 1",
                letters(Letters::Drop(which(None)), false),
            ),
        ] {
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(parse(&words).unwrap().action, Action::Ask(verb), "{line}");
        }
    }

    #[test]
    fn a_mistake_is_one_line() {
        for args in [
            &["--prot", "1"][..],
            &["--set", "x"],
            &["--config"],
            &["stray"],
            &["--json"],
            &["--all"],
            &["--limit", "1"],
            &["--check", "--print-config"],
            &["--print-config=yaml"],
            &["--changed"],
            &["redis-script"],
            &["redis-script", "drop"],
            &["completions"],
            &["completions", "cmd"],
            &["clients", "dev1", "--prefix", "a"],
            &["send"],
            &["call", "dev1", "x"],
            &["call", "dev1", "x", "--match", "/id"],
            &["call", "dev1", "x", "--ocpp", "--match", "/id", "7"],
            &["call", "dev1", "x", "--ocpp", "--timeout", "0"],
            &["kick"],
            &["dead-letters"],
            &["dead-letters", "list", "1"],
            &["dead-letters", "list", "--limit", "x"],
            &["dead-letters", "list", "--all"],
            &["dead-letters", "show"],
            &["dead-letters", "show", "1", "2"],
            &["dead-letters", "show", "--all"],
            &["dead-letters", "replay"],
            &["dead-letters", "drop"],
            &["dead-letters", "drop", "1", "--all"],
            &["dead-letters", "drop", "1", "--limit", "1"],
            &["dead-letters", "bury", "1"],
        ] {
            let line = parse(args).unwrap_err();
            assert!(
                !line.contains('\n') && line.ends_with("see fastsock --help"),
                "{line}"
            );
        }
    }

    #[test]
    fn the_long_help_names_every_setting_and_the_short_one_fits_a_screen() {
        let said = |args: &[&str]| match parse(args).unwrap().action {
            Action::Say(text) => text,
            action => panic!("{action:?}"),
        };
        let long = said(&["--help"]);
        assert!(all_known().all(|known| long.contains(known.variable())));
        let short = said(&["-h"]);
        assert!((20..24).contains(&short.lines().count()), "{short}");
        let (mut rest, mut section) = (long.as_str(), "");
        for known in all_known() {
            if section_of(known) != section {
                section = section_of(known);
                rest = rest.split_once(&format!("\n{section}:\n")).unwrap().1;
            }
            let line = format!("\n  {}=", known.variable());
            rest = rest.split_once(&line).unwrap().1;
        }
        assert!(said(&["dead-letters", "--help"]).contains("replay"));
        assert_eq!(
            said(&["-V"]),
            concat!("fastsock ", env!("CARGO_PKG_VERSION"), "\n")
        );
        Line::command().debug_assert();
    }
}
