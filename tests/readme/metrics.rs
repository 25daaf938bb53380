//! docs/metrics.md says what the code has. `FASTSOCK_BLESS=1` writes it anew.

use std::{env, fmt::Write as _, fs};

use fastsock::Metric;

use crate::pages::root;

const BEGIN: &str = "<!-- metrics: written by tests/readme.rs -->\n";
const END: &str = "<!-- /metrics -->";

#[test]
fn the_metrics_page_is_that_of_the_code() {
    let path = root().join("docs/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{}{END}{after}", table());
    if env::var_os("FASTSOCK_BLESS").is_some() {
        fs::write(&path, expected).unwrap();
    } else {
        assert!(
            page == expected,
            "docs/metrics.md: run this test with FASTSOCK_BLESS=1"
        );
    }
}

fn table() -> String {
    let mut text = String::from(
        "\n| metric | kind | labels | says | worth a look when |\n|---|---|---|---|---|\n",
    );
    for metric in Metric::all() {
        let (name, kind, help) = (metric.name, metric.kind.as_str(), metric.help);
        let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        let labels = labels.join(", ");
        let _ = writeln!(
            text,
            "| `{name}` | {kind} | {labels} | {help} | {} |",
            metric.advice
        );
    }
    text + "\n"
}
