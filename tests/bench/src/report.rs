//! Tables for people, lines of JSON for programs.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use serde_json::{Map, Value, json};

/// One figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// What it is of, and in what unit: together the head of its column.
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// Digits behind the point.
    digits: usize,
    pub(crate) value: f64,
}

/// The figures of one scenario: for each target one list for each time it ran.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) table: &'static str,
    pub(crate) name: String,
    /// The way and rate it is a point of, if any.
    pub(crate) point: Option<(&'static str, f64)>,
    pub(crate) results: Vec<Vec<Result<Vec<Metric>, String>>>,
}

/// What the rounds came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// Of those that are numbers; none if there are none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        Some(Self {
            median: f64::midpoint(values[last / 2], values[last.div_ceil(2)]),
            least: values[0],
            greatest: values[last],
        })
    }
}

/// What is written while the bench runs.
#[derive(Debug)]
pub(crate) struct Journal {
    lines: File,
}

impl Metric {
    pub(crate) fn new(name: &'static str, unit: &'static str, digits: usize, value: f64) -> Self {
        Self {
            name,
            unit,
            digits,
            value,
        }
    }

    /// The head of its column.
    pub(crate) fn head(&self) -> String {
        format!("{} {}", self.name, self.unit).trim().to_owned()
    }

    fn show(&self) -> String {
        with_thousands(&format!("{:.*}", self.digits, self.value))
    }
}

impl Journal {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            lines: File::create(path)?,
        })
    }

    /// Writes one run as one line.
    pub(crate) fn note(
        &mut self,
        row: &Row,
        target: &str,
        result: &Result<Vec<Metric>, String>,
    ) -> io::Result<()> {
        let mut line = Map::new();
        line.insert("table".into(), row.table.into());
        line.insert("name".into(), row.name.as_str().into());
        line.insert("target".into(), target.into());
        match result {
            Ok(metrics) => {
                let figures = metrics.iter().map(|m| (m.head(), json!(m.value)));
                line.insert("figures".into(), Value::Object(figures.collect()));
            }
            Err(error) => {
                line.insert("error".into(), error.as_str().into());
            }
        }
        writeln!(self.lines, "{}", Value::Object(line))
    }
}

impl Row {
    /// The median of each figure of a target, or why there is none.
    pub(crate) fn medians(&self, target: usize) -> Result<Vec<Metric>, String> {
        let runs = self.results.get(target).map_or(&[][..], |runs| runs);
        let good: Vec<_> = runs.iter().filter_map(|run| run.as_ref().ok()).collect();
        let Some(first) = good.first() else {
            let error = runs.iter().find_map(|run| run.as_ref().err());
            return Err(error.map_or_else(|| "not run".into(), Clone::clone));
        };
        let median = |n: usize| {
            let mut values: Vec<f64> = good.iter().map(|run| run[n].value).collect();
            values.sort_by(f64::total_cmp);
            (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
        };
        Ok((0..first.len())
            .map(|n| Metric {
                value: median(n),
                ..first[n]
            })
            .collect())
    }

    /// One figure of a target, of every run that came to something.
    pub(crate) fn values(&self, target: usize, head: &str) -> Vec<f64> {
        let runs = self.results.get(target).map_or(&[][..], |runs| runs);
        runs.iter().filter_map(|run| value(run, head)).collect()
    }

    /// One figure of the first target by that of the second, of every round in which both came to something.
    pub(crate) fn quotients(&self, head: &str) -> Vec<f64> {
        let [ours, theirs] = &self.results[..] else {
            return Vec::new();
        };
        let rounds = ours.iter().zip(theirs);
        rounds
            .filter_map(|(ours, theirs)| Some(value(ours, head)? / value(theirs, head)?))
            .collect()
    }

    /// By figure, the ratio of the first target to the second: median, least and greatest of the pairs that ran in turn.
    fn ratios(&self) -> Option<Vec<(f64, f64, f64)>> {
        let [ours, theirs] = &self.results[..] else {
            return None;
        };
        let pairs: Vec<_> = ours
            .iter()
            .zip(theirs)
            .filter_map(|(ours, theirs)| Some((ours.as_ref().ok()?, theirs.as_ref().ok()?)))
            .collect();
        let figures = pairs.first()?.0.len();
        Some(
            (0..figures)
                .map(|n| {
                    let mut ratios: Vec<f64> = pairs
                        .iter()
                        .map(|(ours, theirs)| ours[n].value / theirs[n].value)
                        .collect();
                    ratios.sort_by(f64::total_cmp);
                    let last = ratios.len() - 1;
                    (
                        (ratios[last / 2] + ratios[last.div_ceil(2)]) / 2.0,
                        ratios[0],
                        ratios[last],
                    )
                })
                .collect(),
        )
    }
}

fn value(run: &Result<Vec<Metric>, String>, head: &str) -> Option<f64> {
    let metrics = run.as_ref().ok()?;
    let metric = metrics.iter().find(|metric| metric.head() == head)?;
    Some(metric.value)
}

/// All tables in Markdown, each with its figures for every target and, for two, their ratio.
pub(crate) fn tables(rows: &[Row], targets: &[&str]) -> String {
    let mut text = String::new();
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.table) {
            names.push(row.table);
        }
    }
    for name in names {
        let rows: Vec<_> = rows.iter().filter(|row| row.table == name).collect();
        // One table may hold figures of more than one kind.
        let mut heads: Vec<Vec<String>> = Vec::new();
        for row in &rows {
            let head = head_of(row, targets.len());
            if !head.is_empty() && !heads.contains(&head) {
                heads.push(head);
            }
        }
        let _ = writeln!(text, "### {name}\n");
        for head in &heads {
            let alike: Vec<_> = rows
                .iter()
                .copied()
                .filter(|row| head_of(row, targets.len()) == *head)
                .collect();
            text += &table(&alike, head, targets);
        }
        for row in rows {
            for (n, target) in targets.iter().enumerate() {
                if let Err(error) = row.medians(n)
                    && !row.results.get(n).is_none_or(Vec::is_empty)
                {
                    let line = error.lines().next().unwrap_or_default();
                    let _ = writeln!(text, "{} ({target}): failed, {line}\n", row.name);
                }
            }
        }
    }
    text
}

fn head_of(row: &Row, targets: usize) -> Vec<String> {
    (0..targets)
        .find_map(|n| row.medians(n).ok())
        .map(|metrics| metrics.iter().map(Metric::head).collect())
        .unwrap_or_default()
}

fn table(rows: &[&Row], head: &[String], targets: &[&str]) -> String {
    let mut lines = vec![vec![String::new()]];
    lines[0].extend(head.iter().cloned());
    for row in rows {
        for (n, target) in targets.iter().enumerate() {
            if let Ok(metrics) = row.medians(n) {
                let name = match targets.len() {
                    1 => row.name.clone(),
                    _ => format!("{}: {target}", row.name),
                };
                lines.push(
                    std::iter::once(name)
                        .chain(metrics.iter().map(Metric::show))
                        .collect(),
                );
            }
        }
        if let Some(ratios) = row.ratios() {
            lines.push(
                std::iter::once("… ratio".into())
                    .chain(ratios.into_iter().map(show_ratio))
                    .collect(),
            );
        }
    }
    aligned(&lines)
}

fn show_ratio((median, least, greatest): (f64, f64, f64)) -> String {
    if !median.is_finite() {
        return String::new();
    }
    if greatest - least < 0.005 {
        return format!("{median:.2}");
    }
    format!("{median:.2} ({least:.2}–{greatest:.2})")
}

/// A Markdown table whose columns also line up for the eye.
pub(crate) fn aligned(lines: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|n| {
            let cells = lines.iter().filter_map(|line| line.get(n));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(3)
        })
        .collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (n, width) in widths.iter().copied().enumerate() {
            let cell = line.get(n).map_or("", String::as_str);
            let _ = match n {
                0 => write!(text, "| {cell:<width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
        }
        text.push('\n');
        if number == 0 {
            for (n, width) in widths.iter().copied().enumerate() {
                let _ = match n {
                    0 => write!(text, "|{}|", "-".repeat(width + 2)),
                    _ => write!(text, "{}:|", "-".repeat(width + 1)),
                };
            }
            text.push('\n');
        }
    }
    text.push('\n');
    text
}

pub(crate) fn with_thousands(number: &str) -> String {
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut text = String::from(sign);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(results: Vec<Vec<Result<Vec<Metric>, String>>>) -> Row {
        Row {
            table: "T",
            name: "r".into(),
            point: None,
            results,
        }
    }

    fn one(value: f64) -> Result<Vec<Metric>, String> {
        Ok(vec![Metric::new("m", "µs", 1, value)])
    }

    #[test]
    fn numbers_are_read_by_thousands() {
        for (number, shown) in [
            ("1", "1"),
            ("123", "123"),
            ("1234.50", "1,234.50"),
            ("-1234567", "-1,234,567"),
        ] {
            assert_eq!(with_thousands(number), shown);
        }
    }

    #[test]
    fn ratios_are_of_runs_in_turn() {
        let row = row(vec![vec![one(1.0), one(4.0)], vec![one(2.0), one(2.0)]]);
        assert_eq!(row.ratios(), Some(vec![(1.25, 0.5, 2.0)]));
        assert_eq!(row.medians(0).unwrap()[0].value, 2.5);
    }

    #[test]
    fn what_failed_is_told_below_the_table() {
        let text = tables(
            &[row(vec![vec![one(1234.0)], vec![Err("no".into())]])],
            &["a", "b"],
        );
        assert_eq!(
            text,
            "### T\n\n|      |    m µs |\n|------|--------:|\n| r: a | 1,234.0 |\n\nr (b): failed, no\n\n"
        );
    }
}
