//! Every link within the project leads somewhere.

use std::{collections::HashMap, fs, path::Path};

use crate::pages::{Page, all, root};

#[test]
fn every_link_and_every_anchor_is_there() {
    let pages = all();
    let anchors: HashMap<_, _> = pages
        .iter()
        .map(|page| (page.name.as_str(), anchors(page)))
        .collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in &pages {
        for link in links(page) {
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.name.clone(),
                path => {
                    let folder = Path::new(&page.name).parent().unwrap();
                    let target = root().join(folder).join(path).canonicalize().ok();
                    let target =
                        target.and_then(|t| t.strip_prefix(root()).map(Path::to_path_buf).ok());
                    let Some(target) = target else {
                        wrong.push(format!("{}: {link}: there is no such file", page.name));
                        continue;
                    };
                    target.to_str().unwrap().to_owned()
                }
            };
            let is_there = |names: &Vec<String>| names.iter().any(|name| name == anchor);
            if !anchor.is_empty() && !anchors.get(target.as_str()).is_some_and(is_there) {
                wrong.push(format!("{}: {link}: there is no such heading", page.name));
            }
        }
    }
    assert!(count > 80, "{count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_site_has_every_page_of_docs() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    for page in all() {
        let Some(name) = page.name.strip_prefix("docs/") else {
            continue;
        };
        let is_there = name == "SUMMARY.md" || summary.contains(&format!("({name})"));
        assert!(is_there, "docs/SUMMARY.md does not have {name}");
    }
}

/// Links that are no addresses of the network.
fn links(page: &Page) -> Vec<&str> {
    let of_line = |line| {
        let parts = str::split(line, "](").skip(1);
        parts.filter_map(|rest: &str| Some(rest.split_once(')')?.0))
    };
    let links = page.prose().flat_map(of_line);
    links.filter(|link| !link.contains(':')).collect()
}

/// What headings are called in links: as GitHub and mdbook do.
fn anchors(page: &Page) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for line in page.prose().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let keeps = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let name = heading.chars().filter(keeps).collect::<String>();
        let name = name.replace(' ', "-");
        let again = anchors.iter().filter(|other| **other == name).count();
        anchors.push(match again {
            0 => name,
            again => format!("{name}-{again}"),
        });
    }
    anchors
}
