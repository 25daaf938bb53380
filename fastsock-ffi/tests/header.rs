//! The committed header is what cbindgen writes today, and the shared library exports exactly its functions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

mod toolchain;

/// In the order a reader wants them.
const SOURCES: [&str; 21] = [
    "status",
    "last_error",
    "version",
    "text",
    "config",
    "settings",
    "event",
    "log",
    "options",
    "bridge",
    "start",
    "stop",
    "devices",
    "groups",
    "clients",
    "dead_letters",
    "stats",
    "metrics",
    "observe",
    "poll",
    "tickets",
];

#[test]
fn the_header_is_what_the_source_says() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).unwrap();
    config.after_includes = config.after_includes.map(with_version);
    let mut builder = cbindgen::Builder::new().with_config(config);
    for name in SOURCES {
        builder = builder.with_src(crate_dir.join("src").join(name).with_extension("rs"));
    }
    let mut written = Vec::new();
    builder.generate().unwrap().write(&mut written);
    let written = String::from_utf8(written).unwrap();
    let path = toolchain::root().join("include/fastsock.h");
    if std::env::var_os("FASTSOCK_BLESS").is_some() {
        fs::write(&path, &written).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == committed,
        "include/fastsock.h is not what cbindgen writes; run FASTSOCK_BLESS=1 cargo test --workspace --test header"
    );
}

/// The macros of the version are those of Cargo.toml.
fn with_version(text: String) -> String {
    text.replace("@MAJOR@", env!("CARGO_PKG_VERSION_MAJOR"))
        .replace("@MINOR@", env!("CARGO_PKG_VERSION_MINOR"))
        .replace("@PATCH@", env!("CARGO_PKG_VERSION_PATCH"))
}

#[test]
fn the_library_exports_what_the_header_declares() {
    let header = fs::read_to_string(toolchain::root().join("include/fastsock.h")).unwrap();
    // The macros stand before the function, on its line or on lines of their own.
    let mut is_exported = false;
    let declared: BTreeSet<String> = header
        .lines()
        .filter(|line| !line.starts_with([' ', '*', '/', '#']))
        .filter_map(|line| {
            is_exported |= line.starts_with("FASTSOCK_API");
            let is_marked = is_exported;
            if line.ends_with(';') {
                is_exported = false;
            }
            let name = line.split('(').next()?.rsplit([' ', '*']).next()?;
            (line.contains('(') && name.starts_with("fastsock_")).then(|| {
                assert!(is_marked, "{line}");
                name.to_owned()
            })
        })
        .collect();
    assert!(declared.len() > 30, "{declared:?}");
    let nm = Command::new("nm")
        .args(["-D", "--defined-only", "--format=posix"])
        .arg(toolchain::built("so"))
        .output()
        .unwrap();
    let exported: BTreeSet<String> = String::from_utf8(nm.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    assert_eq!(exported, declared);
}

/// A pointer that nobody wrote is the worst that an ignored status leaves behind.
#[test]
fn the_status_of_what_gives_something_is_checked() {
    let header = fs::read_to_string(toolchain::root().join("include/fastsock.h")).unwrap();
    let (_, functions) = header.split_once("extern \"C\" {").unwrap();
    let mut gives = 0;
    for function in functions.split("FASTSOCK_API").skip(1) {
        let (declared, _) = function.split_once(';').unwrap();
        let is_owned = declared.contains("**") && !declared.contains("_send_kept("); // where it may be NULL
        let is_filled = ["*data,", "*online)", "*count)", "*len)", "_size)"];
        let is_filled = is_filled.iter().any(|text| declared.contains(text));
        if is_owned
            || is_filled && !declared.contains("const void *data") && !declared.contains("_stop(")
        {
            assert!(declared.contains("FASTSOCK_CHECKED"), "{declared}");
            gives += 1;
        }
    }
    assert!(gives > 20, "{gives}");
}

#[test]
fn every_source_file_with_a_function_is_in_the_header() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let exports = fs::read_to_string(&path)
            .unwrap()
            .contains("#[unsafe(no_mangle)]\npub");
        assert!(!exports || SOURCES.contains(&name), "{name}.rs");
    }
}

#[test]
fn no_file_imports_in_a_circle() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut imports = BTreeMap::new();
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let block = text.split_once("\nuse crate::{").map_or("", |(_, rest)| {
            rest.split_once("};").map_or("", |(block, _)| block)
        });
        let mut of = BTreeSet::new();
        let mut depth = 0;
        for part in block.split_inclusive(['{', '}', ',']) {
            let module = part.trim().split([':', ',', '{']).next().unwrap();
            if depth == 0 && !module.is_empty() && module != "}" {
                of.insert(module.to_owned());
            }
            depth += part.matches('{').count();
            depth -= part.matches('}').count();
        }
        let single = text
            .lines()
            .filter_map(|l| l.trim().strip_prefix("use crate::"));
        of.extend(single.filter_map(|l| Some(l.split_once("::")?.0.to_owned())));
        imports.insert(name, of);
    }
    assert!(imports["start"].contains("bridge") && imports["guard"].contains("status"));
    imports.retain(|name, _| name != "lib" && name != "fuzzing");
    // What imports nothing that is left can be taken away, until nothing is left or a circle is.
    while let Some(name) = imports
        .iter()
        .find(|(_, of)| !of.iter().any(|name| imports.contains_key(name)))
        .map(|(name, _)| name.clone())
    {
        imports.remove(&name);
    }
    assert!(imports.is_empty(), "in a circle, or above one: {imports:?}");
}
