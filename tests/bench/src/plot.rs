//! Plots as SVG: latency and cost against load, and ratios as bars.

use std::fmt::Write as _;

use crate::report::{Row, Spread};

/// One line of a panel.
struct Line {
    name: String,
    color: &'static str,
    dashes: &'static str,
    points: Vec<(f64, f64)>,
}

/// Latency percentiles and processor time against the rate, downlink and uplink, for every target.
pub(crate) fn svg(rows: &[Row], targets: &[&str]) -> String {
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        2.0 * PANEL_WIDTH,
        2.0 * PANEL_HEIGHT
    );
    for (column, way) in ["downlink", "uplink"].into_iter().enumerate() {
        let left = column as f64 * PANEL_WIDTH;
        let latency = lines(rows, targets, way, &["p50", "p99", "p99.9"]);
        let title = format!("{way}: latency, µs, at messages a second");
        text += &panel(&title, &latency, left, 0.0, true);
        let cost = lines(rows, targets, way, &["server"]);
        let title = format!("{way}: server processor time, µs a message");
        text += &panel(&title, &cost, left, PANEL_HEIGHT, false);
    }
    text + "</svg>\n"
}

fn lines(rows: &[Row], targets: &[&str], way: &str, metrics: &[&str]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (target, name) in targets.iter().enumerate() {
        for (metric, dashes) in metrics.iter().zip(DASHES) {
            let points = rows.iter().filter_map(|row| {
                let (of, rate) = row.point?;
                let figures = row.medians(target).ok()?;
                let figure = figures.iter().find(|m| m.name == *metric)?;
                (of == way && figure.value > 0.0).then_some((rate, figure.value))
            });
            lines.push(Line {
                name: format!("{name} {metric}"),
                color: COLORS[target % COLORS.len()],
                dashes,
                points: points.collect(),
            });
        }
    }
    lines
}

/// One pair of axes; the rate is always logarithmic.
fn panel(title: &str, lines: &[Line], left: f64, top: f64, is_log: bool) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let mut text = format!(
        "<g transform=\"translate({left},{top})\">\n<text x=\"{LEFT}\" y=\"18\" font-size=\"13\">{}</text>\n",
        escaped(title)
    );
    if points().next().is_none() {
        return text + "<text x=\"60\" y=\"60\">no figures</text>\n</g>\n";
    }
    let x = Scale::over(points().map(|p| p.0), true, LEFT, PANEL_WIDTH - RIGHT);
    let y = Scale::over(points().map(|p| p.1), is_log, PANEL_HEIGHT - BOTTOM, TOP);
    for value in x.ticks() {
        let at = x.place(value);
        let (end, below) = (PANEL_HEIGHT - BOTTOM, PANEL_HEIGHT - BOTTOM + 16.0);
        let _ = writeln!(
            text,
            "<path d=\"M{at:.1} {TOP}V{end}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{below}\" \
             text-anchor=\"middle\">{}</text>",
            short(value)
        );
    }
    for value in y.ticks() {
        let at = y.place(value);
        let (end, base) = (PANEL_WIDTH - RIGHT, at + 4.0);
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {at:.1}H{end}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{base:.1}\" \
             text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            short(value)
        );
    }
    for (n, line) in lines.iter().enumerate() {
        let path = line.points.iter().enumerate().map(|(n, (rate, value))| {
            let verb = if n == 0 { 'M' } else { 'L' };
            format!("{verb}{:.1} {:.1}", x.place(*rate), y.place(*value))
        });
        let style = format!(
            "fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{}\"",
            line.color, line.dashes
        );
        let (key, base) = (PANEL_WIDTH - RIGHT + 8.0, TOP + 16.0 * n as f64 + 8.0);
        let _ = writeln!(
            text,
            "<path d=\"{}\" {style}/><path d=\"M{key} {base}h22\" {style}/><text x=\"{}\" y=\"{}\">{}</text>",
            path.collect::<String>(),
            key + 27.0,
            base + 4.0,
            escaped(&line.name)
        );
    }
    text + "</g>\n"
}

/// Bars: how many times as much as the least. The first figure of each pair, with the spread of its rounds.
pub(crate) fn bars(title: &str, rows: &[(String, Spread)]) -> String {
    let height = BARS_TOP + BAR_STEP * rows.len() as f64 + BOTTOM;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {BARS_WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    let most = rows.iter().map(|(_, spread)| spread.greatest);
    let most = most.fold(2.0, f64::max).min(MOST_TIMES);
    let place =
        |value: f64| BARS_LEFT + value.min(most) / most * (BARS_WIDTH - BARS_LEFT - BARS_RIGHT);
    let (end, below) = (height - BOTTOM, height - BOTTOM + 16.0);
    for times in 0..=most as u32 {
        let at = place(times.into());
        let (color, width) = if times == 1 { ("#c33", 2) } else { ("#ddd", 1) };
        let _ = writeln!(
            text,
            "<path d=\"M{at:.1} {BARS_TOP}V{end}\" stroke=\"{color}\" stroke-width=\"{width}\"/>\
             <text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{times}×</text>"
        );
    }
    for (n, (name, spread)) in rows.iter().enumerate() {
        let top = BARS_TOP + BAR_STEP * n as f64 + 4.0;
        let (middle, base) = (top + 7.0, top + 11.0);
        let (least, greatest) = (place(spread.least), place(spread.greatest));
        let width = place(spread.median) - BARS_LEFT;
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{BARS_LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"14\" fill=\"#0b6\"/>\
             <path d=\"M{least:.1} {middle}H{greatest:.1}\" stroke=\"#333\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{base}\">{:.2}×</text>",
            BARS_LEFT - 8.0,
            escaped(name),
            greatest.max(place(spread.median)) + 6.0,
            spread.median
        );
    }
    text + "</svg>\n"
}

/// From figures to places.
struct Scale {
    from: f64,
    to: f64,
    is_log: bool,
    start: f64,
    end: f64,
}

impl Scale {
    /// Over round numbers that enclose the values.
    fn over(values: impl Iterator<Item = f64>, is_log: bool, start: f64, end: f64) -> Self {
        let (mut from, mut to) = values.fold((f64::MAX, 0.0_f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        if is_log {
            from = 10.0_f64.powf(from.log10().floor());
            to = 10.0_f64.powf(to.log10().ceil()).max(from * 10.0);
        } else {
            from = 0.0;
            to = (to * 1.1).max(1.0);
        }
        Self {
            from,
            to,
            is_log,
            start,
            end,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.is_log {
            true => (value / self.from).log10() / (self.to / self.from).log10(),
            false => (value - self.from) / (self.to - self.from),
        };
        self.start + share * (self.end - self.start)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let decades = (self.to / self.from).log10().round() as i32;
            return (0..=decades)
                .map(|n| self.from * 10.0_f64.powi(n))
                .collect();
        }
        let rough = self.to / 5.0;
        let decade = 10.0_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|n| n * decade);
        let step = steps
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        (0..)
            .map(|n| f64::from(n) * step)
            .take_while(|v| *v <= self.to)
            .collect()
    }
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 1e3 => format!("{} k", v / 1e3),
        v => format!("{v}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

const BARS_WIDTH: f64 = 900.0;
const BARS_LEFT: f64 = 330.0;
const BARS_RIGHT: f64 = 70.0;
const BARS_TOP: f64 = 34.0;
const BAR_STEP: f64 = 24.0;
/// A bar that is longer is cut; its number tells.
const MOST_TIMES: f64 = 6.0;
const PANEL_WIDTH: f64 = 560.0;
const PANEL_HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 140.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 30.0;
const DASHES: [&str; 3] = ["", "6 3", "2 3"];
const COLORS: [&str; 4] = ["#0b6", "#c33", "#36c", "#a6a"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_median_and_says_it() {
        let spread = Spread::of(&[1.0, 2.0, 4.0]).unwrap();
        let text = bars("a & b", &[("row".into(), spread)]);
        assert!(text.contains("a &amp; b") && text.contains(">2.00×<"));
        let half = (BARS_WIDTH - BARS_LEFT - BARS_RIGHT) / 2.0;
        assert!(text.contains(&format!("width=\"{half:.1}\"")), "{text}");
    }

    #[test]
    fn scales_enclose_their_values() {
        let log = Scale::over([30.0, 4000.0].into_iter(), true, 0.0, 3.0);
        assert_eq!(log.ticks(), [10.0, 100.0, 1000.0, 10_000.0]);
        assert!((log.place(100.0) - 1.0).abs() < 1e-9);
        let plain = Scale::over([9.0].into_iter(), false, 100.0, 0.0);
        assert_eq!(plain.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(plain.place(0.0), 100.0);
    }
}
