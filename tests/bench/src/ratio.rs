//! The first table: what a message, a handshake and a device cost beside the least that could do the job. Ratios of runs in turn say the
//! same on another machine; absolute figures do not.

use std::{fmt::Write as _, io, path::Path, time::Instant};

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
        for (side, runs) in [&pair.ours, &pair.beside].into_iter().zip(&row.results) {
            if let Some(error) = runs.iter().find_map(|run| run.as_ref().err()) {
                let line = error.lines().next().unwrap_or_default();
                let _ = writeln!(failures, "{}: failed, {line}\n", side.scenario.name);
            }
        }
    }
    format!("### {TITLE}\n\n{}{failures}", aligned(&lines))
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
/// What the table is called.
pub(crate) const TITLE: &str = "Ratios";

#[cfg(test)]
mod tests {
    use super::*;

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
