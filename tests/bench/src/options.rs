//! The command line.

use std::{
    ffi::OsString,
    io::{self, Error},
    path::PathBuf,
    time::Duration,
};

use lexopt::{Arg, Parser, ValueExt};

use crate::target::Target;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) role: Role,
    /// All there is instead of a few minutes' worth.
    pub(crate) is_full: bool,
    /// Which parts are measured.
    pub(crate) parts: Parts,
    /// How often each scenario runs with each target, in turn; 0 as often as is usual.
    rounds: usize,
    /// How long loads last, if not as long as they do by default.
    pub(crate) lasts: Option<Duration>,
    /// How long to wait for a quiet machine before each run.
    pub(crate) wait: Duration,
    /// Where results go.
    pub(crate) out: PathBuf,
    /// Where `make metrics-cost` has written what metrics take.
    pub(crate) metrics: Option<PathBuf>,
    target: String,
    versus: Vec<String>,
    vars: Vec<(String, String)>,
    only: Vec<String>,
}

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// The ratios, then the tables.
    All,
    Ratios,
    Tables,
}

impl Parts {
    pub(crate) fn has_ratios(self) -> bool {
        self != Self::Tables
    }

    pub(crate) fn has_tables(self) -> bool {
        self != Self::Ratios
    }
}

/// What this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Measure,
    /// The server that does the least.
    Bare,
    /// A server that only echoes.
    Echo,
    /// The same under TLS.
    TlsEcho,
    Help,
}

impl Options {
    /// Reads the arguments, of which the first is the program's name.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> io::Result<Self> {
        let mut options = Self {
            role: Role::Measure,
            is_full: false,
            parts: Parts::All,
            rounds: 0,
            lasts: None,
            wait: Duration::ZERO,
            out: "bench-out".into(),
            metrics: None,
            target: "target/release/fastsock".into(),
            versus: Vec::new(),
            vars: Vec::new(),
            only: Vec::new(),
        };
        options
            .read(Parser::from_iter(args))
            .map_err(|error| Error::other(format!("{error}; see bench --help")))?;
        Ok(options)
    }

    /// How often each pair of the ratios runs.
    pub(crate) fn ratio_rounds(&self) -> usize {
        if self.rounds == 0 { 5 } else { self.rounds }
    }

    /// How often each scenario of the tables runs.
    pub(crate) fn table_rounds(&self) -> usize {
        match self.rounds {
            0 if self.versus.is_empty() => 1,
            0 => 2,
            rounds => rounds,
        }
    }

    fn read(&mut self, mut parser: Parser) -> Result<(), lexopt::Error> {
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Value(word) if word == "bare" => self.role = Role::Bare,
                Arg::Value(word) if word == "echo" => self.role = Role::Echo,
                Arg::Value(word) if word == "tls-echo" => self.role = Role::TlsEcho,
                Arg::Long("ratios") => self.parts = Parts::Ratios,
                Arg::Long("tables") => self.parts = Parts::Tables,
                Arg::Long("target") => self.target = parser.value()?.string()?,
                Arg::Long("vs") => self.versus.push(parser.value()?.string()?),
                Arg::Long("env") => {
                    let text = parser.value()?.string()?;
                    let (name, value) = text.split_once('=').ok_or("--env: give NAME=VALUE")?;
                    self.vars.push((name.to_owned(), value.to_owned()));
                }
                Arg::Long("only") => self.only.push(parser.value()?.string()?),
                Arg::Long("rounds") => self.rounds = parser.value()?.parse()?,
                Arg::Long("seconds") => {
                    self.lasts = Some(Duration::from_secs(parser.value()?.parse()?));
                }
                Arg::Long("wait") => self.wait = Duration::from_secs(parser.value()?.parse()?),
                Arg::Long("out") => self.out = parser.value()?.into(),
                Arg::Long("metrics") => self.metrics = Some(parser.value()?.into()),
                Arg::Long("full") => self.is_full = true,
                Arg::Long("help") | Arg::Short('h') => self.role = Role::Help,
                other => return Err(other.unexpected()),
            }
        }
        Ok(())
    }

    /// Whether a scenario is chosen.
    pub(crate) fn wants(&self, table: &str, name: &str) -> bool {
        let text = format!("{table}: {name}").to_lowercase();
        let has = |part: &String| text.contains(&part.to_lowercase());
        self.only.is_empty() || self.only.iter().any(has)
    }

    /// What is measured, the one the ratios are of first.
    pub(crate) fn targets(&self) -> io::Result<Vec<Target>> {
        let mut targets = vec![self.this()?];
        for (n, command) in self.versus.iter().enumerate() {
            let name = match n {
                _ if command == "bare" => "bare".to_owned(),
                0 => "other".to_owned(),
                n => format!("other {}", n + 1),
            };
            targets.push(self.one(&name, command)?);
        }
        Ok(targets)
    }

    /// The one that the ratios are of.
    pub(crate) fn this(&self) -> io::Result<Target> {
        self.one("this", &self.target)
    }

    fn one(&self, name: &str, command: &str) -> io::Result<Target> {
        match command {
            "bare" => Target::bare("bare"),
            command => Target::new(name, command, &self.vars),
        }
    }
}

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
Measures a gateway: memory, rates, latency, order, loss and processor time per message.

Usage: bench [--ratios | --tables] [--full] [--target COMMAND] [--vs COMMAND]... [--only TEXT]... [--env NAME=VALUE]...

  --ratios            only the first table: ratios to the least that could do the job
  --tables            only the tables behind it
  --target COMMAND    what to measure; target/release/fastsock
  --vs COMMAND        what to compare it with, in turn: any program with the nine environment variables; `bare` is the
                      least that could do the job, which is part of this program
  --env NAME=VALUE    one more variable for the targets
  --only TEXT         only scenarios whose table or name has this text
  --rounds N          how often each scenario runs; 5 for ratios, 1 for tables, 2 with --vs
  --seconds N         how long each load lasts
  --wait N            wait up to N seconds before each run until nothing else keeps the machine busy
  --full              more rates, more gateways, more devices, features one by one
  --metrics FILE      what metrics take, as `make metrics-cost` writes it: a line for an uplink and one for a downlink
  --out DIR           where ratios.md, ratios.svg, tables.md, plot.svg and figures.jsonl go; bench-out

It needs redis-server, and starts its own. Everything stays on loopback.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> io::Result<Options> {
        Options::parse(["bench"].iter().chain(args).map(OsString::from))
    }

    #[test]
    fn two_targets_run_twice() {
        let rounds = |args: &[&str]| {
            let options = parse(args).unwrap();
            (options.ratio_rounds(), options.table_rounds())
        };
        assert_eq!(rounds(&[]), (5, 1));
        assert_eq!(rounds(&["--vs", "bare"]), (5, 2));
        assert_eq!(rounds(&["--vs=bare", "--rounds=3"]), (3, 3));
        assert!(parse(&["--env", "x"]).is_err());
    }

    #[test]
    fn a_part_of_a_name_chooses() {
        let options = parse(&["--only", "UPLINK at 1"]).unwrap();
        assert!(options.wants("Messages", "uplink at 1 k/s"));
        assert!(!options.wants("Messages", "downlink at 10 k/s"));
    }
}
