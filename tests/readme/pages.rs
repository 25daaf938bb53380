//! The pages of the project.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the project is.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap()
}

/// A page of the project.
pub(crate) struct Page {
    /// Where it is, from the root.
    pub(crate) name: String,
    /// What is in it.
    pub(crate) text: String,
}

/// Every page of the project, but not those of what it builds.
pub(crate) fn all() -> Vec<Page> {
    let names = files().into_iter().filter(|name| name.ends_with(".md"));
    let pages = names.map(|name| Page {
        text: fs::read_to_string(root().join(&name)).unwrap(),
        name,
    });
    let pages: Vec<_> = pages.collect();
    assert!(pages.len() > 15, "{}", pages.len());
    pages
}

/// Every file and, with a slash at its end, every folder of the project.
pub(crate) fn files() -> Vec<String> {
    let mut files = Vec::new();
    gather(&root(), "", &mut files);
    files
}

fn gather(directory: &Path, from_root: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !path.is_dir() {
            files.push(format!("{from_root}{name}"));
        } else if !name.starts_with(['.', '_']) && !BUILT.contains(&name) {
            let from_root = format!("{from_root}{name}/");
            gather(&path, &from_root, files);
            files.push(from_root);
        }
    }
}

/// Folders of what is built, installed or found.
const BUILT: &[&str] = &[
    "target",
    "dist",
    "bench-out",
    "corpus",
    "artifacts",
    "node_modules",
];

/// The block of code that follows a mark in a page.
pub(crate) fn block(page: &str, mark: &str, language: &str) -> String {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let (_, rest) = text.split_once(mark).unwrap();
    let (_, rest) = rest.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

impl Page {
    /// Its lines outside of blocks of code.
    pub(crate) fn prose(&self) -> impl Iterator<Item = &str> {
        let mut is_code = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
    }
}
