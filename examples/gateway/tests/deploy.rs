//! What `deploy/` has for containers: linted by programs that are not ours, and it names settings that there are. No image is
//! built here: that needs a registry.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command as Program,
    time::Duration,
};

use fastsock::Config;
use support::Command;

#[test]
fn hadolint_finds_nothing_in_the_dockerfile() {
    succeed(tool("hadolint").args(["--failure-threshold", "info", "deploy/Dockerfile"]));
}

#[test]
fn shellcheck_finds_nothing_in_the_scripts() {
    let scripts = ["scripts/deb", "scripts/release"];
    let debian = ["postinst", "prerm", "postrm"].map(|name| format!("deploy/debian/{name}"));
    succeed(tool("shellcheck").args(scripts).args(debian));
}

#[test]
fn yamllint_and_kubernetes_find_nothing_in_the_manifests() {
    succeed(tool("yamllint").args(["--strict", "-c", "deploy/.yamllint", "deploy"]));
    let manifests = manifests();
    assert!(manifests.len() > 3, "{manifests:?}");
    succeed(tool("kubernetes-validate").arg("--strict").args(&manifests));
    // Every file is one of those that `kubectl apply -k` takes.
    let listed = read("deploy/kubernetes/kustomization.yaml");
    for path in manifests {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(listed.contains(&format!("  - {name}\n")), "{name}");
    }
}

#[test]
fn a_pod_has_the_time_that_its_drain_takes() {
    let config = read("deploy/kubernetes/config.yaml");
    let window = value(&config, "FASTSOCK_DRAIN_WINDOW: ").unwrap();
    let window: u64 = window.strip_suffix('s').unwrap().parse().unwrap();
    let deployment = read("deploy/kubernetes/deployment.yaml");
    let grace = value(&deployment, "terminationGracePeriodSeconds: ").unwrap();
    let stop = Duration::from_secs(8);
    assert!(Duration::from_secs(grace.parse().unwrap()) > Duration::from_secs(window) + stop);
    for path in ["/healthz", "/readyz"] {
        assert!(deployment.contains(&format!("path: {path}\n")), "{path}");
    }
}

#[test]
fn every_setting_that_a_file_names_is_one() {
    let own = fastsock_gateway::own_settings().iter();
    let mut known: Vec<_> = own.map(|own| own.variable.to_owned()).collect();
    for setting in Config::settings() {
        known.push(setting.variable.to_owned());
        if setting.is_secret {
            known.push(format!("{}_FILE", setting.variable));
        }
    }
    let mut seen = 0;
    for file in files(&root().join("deploy")) {
        let text = fs::read_to_string(&file).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| PREFIXES.iter().any(|p| word.starts_with(p))) {
            seen += 1;
            assert!(
                known.iter().any(|name| name == word),
                "{}: {word}",
                file.display()
            );
        }
    }
    assert!(seen > 150, "{seen}");
}

/// The settings of the manifests together are ones that start; only what they point to is not there.
#[test]
fn the_settings_of_the_manifests_are_allowed_together() {
    let config = read("deploy/kubernetes/config.yaml");
    let (_, data) = config.split_once("\ndata:\n").unwrap();
    let mut command = Command::new()
        .file("token", "0123456789abcdef0123456789abcdef")
        .file("redis", "redis://127.0.0.1:1/")
        .env("FASTSOCK_ADMIN_TOKEN_FILE", "token")
        .env("FASTSOCK_REDIS_URL_FILE", "redis")
        .args(["--print-config", "--changed"]);
    for line in data.lines().filter(|line| !line.trim().starts_with('#')) {
        let (name, value) = line.trim().split_once(": ").unwrap();
        command = command.env(name, value.trim_matches('"'));
    }
    let output = command.output();
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
    for line in ["\nFASTSOCK_SPOOL=redis\n", "# FASTSOCK_ADMIN_TOKEN=***"] {
        assert!(output.stdout.contains(line), "{line}: {}", output.stdout);
    }
}

#[test]
fn the_example_of_an_environment_can_be_used_with_and_without_its_comments() {
    let example = read("deploy/.env.example");
    let all: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // "#NAME=value", not "# text"
            Some(line) if line.starts_with(|c: char| c.is_ascii_uppercase()) => format!("{line}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(print(&example, &["--changed"]), "");
    assert_eq!(print(&all, &["--changed"]), "");
    let from_file = print(&all, &[]);
    let from_file = from_file
        .lines()
        .filter(|line| *line == "# from .env")
        .count();
    assert!(from_file > 90, "{from_file}");
}

fn print(dotenv: &str, more: &[&'static str]) -> String {
    let command = Command::new().file(".env", dotenv).args(["--print-config"]);
    let output = command.args(more.iter().copied()).output();
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
    output.stdout
}

/// A program of the Python packages that `scripts/setup test` installs.
fn tool(name: &str) -> Program {
    let path = root().join("target/tools/venv/bin").join(name);
    assert!(
        path.is_file(),
        "no {}; run scripts/setup test",
        path.display()
    );
    let mut program = Program::new(path);
    program.current_dir(root());
    program
}

fn succeed(program: &mut Program) {
    let output = program
        .output()
        .unwrap_or_else(|e| panic!("{program:?}: {e}"));
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{program:?}: {said}");
}

/// The manifests of Kubernetes, without the list of them.
fn manifests() -> Vec<PathBuf> {
    let files = files(&root().join("deploy/kubernetes")).into_iter();
    files
        .filter(|path| !path.ends_with("kustomization.yaml"))
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(name))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// How names of settings begin.
const PREFIXES: [&str; 5] = ["FASTSOCK_", "WEBSOCKET_", "REMOTE_", "REDIS_", "LOG_"];
