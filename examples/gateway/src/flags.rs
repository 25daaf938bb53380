//! The command line.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write,
    path::PathBuf,
};

use lexopt::{Arg, Parser, ValueExt};

use crate::settings::{Known, Settings};

/// What the command line asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Flags {
    /// What to do.
    pub(crate) action: Action,
    /// The TOML file of `--config`.
    pub(crate) config_file: Option<PathBuf>,
    /// The names and values of `--set` and its short forms, in order.
    pub(crate) given: Vec<(String, String)>,
    /// Whether `--json` asks for JSON.
    pub(crate) is_json: bool,
}

/// What the command does. Of several, the last one counts, but `--help` and `--version` before all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Action {
    /// Runs the gateway.
    #[default]
    Serve,
    /// Tests the settings, Redis and the remote.
    Check,
    /// Prints the settings.
    PrintConfig,
    /// Looks at dead letters of a running gateway.
    DeadLetters(Letters),
    /// Prints the version.
    Version,
    /// Prints how to use it.
    Help,
}

/// What is to be done with dead letters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Letters {
    /// A line each, the oldest uplinks first.
    List {
        /// At most so many.
        limit: usize,
    },
    /// All of one.
    Show(String),
    /// Delivers one again, or (`None`) all.
    Replay(Option<String>),
    /// Drops one, or (`None`) all.
    Drop(Option<String>),
}

impl Flags {
    /// Reads the arguments, of which the first is the program's name.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut flags = Self::default();
        flags
            .read(Parser::from_iter(args))
            .map_err(|error| format!("{error}; see fastsock --help"))?;
        Ok(flags)
    }

    fn read(&mut self, mut parser: Parser) -> Result<(), lexopt::Error> {
        let mut words = Words::default();
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("config") => self.config_file = Some(parser.value()?.into()),
                Arg::Long("set") => self.given.push(assignment(&parser.value()?.string()?)?),
                Arg::Long("port") => {
                    let port = parser.value()?.string()?;
                    self.given.push(("WEBSOCKET_PORT".into(), port));
                }
                Arg::Long("check") => self.action = Action::Check,
                Arg::Long("print-config") => self.action = Action::PrintConfig,
                Arg::Long("version") | Arg::Short('V') => {
                    self.action = Action::Version;
                    break;
                }
                Arg::Long("help") | Arg::Short('h') => {
                    self.action = Action::Help;
                    break;
                }
                Arg::Long("json") => self.is_json = true,
                Arg::Long("all") => words.is_all = true,
                Arg::Long("limit") => words.limit = Some(parser.value()?.parse()?),
                Arg::Value(word) if words.may_come(&word) => words.given.push(word.string()?),
                other => return Err(other.unexpected()),
            }
        }
        if !matches!(self.action, Action::Version | Action::Help) {
            words.apply(self)?;
        }
        Ok(())
    }
}

/// `dead-letters list`, `show ID`, … and what belongs to it, wherever on the line it is.
#[derive(Default)]
struct Words {
    given: Vec<String>,
    is_all: bool,
    limit: Option<usize>,
}

impl Words {
    /// `dead-letters`, what to do, an id.
    fn may_come(&self, word: &OsStr) -> bool {
        match self.given.len() {
            0 => word == DEAD_LETTERS,
            n => n < 3,
        }
    }

    fn apply(self, flags: &mut Flags) -> Result<(), String> {
        let words: Vec<_> = self.given.iter().map(String::as_str).collect();
        let one = |id: &str| Some(id.to_owned());
        let letters = match (words.as_slice(), self.is_all, self.limit) {
            ([], false, None) if !flags.is_json => return Ok(()),
            ([], ..) => return Err("--json, --all and --limit go with dead-letters".into()),
            ([_, "list"], false, limit) => Letters::List {
                limit: limit.unwrap_or(usize::MAX),
            },
            ([_, "show", id], false, None) => Letters::Show((*id).into()),
            ([_, "replay", id], false, None) => Letters::Replay(one(id)),
            ([_, "replay"], true, None) => Letters::Replay(None),
            ([_, "drop", id], false, None) => Letters::Drop(one(id)),
            ([_, "drop"], true, None) => Letters::Drop(None),
            _ => {
                return Err(format!(
                    "{DEAD_LETTERS}: give list, show ID, replay ID, replay --all, drop ID or drop --all"
                ));
            }
        };
        flags.action = Action::DeadLetters(letters);
        Ok(())
    }
}

const DEAD_LETTERS: &str = "dead-letters";

/// The text of `--help`: the flags, and every setting with its default.
pub(crate) fn help() -> String {
    let defaults = Settings::default();
    let mut text = USAGE.to_owned();
    for known in Known::all() {
        let default = defaults.show(known);
        let (variable, about, allowed) = (known.variable(), known.about().trim(), known.allowed());
        let _ = write!(
            text,
            "\n  {variable}={default}\n      {about}\n      Give {allowed}.\n"
        );
    }
    text
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("--set: {text:?} is not name=value"))?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

const USAGE: &str = "\
Carries messages between devices on WebSockets, Redis and an HTTP backend.

Usage: fastsock [--config FILE] [--port PORT] [--set NAME=VALUE]...
       fastsock dead-letters list [--limit N] | show ID | replay ID|--all | drop ID|--all [--json]

  --config FILE       read settings from a TOML file
  --port PORT         the same as --set websocket_port=PORT
  --set NAME=VALUE    set one setting, by its variable or by its name in TOML
  --check             test the settings and their files, ports, spool, log, Redis and the remote, then exit
  --print-config      print every setting and where it comes from, then exit
  --version, --help

dead-letters asks the running gateway, at FASTSOCK_ADMIN_ADDR and with FASTSOCK_ADMIN_TOKEN, about uplinks that it has
given up and keeps (FASTSOCK_SPOOL=disk or redis). list prints a line each, the oldest uplink first: id, client id,
reason, last status, attempts, age; --json prints a JSON object a line instead.

A flag wins over the environment, that over .env in the working directory, that over the TOML file, that over the
defaults. In TOML a setting is called as its variable, in lower case and without FASTSOCK_; sections may nest, so that
[redis] port = 6380 is redis_port. Every secret can also be given as NAME_FILE, the file that holds it.

Settings and their defaults:
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
            "--port",
            "1",
            "--check",
        ])
        .unwrap();
        let expected = Flags {
            action: Action::Check,
            config_file: Some("a.toml".into()),
            given: vec![
                ("A".into(), "b=c".into()),
                ("WEBSOCKET_PORT".into(), "1".into()),
            ],
            is_json: false,
        };
        assert_eq!(flags, expected);
    }

    #[test]
    fn dead_letters_are_listed_shown_replayed_or_dropped() {
        for (line, letters) in [
            ("dead-letters list", Letters::List { limit: usize::MAX }),
            (
                "--set a=b dead-letters list --limit 3",
                Letters::List { limit: 3 },
            ),
            ("dead-letters show 1", Letters::Show("1".into())),
            ("dead-letters replay 1", Letters::Replay(Some("1".into()))),
            ("dead-letters replay --all", Letters::Replay(None)),
            ("dead-letters drop 1", Letters::Drop(Some("1".into()))),
            ("dead-letters --all drop", Letters::Drop(None)),
        ] {
            let words: Vec<_> = line.split(' ').collect();
            let flags = parse(&words).unwrap();
            assert_eq!(flags.action, Action::DeadLetters(letters), "{line}");
            assert!(!flags.is_json && parse(&[&words[..], &["--json"]].concat()).unwrap().is_json);
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
    fn the_help_names_every_setting() {
        let text = help();
        assert!(Known::all().all(|known| text.contains(known.variable())));
    }
}
