//! Measures a gateway from outside: memory, rates, latency, order, loss, and processor time per message.
//!
//! The generator (devices, backend and publisher on one thread), the gateways and Redis are processes of their own, so
//! that the time of each can be read apart. `docs/performance.md` says how the figures come about and what they are.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a program, and printing is what it is for"
)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![forbid(unsafe_code)]

mod bare;
mod clock;
mod fleet;
mod jwt;
mod lab;
mod load;
mod options;
mod plot;
mod poller;
mod procfs;
mod ratio;
mod report;
mod scenario;
mod target;
mod tls;
mod tls_echo;
mod wire;

use std::{
    fs,
    io::{self, Error},
    num::NonZeroU64,
    process::ExitCode,
    time::Instant,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    lab::Lab,
    options::{Options, Role},
    report::{Journal, Row},
    scenario::Scenario,
    target::Target,
};

fn main() -> ExitCode {
    let result = Options::parse(std::env::args_os()).and_then(|options| {
        raise_limit();
        match options.role {
            Role::Help => {
                print!("{}", options::USAGE);
                Ok(())
            }
            Role::Bare => bare::serve(false),
            Role::Echo => bare::serve(true),
            Role::TlsEcho => tls_echo::serve(),
            Role::Measure => measure(&options),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the scenarios one after the other, each with all targets in turn, and writes what came of it.
fn measure(options: &Options) -> io::Result<()> {
    be_punctual();
    fs::create_dir_all(&options.out)?;
    let targets = options.targets()?;
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    let mut journal = Journal::create(&options.out.join("figures.jsonl"))?;
    let mut lab = Lab::new()?;
    let mut ratios = String::new();
    if options.parts.has_ratios() {
        let mut pairs = Scenario::pairs(options.lasts);
        if let Some(metrics) = &options.metrics {
            ratio::note_metrics(&mut pairs, &fs::read_to_string(metrics)?)?;
        }
        pairs.retain(|pair| options.wants(ratio::TITLE, pair.name));
        ratios = ratio::measure(
            &pairs,
            &ratio::Targets::new(options.this()?)?,
            options.ratio_rounds(),
            &mut lab,
            &mut journal,
            &options.out,
            |scenario, lab, target| {
                lab.wait_for_quiet(options.wait)
                    .map_err(|error| error.to_string())?;
                run(scenario, lab, target)
            },
        )?;
        println!("\n{ratios}");
    }
    let mut rows = Vec::new();
    let start = Instant::now();
    let scenarios = match options.parts.has_tables() {
        true => Scenario::all(options.is_full),
        false => Vec::new(),
    };
    for scenario in scenarios {
        let scenario = scenario.lasting(options.lasts);
        if !options.wants(scenario.table, &scenario.name) {
            continue;
        }
        let mut row = Row {
            table: scenario.table,
            name: scenario.name.clone(),
            point: scenario.point(),
            results: vec![Vec::new(); targets.len()],
        };
        for _ in 0..options.table_rounds() {
            for (n, target) in targets.iter().enumerate() {
                if scenario.is_of_generator() && n > 0 {
                    continue;
                }
                eprintln!(
                    "{:4} s  {}: {} ({})",
                    start.elapsed().as_secs(),
                    scenario.table,
                    scenario.name,
                    target.name
                );
                lab.wait_for_quiet(options.wait)?;
                let result = run(&scenario, &mut lab, target);
                journal.note(&row, &target.name, &result)?;
                row.results[n].push(result);
            }
        }
        rows.push(row);
        // Also what was broken off leaves what it has found.
        fs::write(options.out.join("tables.md"), report::tables(&rows, &names))?;
        fs::write(options.out.join("plot.svg"), plot::svg(&rows, &names))?;
    }
    if rows.is_empty() && ratios.is_empty() {
        return Err(Error::other("--only chooses nothing"));
    }
    println!(
        "\n{}{} s; ratios.md, ratios.svg, tables.md, plot.svg and figures.jsonl are in {}",
        report::tables(&rows, &names),
        start.elapsed().as_secs(),
        options.out.display()
    );
    Ok(())
}

/// One that fails says why and leaves the others in peace.
fn run(scenario: &Scenario, lab: &mut Lab, target: &Target) -> Result<Vec<report::Metric>, String> {
    scenario.run(lab, target).map_err(|error| {
        eprintln!("        failed: {error}");
        lab.fleet.forget_gateway();
        error.to_string()
    })
}

/// A device takes a descriptor.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised); // what it is may be enough
}

/// Waking 50 µs late, as threads do by default, would show in every latency.
fn be_punctual() {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1000)); // only less exact without
}
