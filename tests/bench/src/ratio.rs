//! The first table: what a message, a handshake and a device cost beside the least that could do the job. Ratios of runs in turn say the
//! same on another machine; absolute figures do not.

use std::{
    fmt::Write as _,
    io::{self, Error},
    path::Path,
    time::Instant,
};

use crate::{
    lab::Lab,
    plot,
    report::{Journal, Metric, Row, Spread, aligned, with_thousands},
    scenario::Scenario,
    target::Target,
};

/// What is measured in turn, and which of its figures count.
pub(crate) struct Pair {
    /// What the table calls it.
    pub(crate) name: &'static str,
    pub(crate) ours: Side,
    pub(crate) beside: Side,
    pub(crate) figures: Vec<Figure>,
    /// What the metrics of one of its messages take, in µs, where that was measured.
    pub(crate) metrics_us: Option<f64>,
}

/// Who runs what.
pub(crate) struct Side {
    pub(crate) who: Who,
    pub(crate) scenario: Scenario,
}

/// A program of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// What is measured.
    This,
    /// The least that could do the whole job.
    Bare,
    /// An echo under TLS.
    TlsEcho,
}

/// One figure of a pair.
pub(crate) struct Figure {
    /// The name and unit of the metric.
    pub(crate) head: &'static str,
    /// What the table calls it.
    pub(crate) name: &'static str,
    pub(crate) digits: usize,
    /// What it must come to, as the table shows it.
    pub(crate) must: &'static str,
}

/// Targets of the three kinds.
pub(crate) struct Targets {
    this: Target,
    bare: Target,
    tls_echo: Target,
}

impl Targets {
    pub(crate) fn new(this: Target) -> io::Result<Self> {
        Ok(Self {
            this,
            bare: Target::bare("bare")?,
            tls_echo: Target::bare("tls-echo")?,
        })
    }

    fn of(&self, who: Who) -> &Target {
        match who {
            Who::This => &self.this,
            Who::Bare => &self.bare,
            Who::TlsEcho => &self.tls_echo,
        }
    }
}

/// Measures all pairs so many times: every round goes through all of them, and every other round has the sides the other way round, so that
/// neither always comes first. After each round the table is written, so that a run that is broken off leaves what it has found.
pub(crate) fn measure(
    pairs: &[Pair],
    targets: &Targets,
    rounds: usize,
    lab: &mut Lab,
    journal: &mut Journal,
    to: &Path,
    mut run: impl FnMut(&Scenario, &mut Lab, &Target) -> Result<Vec<Metric>, String>,
) -> io::Result<String> {
    let start = Instant::now();
    let mut rows: Vec<Row> = pairs.iter().map(Pair::row).collect();
    let mut text = String::new();
    for round in 0..rounds {
        for (pair, row) in pairs.iter().zip(&mut rows) {
            let mut order = [(0, &pair.ours), (1, &pair.beside)];
            if round % 2 == 1 {
                order.reverse();
            }
            for (n, side) in order {
                let target = targets.of(side.who);
                eprintln!(
                    "{:4} s  round {} of {rounds}: {} ({})",
                    start.elapsed().as_secs(),
                    round + 1,
                    side.scenario.name,
                    target.name
                );
                let result = run(&side.scenario, lab, target);
                journal.note(
                    row,
                    &format!("{}, {}", side.scenario.name, target.name),
                    &result,
                )?;
                row.results[n].push(result);
            }
        }
        text = table(pairs, &rows);
        std::fs::write(to.join("ratios.md"), &text)?;
        std::fs::write(to.join("ratios.svg"), plot::bars(BARS, &bars(pairs, &rows)))?;
    }
    Ok(text)
}

/// Takes what `make metrics-cost` has measured to the pairs that it is set beside: lines of a message and its nanoseconds.
pub(crate) fn note_metrics(pairs: &mut [Pair], lines: &str) -> io::Result<()> {
    for (message, name) in [
        ("uplink", "uplink, closed loop"),
        ("downlink", "downlink, closed loop, two workers"),
    ] {
        let of_message = |line: &str| {
            line.split_once(' ')
                .filter(|(of, _)| *of == message)?
                .1
                .parse()
                .ok()
        };
        let ns: f64 = lines
            .lines()
            .find_map(of_message)
            .ok_or_else(|| Error::other(format!("--metrics: no nanoseconds of an {message}")))?;
        if let Some(pair) = pairs.iter_mut().find(|pair| pair.name == name) {
            pair.metrics_us = Some(ns / 1000.0);
        }
    }
    Ok(())
}

impl Pair {
    fn row(&self) -> Row {
        Row {
            table: TITLE,
            name: self.name.into(),
            point: None,
            results: vec![Vec::new(); 2],
        }
    }
}

/// The ratio of the first figure of each pair, where there is one.
fn bars(pairs: &[Pair], rows: &[Row]) -> Vec<(String, Spread)> {
    let both = pairs.iter().zip(rows);
    both.filter_map(|(pair, row)| {
        let spread = Spread::of(&row.quotients(pair.figures.first()?.head))?;
        let is_cost = pair.figures[0].head.starts_with("server");
        is_cost.then(|| (pair.name.to_owned(), spread))
    })
    .collect()
}

/// One line for each figure: both sides and their ratio, each with the least and the greatest of the rounds.
fn table(pairs: &[Pair], rows: &[Row]) -> String {
    let head = ["", "this", "beside", "ratio", "must"];
    let mut lines = vec![head.map(String::from).to_vec()];
    let mut failures = String::new();
    for (pair, row) in pairs.iter().zip(rows) {
        for (n, figure) in pair.figures.iter().enumerate() {
            let name = match n {
                0 => format!("{}: {}", pair.name, figure.name),
                _ => format!("… {}", figure.name),
            };
            lines.push(vec![
                name,
                Spread::of(&row.values(0, figure.head)).show(figure.digits),
                Spread::of(&row.values(1, figure.head)).show(figure.digits),
                Spread::of(&row.quotients(figure.head)).show(2),
                figure.must.into(),
            ]);
        }
        lines.extend(pair.metrics_us.map(|us| metrics_line(us, row)));
        for (side, runs) in [&pair.ours, &pair.beside].into_iter().zip(&row.results) {
            if let Some(error) = runs.iter().find_map(|run| run.as_ref().err()) {
                let line = error.lines().next().unwrap_or_default();
                let _ = writeln!(failures, "{}: failed, {line}\n", side.scenario.name);
            }
        }
    }
    format!("### {TITLE}\n\n{}{failures}", aligned(&lines))
}

/// What its metrics take, beside all that the message takes in the rounds above.
fn metrics_line(us: f64, row: &Row) -> Vec<String> {
    let whole = row.values(0, SERVER);
    let shares: Vec<f64> = whole.iter().map(|whole| us / whole).collect();
    vec![
        "… its metrics, beside all of it, µs".into(),
        format!("{us:.3}"),
        Spread::of(&whole).show(1),
        Spread::of(&shares).show(4),
        "≤ 0.02".into(),
    ]
}

/// A spread, or a dash where there is none.
trait Show {
    fn show(&self, digits: usize) -> String;
}

impl Show for Option<Spread> {
    fn show(&self, digits: usize) -> String {
        let Some(spread) = self.filter(|s| s.greatest != 0.0) else {
            return "–".into();
        };
        let number = |value: f64| with_thousands(&format!("{value:.digits$}"));
        format!(
            "{} ({}–{})",
            number(spread.median),
            number(spread.least),
            number(spread.greatest)
        )
    }
}

/// What the plot is called.
const BARS: &str =
    "Processor time of the server, as a multiple of the least that could do it (red line)";
/// The head of the processor time of a message.
pub(crate) const SERVER: &str = "server µs each";
/// What the table is called.
pub(crate) const TITLE: &str = "Ratios";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::Metric, scenario::Scenario};

    #[test]
    fn metrics_are_set_beside_their_message() {
        let mut pairs = Scenario::pairs(None);
        note_metrics(&mut pairs, "uplink 120.0\ndownlink 2.5\n").unwrap();
        let of = |name| pairs.iter().find(|pair| pair.name == name).unwrap();
        let mut row = of("uplink, closed loop").row();
        for whole in [20.0, 24.0, 30.0] {
            row.results[0].push(Ok(vec![Metric::new("server", "µs each", 1, whole)]));
        }
        let line = metrics_line(of("uplink, closed loop").metrics_us.unwrap(), &row);
        assert_eq!(
            line[1..],
            [
                "0.120",
                "24.0 (20.0–30.0)",
                "0.0050 (0.0040–0.0060)",
                "≤ 0.02"
            ]
        );
        let downlink = of("downlink, closed loop, two workers").metrics_us;
        assert_eq!(downlink, Some(0.0025));
        assert_eq!(of("uplink at 1 k/s").metrics_us, None);
        let error = note_metrics(&mut pairs, "uplink 120.0\n").unwrap_err();
        assert!(error.to_string().contains("downlink"), "{error}");
    }

    #[test]
    fn a_spread_has_its_median_between_its_ends() {
        let spread = Spread::of(&[3.0, 1.0, f64::NAN, 2.0]);
        let expected = Spread {
            median: 2.0,
            least: 1.0,
            greatest: 3.0,
        };
        assert_eq!(spread, Some(expected));
        assert_eq!(spread.show(1), "2.0 (1.0–3.0)");
        assert_eq!(Spread::of(&[]).show(1), "–");
        assert_eq!(Spread::of(&[0.0]).show(1), "–");
    }
}
