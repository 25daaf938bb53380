//! `make install` as packagers and users meet it: found by pkg-config and by CMake, wherever the prefix went.

use std::{fs, path::Path, process::Command};

use self::toolchain::{install, root, scratch, succeed};

mod toolchain;

#[test]
fn pkg_config_finds_it_where_it_went() {
    let made = scratch("install-made");
    install(&made, &[]);
    let moved = scratch("install-moved").join("elsewhere");
    fs::rename(&made, &moved).unwrap();
    for (linkage, extra) in [
        ("shared", &[][..]),
        ("static", &["--static"][..]),
        ("all-static", &["--static"][..]), // no shared library at all, not even libc
    ] {
        let mut query = Command::new("pkg-config");
        query
            .args(["--cflags", "--libs", "fastsock"])
            .args(extra)
            .env("PKG_CONFIG_PATH", moved.join("lib/pkgconfig"));
        let flags = String::from_utf8(succeed(&mut query).stdout).unwrap();
        for (compiler, source) in [
            ("cc", "examples/c/embed.c"),
            ("c++", "examples/cpp/embed.cpp"),
        ] {
            let program = moved.join(format!("{linkage}-{compiler}"));
            let mut compile = Command::new(compiler);
            compile
                .current_dir(root())
                .arg(source)
                .arg("-o")
                .arg(&program);
            if linkage == "all-static" {
                compile.arg("-static");
            }
            if compiler == "c++" {
                compile.arg("-std=c++17");
            }
            for flag in flags.split_whitespace() {
                // -l takes the shared one when both are there.
                match (linkage, flag) {
                    ("static", "-lfastsock") => compile.arg("-l:libfastsock.a"),
                    _ => compile.arg(flag),
                };
            }
            succeed(&mut compile);
            run(&program, linkage, &moved);
        }
    }
}

#[test]
fn cmake_finds_it_in_a_library_folder_of_another_depth() {
    let prefix = scratch("install-cmake");
    install(&prefix, &["LIBDIR=lib/x86_64-linux-gnu"]);
    let build = scratch("install-cmake-build");
    let mut configure = Command::new("cmake");
    configure
        .arg("-S")
        .arg(root().join("tests/cpp/consumer"))
        .arg("-B")
        .arg(&build)
        .arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()))
        .arg("-DCMAKE_LIBRARY_ARCHITECTURE=x86_64-linux-gnu");
    succeed(&mut configure);
    succeed(Command::new("cmake").arg("--build").arg(&build));
    for program in ["c-shared", "c-static", "cpp-shared", "cpp-static"] {
        run(&build.join(program), program, &prefix);
    }
}

#[test]
fn the_library_has_a_soname_and_needs_only_the_system() {
    let prefix = scratch("install-soname");
    install(&prefix, &[]);
    let shared = prefix.join("lib/libfastsock.so");
    let dynamic = succeed(Command::new("readelf").arg("-d").arg(&shared)).stdout;
    let dynamic = String::from_utf8(dynamic).unwrap();
    assert!(
        dynamic.contains("Library soname: [libfastsock.so.0]"),
        "{dynamic}"
    );
    for line in dynamic.lines().filter(|l| l.contains("(NEEDED)")) {
        let known = [
            "libgcc_s.so",
            "libc.so",
            "libm.so",
            "libpthread.so",
            "libdl.so",
            "ld-linux",
        ];
        assert!(known.iter().any(|name| line.contains(name)), "{line}");
    }
    assert_eq!(
        fs::read_link(&shared).unwrap(),
        Path::new("libfastsock.so.0")
    );
}

/// Who passes the library on has to pass these on too.
#[test]
fn the_licences_of_all_that_is_in_it_are_installed_with_it() {
    let prefix = scratch("install-licences");
    install(&prefix, &["DOCDIR=share/doc/libfastsock"]);
    let folder = prefix.join("share/doc/libfastsock");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(
        read("LICENSE"),
        fs::read_to_string(root().join("LICENSE")).unwrap()
    );
    let texts = read("THIRD-PARTY-LICENSES.txt");
    assert!(texts.contains("Permission is hereby granted, free of charge"));
    let bill: serde_json::Value = serde_json::from_str(&read("fastsock-ffi.cdx.json")).unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(bill["metadata"]["component"]["version"], version);
    let components = bill["components"].as_array().unwrap();
    let mut names = Vec::new();
    for component in components {
        let name = component["name"].as_str().unwrap();
        let number = component["version"].as_str().unwrap();
        assert!(texts.contains(&format!("{name} {number} (")), "{name}");
        assert!(component["licenses"].is_array(), "{name}");
        names.push(name);
    }
    assert!(names.contains(&"tokio") && names.contains(&"rustls"));
    assert!(!names.contains(&"cbindgen"), "nothing of it is shipped");
    // Of what only the command asks for, and of what nobody does.
    let not_linked = ["signal-hook-registry", "stabby"];
    assert!(!names.iter().any(|name| not_linked.contains(name)));
}

#[test]
fn a_target_is_taken_from_its_own_folder() {
    for (variable, folder) in [
        (
            "CARGO_FLAGS=--target riscv64gc-unknown-linux-gnu",
            "riscv64gc-unknown-linux-gnu/release",
        ),
        (
            "CARGO_FLAGS=-v --target=armv7-unknown-linux-gnueabihf",
            "armv7-unknown-linux-gnueabihf/release",
        ),
        (
            "CARGO_BUILD_TARGET=i686-unknown-linux-gnu",
            "i686-unknown-linux-gnu/release",
        ),
        ("CARGO_FLAGS=--no-default-features", "target/release"),
    ] {
        let mut make = Command::new("make");
        make.current_dir(root())
            .args([
                "-n",
                "--no-print-directory",
                "ffi-install",
                "CARGO_TARGET_DIR=target",
                variable,
            ])
            .env_remove("MAKEFLAGS");
        let plan = String::from_utf8(succeed(&mut make).stdout).unwrap();
        assert!(
            plan.contains(&format!("{folder}/libfastsock_ffi.so ")),
            "{plan}"
        );
    }
}

/// A host's own .so that takes ours in keeps our functions to itself with --exclude-libs.
#[test]
fn a_host_can_hide_the_static_library_in_its_own() {
    let prefix = scratch("install-hidden");
    install(&prefix, &[]);
    let plugin = prefix.join("plugin.so");
    let source = prefix.join("plugin.c");
    let code =
        "#include <fastsock.h>\nconst char *plugin_version(void) { return fastsock_version(); }\n";
    fs::write(&source, code).unwrap();
    let mut compile = Command::new("cc");
    compile
        .args(["-shared", "-fPIC", "-Wl,--exclude-libs,ALL", "-I"])
        .arg(prefix.join("include"))
        .arg(&source)
        .arg(prefix.join("lib/libfastsock.a"))
        .args(["-lgcc_s", "-lpthread", "-lm", "-ldl", "-o"])
        .arg(&plugin);
    succeed(&mut compile);
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only", "--format=posix"])
        .arg(&plugin);
    let exported = String::from_utf8(succeed(&mut nm).stdout).unwrap();
    let names: Vec<_> = exported
        .lines()
        .filter_map(|l| l.split(' ').next())
        .collect();
    assert_eq!(names, ["plugin_version"]);
}

/// Starts the program on a port that is no port: it says so in the words of the library, and ends with 1.
fn run(program: &Path, linkage: &str, prefix: &Path) {
    let mut command = Command::new(program);
    command.env("WEBSOCKET_PORT", "99999");
    if linkage == "shared" {
        command.env("LD_LIBRARY_PATH", prefix.join("lib")); // CMake's run path leads there by itself
    }
    if linkage.ends_with("static") {
        let needed = succeed(Command::new("readelf").arg("-d").arg(program)).stdout;
        assert!(!String::from_utf8_lossy(&needed).contains("libfastsock"));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1)
            && said.contains("WEBSOCKET_PORT: \"99999\" is not allowed"),
        "{}: {} {said}",
        program.display(),
        output.status
    );
}
