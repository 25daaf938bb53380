//! The layers that ARCHITECTURE.md draws are those of the code: no file of the core imports from a room to the right of its own, and
//! there is no circle, neither between rooms nor between the files of a room.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// What each file imports: module to modules, both as they are named below `crate`.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_import_goes_up() {
    let order = rooms();
    let place = |module: &str| {
        let room = room(module);
        let place = order.iter().position(|known| known == room);
        place.unwrap_or_else(|| panic!("ARCHITECTURE.md does not say in which layer {room} is"))
    };
    let mut up = Vec::new();
    for (from, to) in imports(CORE) {
        let rooms_apart = to.iter().filter(|to| room(to) != room(&from));
        let wrong = rooms_apart.filter(|to| place(to) >= place(&from));
        up.extend(wrong.map(|to| format!("{from} imports {to}")));
    }
    assert!(
        up.is_empty(),
        "a room may import only from those before it: {up:#?}"
    );
}

#[test]
fn no_import_goes_in_a_circle() {
    for of_crate in [CORE, "fastsock-ffi", "fastsock-py"] {
        let circles = circles(&imports(of_crate));
        assert!(
            circles.is_empty(),
            "{of_crate}: these files import each other: {circles:#?}"
        );
    }
}

#[test]
fn every_room_that_is_drawn_is_there() {
    let modules: BTreeSet<String> = imports(CORE).into_keys().collect();
    let missing: Vec<_> = rooms()
        .into_iter()
        .filter(|drawn| !is_beside(drawn) && !modules.iter().any(|module| room(module) == drawn))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_is_imported_is_found() {
    let modules = ["a", "a::b", "a::b::c", "d", "e"].map(String::from).into();
    let found = |source: &str| {
        let mut found: Vec<_> = imports_of("a::b", source, &modules).into_iter().collect();
        found.sort();
        found.join(" ")
    };
    assert_eq!(found("use crate::{a::X, d::{self, Y as Z}};"), "a d");
    assert_eq!(found("use super::X; use super::super::e;"), "a e");
    assert_eq!(
        found("fn f() { c::g(); self::c::g(crate::d::H {}) }"),
        "a::b::c d"
    );
    assert_eq!(
        found("// crate::d\n/* crate::d */ const S: &str = \"crate::d\";"),
        ""
    );
    assert_eq!(
        found("const C: char = '\"'; use crate::d; const R: &str = r#\"\"crate::e\"#;"),
        "d"
    );
    assert_eq!(
        found("#[cfg(test)]\nmod tests { use crate::d; mod m {} }\nuse crate::e;"),
        "e"
    );
    assert_eq!(
        found("#[cfg(test)] use crate::{d};\nfn f<'a>(x: &'a crate::e::E) {}"),
        "e"
    );
    let circle = [
        ("a", "b"),
        ("b", "c"),
        ("c", "a"),
        ("c", "d"),
        ("a::x", "a"),
    ];
    let mut imports = Imports::new();
    for (from, to) in circle {
        imports.entry(from.into()).or_default().insert(to.into());
    }
    assert_eq!(circles(&imports), [["a", "b", "c"]]);
}

/// The rooms, in the order of their layers: what stands at the head of each line of the drawing.
fn rooms() -> Vec<String> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("## Layers of the core").nth(1).unwrap();
    let drawing = section.split("```").nth(1).unwrap();
    let heads = drawing
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_alphabetic()))
        .map(|line| line.split("  ").next().unwrap());
    heads
        .flat_map(|head| head.split(", "))
        .map(str::to_owned)
        .collect()
}

/// All of a crate, but tests and what only drives it.
fn imports(of_crate: &str) -> Imports {
    let src = root().join(of_crate).join("src");
    let mut sources = BTreeMap::new();
    read(&src, &src, &mut sources);
    sources.retain(|module, _| {
        module != "lib"
            && !is_beside(room(module))
            && !module.split("::").any(|part| part == "tests")
    });
    let modules = sources.keys().cloned().collect();
    sources
        .iter()
        .map(|(module, source)| (module.clone(), imports_of(module, source, &modules)))
        .collect()
}

fn read(dir: &Path, src: &Path, sources: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, src, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(src).unwrap().with_extension("");
            let parts: Vec<_> = name.iter().map(|part| part.to_str().unwrap()).collect();
            let module = parts.join("::");
            let module = module.strip_suffix("::mod").unwrap_or(&module);
            sources.insert(module.to_owned(), fs::read_to_string(&path).unwrap());
        }
    }
}

/// The modules that one imports, or names in its code.
fn imports_of(module: &str, source: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let tokens = without_tests(&tokens(source));
    let mut found = BTreeSet::new();
    for at in 0..tokens.len() {
        let is_start = at == 0 || tokens[at - 1] != "::";
        if !is_start || tokens.get(at + 1).is_none_or(|next| next != "::") {
            continue;
        }
        let base = match tokens[at].as_str() {
            "crate" => String::new(),
            "self" => module.to_owned(),
            "super" => parent(module).to_owned(),
            name if modules.contains(&join(module, name)) => join(module, name),
            _ => continue,
        };
        let mut paths = Vec::new();
        walk(&tokens, &mut (at + 2), base, &mut paths);
        found.extend(paths.iter().filter_map(|path| file_of(path, modules)));
    }
    found.remove(module);
    found
}

/// Follows a path from behind its `::` on, into all branches of a tree.
fn walk(tokens: &[String], at: &mut usize, base: String, paths: &mut Vec<String>) {
    match tokens.get(*at).map(String::as_str) {
        Some("{") => {
            *at += 1;
            while tokens.get(*at).is_some_and(|token| token != "}") {
                if tokens[*at] == "," {
                    *at += 1;
                } else {
                    walk(tokens, at, base.clone(), paths);
                }
            }
            *at += 1;
        }
        Some(name) => {
            let path = match name {
                "super" => parent(&base).to_owned(),
                "self" | "*" => base,
                name => join(&base, name),
            };
            *at += 1;
            match tokens.get(*at).map(String::as_str) {
                Some("::") => {
                    *at += 1;
                    walk(tokens, at, path, paths);
                }
                Some("as") => {
                    *at += 2;
                    paths.push(path);
                }
                _ => paths.push(path),
            }
        }
        None => {}
    }
}

/// The file in which a path ends: the longest part of it that is one.
fn file_of(path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut path = path;
    while !path.is_empty() && !modules.contains(path) {
        path = parent(path);
    }
    (!path.is_empty()).then(|| path.to_owned())
}

/// Words, `::` and other signs; no comments, and of literals only that they are there.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").unwrap() + 2
        } else if let Some(length) = raw_string(rest).or_else(|| quoted(rest)) {
            tokens.push("\"\"".to_owned());
            length
        } else if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` at the start of a text.
fn raw_string(text: &str) -> Option<usize> {
    let start = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    let body = start[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).expect("it ends") + end.len();
    Some(text.len() - body.len() + length)
}

/// The length of a string or a character at the start of a text. A lifetime is neither.
fn quoted(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    let mut characters = text.char_indices().skip(1);
    let mut length = 0;
    while let Some((at, character)) = characters.next() {
        length += 1;
        match character {
            '\\' => {
                characters.next();
                length = usize::MAX / 2; // so it is no lifetime
            }
            c if c == quote => return Some(at + 1),
            _ if quote == '\'' && length == 2 => return None,
            _ => {}
        }
    }
    None
}

/// Leaves out what is there only for tests.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().take(mark.len()).eq(mark.iter()) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        loop {
            at += 1;
            match tokens.get(at).map(String::as_str) {
                Some("{") => depth += 1,
                Some("}") if depth == 1 => break,
                Some("}") => depth -= 1,
                Some(";") if depth == 0 => break,
                Some(_) => {}
                None => return kept,
            }
        }
        at += 1;
    }
    kept
}

/// Files that reach each other. That a file imports from the one that declares it makes none: they are one noun.
fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let reached_from = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut next = vec![from.to_owned()];
        while let Some(module) = next.pop() {
            let to = imports.get(&module).into_iter().flatten();
            let to = to.filter(|to| !module.starts_with(&format!("{to}::")));
            next.extend(to.filter(|to| reached.insert((*to).clone())).cloned());
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<String>> = imports
        .keys()
        .map(|from| (from.as_str(), reached_from(from)))
        .collect();
    let circle = |module: &str| -> Vec<String> {
        let there = reached[module].iter();
        let and_back = there.filter(|other| {
            reached
                .get(other.as_str())
                .is_some_and(|back| back.contains(module))
        });
        and_back.cloned().collect()
    };
    let circles: BTreeSet<_> = reached.keys().map(|module| circle(module)).collect();
    circles
        .into_iter()
        .filter(|circle| !circle.is_empty())
        .collect()
}

/// What drives the core but is no part of it.
fn is_beside(room: &str) -> bool {
    room == "inside"
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap()
}

fn parent(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(parent, _)| parent)
}

fn join(module: &str, name: &str) -> String {
    match module {
        "" => name.to_owned(),
        module => format!("{module}::{name}"),
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

const CORE: &str = "fastsock";
