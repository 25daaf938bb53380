//! No page names what is not there.

use std::fs;

use fastsock::Config;

use crate::pages::{all, files, root};

/// Variables of tests, not of the gateway.
const OF_TESTS: &[&str] = &["FASTSOCK_BLESS", "FASTSOCK_SEED", "FASTSOCK_SOAK_SECONDS"];

#[test]
fn every_name_in_the_pages_is_one_of_the_code() {
    let header = fs::read_to_string(root().join("include/fastsock.h")).unwrap();
    let settings = Config::settings().iter();
    let variables = settings.flat_map(|setting| {
        let file = setting
            .is_secret
            .then(|| format!("{}_FILE", setting.variable));
        [Some(setting.variable.to_owned()), file]
            .into_iter()
            .flatten()
    });
    let own = fastsock_gateway::own_settings().iter();
    let known: Vec<_> = variables
        .chain(own.map(|own| own.variable.to_owned()))
        .collect();
    let is_known = |name: &str| {
        OF_TESTS.contains(&name)
            || match name.strip_suffix('_') {
                // FASTSOCK_TLS_* and FASTSOCK_LIMIT_… are all of these.
                Some(_) => {
                    known.iter().any(|known| known.starts_with(name)) || header.contains(name)
                }
                None => known.iter().any(|known| known == name) || names(&header).contains(&name),
            }
    };
    let mut wrong = Vec::new();
    // The changelog also tells of what was.
    for page in all().iter().filter(|page| page.name != "CHANGELOG.md") {
        let unknown = names(&page.text).into_iter().filter(|name| !is_known(name));
        wrong.extend(unknown.map(|name| format!("{}: {name}", page.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_script_for_publishers_is_the_one_that_the_gateway_prints() {
    let shipped = fs::read_to_string(root().join("docs/redis/send.lua")).unwrap();
    assert_eq!(shipped, fastsock::REDIS_SEND_SCRIPT);
}

/// The words that begin with `FASTSOCK_`.
fn names(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("FASTSOCK_")).collect()
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let files = files();
    let mut wrong = Vec::new();
    for page in all().iter().filter(|page| page.name != "CHANGELOG.md") {
        for name in page
            .prose()
            .flat_map(|line| line.split('`').skip(1).step_by(2))
        {
            let name = name.trim_start_matches("./");
            let is_file = SOURCES.iter().any(|end| name.ends_with(end))
                && name
                    .chars()
                    .all(|c| c.is_alphanumeric() || "./_-".contains(c));
            let is_there = |file: &String| *file == name || file.ends_with(&format!("/{name}"));
            if is_file && !files.iter().any(is_there) {
                wrong.push(format!("{}: {name}", page.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How names of sources end. Pages name other files too, such as certificates.
const SOURCES: &[&str] = &[".rs", ".py", ".c", ".cpp", ".h", ".hpp"];

#[test]
fn the_readme_is_short_and_shows_lines_of_the_programs_it_links_to() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 120);
    for (language, program) in [
        ("rust", "examples/rust/embed.rs"),
        ("python", "examples/python/embed.py"),
        ("c", "examples/c/embed.c"),
        ("cpp", "examples/cpp/embed.cpp"),
    ] {
        let program = fs::read_to_string(root().join(program)).unwrap();
        let (_, rest) = readme.split_once(&format!("```{language}\n")).unwrap();
        let (block, _) = rest.split_once("```").unwrap();
        for line in block.lines() {
            let is_there = program.lines().any(|other| other.trim() == line.trim());
            assert!(is_there, "{language}: {line}");
        }
    }
}

#[test]
fn the_readme_has_the_defaults_of_the_code() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme
        .split_once("| variable | default | meaning |\n")
        .unwrap();
    let (table, _) = rest.split_once("\n\n").unwrap();
    let default = Config::default();
    let mut count = 0;
    for row in table.lines().skip(1) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let defaults = cells[2]
            .split(", ")
            .map(|text| text.trim_matches(['`', ',']));
        let defaults = defaults.chain(std::iter::repeat(""));
        for (variable, told) in cells[1].split(", ").zip(defaults) {
            let variable = variable.trim_matches('`');
            let own = fastsock_gateway::own_settings().iter();
            let own = own
                .filter(|own| own.variable == variable)
                .map(|own| own.default_text());
            let expected = own.chain(default.show(variable)).next();
            let expected = match variable {
                "FASTSOCK_ADMIN_ADDR" => Some("127.0.0.1:3001".into()), // the program's
                _ => expected,
            };
            assert_eq!(expected.as_deref(), Some(told), "{variable}");
            count += 1;
        }
    }
    assert!(count >= 12, "{count}");
}
