//! The command line.

use std::{ffi::OsString, fmt::Write, path::PathBuf};

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
}

/// What the command does. Of several, the last one counts, but `--help` and `--version` before all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Action {
    /// Runs the gateway.
    #[default]
    Serve,
    /// Tests the settings, Redis and the remote.
    Check,
    /// Prints the settings.
    PrintConfig,
    /// Prints the version.
    Version,
    /// Prints how to use it.
    Help,
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
                other => return Err(other.unexpected()),
            }
        }
        Ok(())
    }
}

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

  --config FILE       read settings from a TOML file
  --port PORT         the same as --set websocket_port=PORT
  --set NAME=VALUE    set one setting, by its variable or by its name in TOML
  --check             test the settings, Redis and the remote, then exit
  --print-config      print every setting and where it comes from, then exit
  --version, --help

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
        };
        assert_eq!(flags, expected);
    }

    #[test]
    fn a_mistake_is_one_line() {
        for args in [
            &["--prot", "1"][..],
            &["--set", "x"],
            &["--config"],
            &["stray"],
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
