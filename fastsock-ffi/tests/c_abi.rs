//! The library as C and C++ programs use it: compiled by four compilers' ways, linked both ways, run against a real
//! Redis and a real HTTP server, and watched by valgrind and the sanitizers.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use support::{Backend, Device, Reply, TempRedis};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use self::toolchain::{Link, compile, root, succeed, warnings};

mod toolchain;

const C_SOURCES: [&str; 5] = [
    "examples/c/embed.c",
    "examples/c/epoll_host.c",
    "tests/c/fork_disk.c",
    "tests/c/host_safety.c",
    "tests/c/layout.c",
];
const CPP_SOURCES: [&str; 3] = [
    "examples/cpp/embed.cpp",
    "examples/cpp/poll_loop.cpp",
    "tests/cpp/behaviour.cpp",
];

#[test]
fn everything_compiles_without_a_warning() {
    let check =
        |compiler, std, source| succeed(warnings(compiler, std).args(["-fsyntax-only", source]));
    for compiler in ["gcc", "clang"] {
        for source in C_SOURCES {
            check(compiler, "c11", source);
            if !["tests/c/layout.c", "tests/c/fork_disk.c"].contains(&source) {
                check(compiler, "c99", source); // C99 has neither _Static_assert nor atomics
            }
        }
    }
    for compiler in ["g++", "clang++"] {
        for (std, source) in ["c++17", "c++20"]
            .into_iter()
            .flat_map(|std| CPP_SOURCES.map(|s| (std, s)))
        {
            check(compiler, std, source);
        }
    }
}

#[test]
fn the_examples_are_short() {
    for source in C_SOURCES
        .iter()
        .chain(&CPP_SOURCES)
        .filter(|s| s.starts_with("examples"))
    {
        let lines = std::fs::read_to_string(root().join(source))
            .unwrap()
            .lines()
            .count();
        assert!(lines < 150, "{source}: {lines} lines");
    }
}

/// Each case of tests/c/host_safety.c, in a process of its own.
macro_rules! host_safety {
    ($($(#[$attr:meta])* $name:ident = $case:literal;)*) => {$(
        $(#[$attr])*
        #[test]
        fn $name() {
            let program = compile("gcc", "c11", "tests/c/host_safety.c", Link::Shared, &[]);
            succeed(Command::new(program).arg($case));
        }
    )*

        #[test]
        fn no_case_of_host_safety_is_forgotten() {
            let program = compile("gcc", "c11", "tests/c/host_safety.c", Link::Shared, &[]);
            let cases = succeed(&mut Command::new(program)).stdout;
            let cases = String::from_utf8(cases).unwrap();
            assert_eq!(cases.lines().collect::<Vec<_>>(), [$($case),*]);
        }
    };
}

host_safety! {
    a_host_with_default_sigpipe_survives_devices_that_vanish = "sigpipe";
    no_signal_of_the_host_reaches_our_threads = "signals";
    a_forked_child_gets_forked_from_every_call = "fork";
    a_forked_child_can_start_a_bridge_of_its_own = "fork_start";
    stop_does_not_wait_for_a_hook_that_blocks = "blocked_hook";
    stop_and_free_are_refused_inside_a_hook = "stop_in_hook";
    no_hook_runs_after_stop = "no_hook_after_stop";
    userdata_is_freed_once_on_every_path = "userdata_free";
    bad_arguments_are_refused_and_nothing_is_written = "arguments";
    two_bridges_know_nothing_of_each_other = "two_bridges";
    a_hundred_lives_leave_nothing_behind = "restart";
    a_decision_can_come_later_from_any_thread = "resolve_later";
    tokens_of_a_file_decide_who_may_connect = "auth";
    a_failed_hook_is_counted_and_never_forwards = "failed_hook";
    logs_come_to_their_own_bridge = "log";
    a_host_that_does_not_poll_makes_devices_wait = "take";
    a_start_without_threads_or_memory_fails_and_undoes_all = "thread_limit";
    a_bridge_can_be_stopped_and_freed_at_exit = "at_exit";
    a_stop_with_less_time_shortens_one_that_runs = "stop_sooner";
    a_stop_with_less_time_shortens_one_that_waits_for_a_hook = "stop_hook_sooner";
    nothing_takes_the_place_of_stdin_stdout_and_stderr = "closed_descriptors";
    a_send_without_waiting_tells_at_once_or_by_one_event = "nowait";
    a_send_without_waiting_tells_a_hook = "nowait_hook";
    a_message_that_there_is_no_memory_for_is_refused = "no_memory";
}

#[tokio::test]
async fn dead_letters_are_listed_shown_replayed_and_dropped() {
    let c = compile("gcc", "c11", "tests/c/host_safety.c", Link::Shared, &[]);
    dead_letters(Command::new(c)).await;
    let cpp = compile("g++", "c++17", "tests/cpp/behaviour.cpp", Link::Shared, &[]);
    dead_letters(Command::new(cpp)).await;
}

#[tokio::test]
async fn dead_letters_are_clean_under_valgrind() {
    let program = compile("gcc", "c11", "tests/c/host_safety.c", Link::Shared, &[]);
    dead_letters(valgrind(program)).await;
}

/// The case that needs a backend which refuses for good, and a directory.
async fn dead_letters(mut command: Command) {
    let backend = Backend::start().await;
    backend.answer_all(Reply::new(400));
    let directory = tempfile::tempdir().unwrap();
    command.args(["dead_letters", &backend.url()]);
    command.arg(directory.path().join("data"));
    let run = tokio::process::Command::from(command).output().await;
    let run = run.unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[tokio::test]
async fn a_forked_child_runs_a_bridge_on_the_disk_while_that_of_its_parent_works() {
    let backend = Backend::start().await;
    let directory = tempfile::tempdir().unwrap();
    let program = compile("gcc", "c11", "tests/c/fork_disk.c", Link::Shared, &[]);
    let mut command = tokio::process::Command::from(Command::new(program));
    command.arg(backend.url()).arg(directory.path());
    let run = command.output().await.unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[tokio::test]
async fn a_send_without_waiting_takes_no_time_while_redis_hangs() {
    let redis = TempRedis::new().await;
    let c = compile("gcc", "c11", "tests/c/host_safety.c", Link::Shared, &[]);
    let mut command = tokio::process::Command::from(Command::new(c));
    command.arg("nowait_frozen").arg(redis.port().to_string());
    command.arg(redis.process().pid().to_string());
    let run = command.output().await.unwrap();
    redis.thaw();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[tokio::test]
async fn a_gateway_finds_groups_and_kicks_the_devices_of_another_and_hears_of_mailboxes() {
    let c = compile("gcc", "c11", "tests/c/host_safety.c", Link::Shared, &[]);
    let cpp = compile("g++", "c++17", "tests/cpp/behaviour.cpp", Link::Shared, &[]);
    for program in [c, cpp] {
        let redis = TempRedis::new().await;
        let mut command = tokio::process::Command::from(Command::new(program));
        command.arg("fleet").arg(redis.port().to_string());
        let run = command.output().await.unwrap();
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        );
    }
}

#[test]
fn cpp_keeps_its_promises() {
    for (compiler, std) in [("g++", "c++17"), ("clang++", "c++20")] {
        let program = compile(compiler, std, "tests/cpp/behaviour.cpp", Link::Shared, &[]);
        succeed(&mut Command::new(&program));
        succeed(Command::new(program).arg("static"));
    }
}

#[tokio::test]
async fn embed_works_in_c_linked_shared() {
    let program = compile("gcc", "c99", "examples/c/embed.c", Link::Shared, &[]);
    embed(Command::new(program)).await;
}

#[tokio::test]
async fn embed_works_in_c_linked_static() {
    let program = compile("clang", "c11", "examples/c/embed.c", Link::Static, &[]);
    embed(Command::new(program)).await;
}

#[tokio::test]
async fn embed_works_in_cpp_linked_shared() {
    let program = compile("g++", "c++17", "examples/cpp/embed.cpp", Link::Shared, &[]);
    embed(Command::new(program)).await;
}

#[tokio::test]
async fn embed_works_in_cpp_linked_static() {
    let program = compile(
        "clang++",
        "c++20",
        "examples/cpp/embed.cpp",
        Link::Static,
        &[],
    );
    embed(Command::new(program)).await;
}

#[tokio::test]
async fn a_whole_run_is_clean_under_valgrind() {
    let program = compile("gcc", "c99", "examples/c/embed.c", Link::Shared, &[]);
    embed(valgrind(program)).await;
}

#[tokio::test]
async fn a_whole_run_with_a_loop_is_clean_under_valgrind() {
    let program = compile("gcc", "c99", "examples/c/epoll_host.c", Link::Shared, &[]);
    epoll_host(valgrind(program)).await;
}

#[test]
fn failures_are_clean_under_valgrind() {
    let program = compile("gcc", "c11", "tests/c/host_safety.c", Link::Shared, &[]);
    for case in [
        "userdata_free",
        "arguments",
        "resolve_later",
        "take",
        "at_exit",
        "stop_sooner",
        "stop_hook_sooner",
        "closed_descriptors",
        "nowait",
        "nowait_hook",
    ] {
        succeed(valgrind(&program).arg(case));
    }
    let program = compile("g++", "c++17", "tests/cpp/behaviour.cpp", Link::Shared, &[]);
    succeed(valgrind(&program).arg("static"));
}

#[tokio::test]
async fn a_whole_run_is_clean_under_the_sanitizers() {
    // gcc's come with it; clang's are another package.
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let program = compile("gcc", "c11", "examples/c/embed.c", Link::Shared, &flags);
    embed(Command::new(program)).await;
    let program = compile(
        "g++",
        "c++17",
        "examples/cpp/embed.cpp",
        Link::Static,
        &flags,
    );
    embed(Command::new(program)).await;
    let program = compile(
        "gcc",
        "c11",
        "examples/c/epoll_host.c",
        Link::Static,
        &flags,
    );
    epoll_host(Command::new(program)).await;
    let program = compile(
        "g++",
        "c++17",
        "tests/cpp/behaviour.cpp",
        Link::Shared,
        &flags,
    );
    succeed(&mut Command::new(&program));
    succeed(Command::new(program).arg("static"));
    let program = compile("gcc", "c11", "tests/c/host_safety.c", Link::Shared, &flags);
    for case in [
        "arguments",
        "at_exit",
        "stop_sooner",
        "stop_hook_sooner",
        "nowait",
    ] {
        succeed(Command::new(&program).arg(case));
    }
}

#[tokio::test]
async fn a_host_with_its_own_loop_hears_everything() {
    let program = compile("gcc", "c11", "examples/c/epoll_host.c", Link::Shared, &[]);
    epoll_host(Command::new(program)).await;
}

#[tokio::test]
async fn a_poll_loop_in_cpp_passes_messages_on() {
    let program = compile(
        "g++",
        "c++17",
        "examples/cpp/poll_loop.cpp",
        Link::Shared,
        &[],
    );
    let mut host = Host::start(Command::new(program), &[]).await;
    let mut one = Device::connect(host.addr, "dev1").await;
    let mut two = Device::connect(host.addr, "dev2").await;
    one.send("hello").await;
    assert_eq!(two.recv_text().await, "dev1: hello");
    assert_eq!(host.line().await, "dev1: hello");
    host.enter("").await;
    assert_eq!(host.line().await, "stopped");
    host.ended().await;
    assert_eq!(one.closed().await.code, Some(1001));
}

/// Connect, downlinks both ways, uplinks both ways, stop: against a real Redis and a real HTTP server.
async fn embed(command: Command) {
    let redis = TempRedis::new().await;
    let backend = Backend::start().await;
    let port = redis.port().to_string();
    let url = backend.url();
    let variables = [
        ("FASTSOCK_BROKER", "redis"),
        ("REDIS_PORT", &*port),
        ("REMOTE_URL", &*url),
    ];
    let mut host = Host::start(command, &variables).await;
    redis.wait_subscribed("fastsock:client:dev1", 1).await;
    let mut device = Device::connect(host.addr, "dev1").await;
    assert_eq!(device.recv_text().await, "welcome");
    device.send("ping").await;
    assert_eq!(device.recv_text().await, "pong");
    device.send("hello").await;
    assert_eq!(backend.wait_delivered("dev1", 1).await, ["hello"]);
    redis.publish("fastsock:client:dev1", "from afar").await;
    assert_eq!(device.recv_text().await, "from afar");
    assert_eq!(host.line().await, "dev1 connected");
    assert_eq!(host.line().await, "dev1 says ping");
    assert_eq!(host.line().await, "dev1 says hello");
    host.enter("").await;
    assert_eq!(device.closed().await.code, Some(1001));
    assert_eq!(host.line().await, "dev1 left: shutdown");
    let end = host.line().await;
    assert!(
        end.starts_with("stopped") && end.ends_with("0 uplinks left"),
        "{end}"
    );
    host.ended().await;
}

/// The events of a bridge beside a timer and stdin in one loop.
async fn epoll_host(command: Command) {
    let mut host = Host::start(command, &[]).await;
    let refused = Device::try_connect(host.addr, "somebody")
        .await
        .unwrap_err();
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (403, "devices only")
    );
    let mut device = Device::connect(host.addr, "dev1").await;
    let connected = host.line_but_reports().await;
    assert_eq!(
        connected,
        format!("dev1 connected from {}", device.local_addr())
    );
    device.send("hello").await;
    assert_eq!(host.line_but_reports().await, "dev1 says hello");
    host.enter("to all").await;
    assert_eq!(device.recv_text().await, "to all");
    assert_eq!(host.line().await, "1 devices, 1 uplinks", "the timer");
    host.enter("quit").await;
    assert_eq!(device.closed().await.code, Some(1001));
    assert_eq!(host.line_but_reports().await, "dev1 left: shutdown");
    assert_eq!(host.line_but_reports().await, "stopped: ok");
    host.ended().await;
}

/// A program with a bridge in it, running.
struct Host {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    addr: SocketAddr,
}

impl Host {
    async fn start(mut command: Command, variables: &[(&str, &str)]) -> Self {
        command
            .env("WEBSOCKET_PORT", "0")
            .env("FASTSOCK_LISTEN_ADDR", "127.0.0.1")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let mut host = Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let line = host.line().await;
        assert!(line.starts_with("listening on "), "{line}");
        let port = line.rsplit([' ', ':']).next().unwrap();
        host.addr.set_port(port.parse().unwrap());
        host
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.stdout.next_line()).await;
        let line = line.expect("a line of the program").unwrap();
        line.expect("the program is still running")
    }

    /// The next line that does not come from the timer.
    async fn line_but_reports(&mut self) -> String {
        loop {
            let line = self.line().await;
            if !line.ends_with(" uplinks") {
                return line;
            }
        }
    }

    async fn enter(&mut self, line: &str) {
        self.stdin
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    async fn ended(&mut self) {
        let status = timeout(PATIENCE, self.child.wait()).await;
        let status = status.expect("the end of the program").unwrap();
        assert!(status.success(), "{status}");
    }
}

fn valgrind(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args([
            "-q",
            "--leak-check=full",
            "--show-leak-kinds=definite,indirect,possible",
        ])
        .args([
            "--errors-for-leak-kinds=definite,indirect,possible",
            "--error-exitcode=99",
        ])
        .arg(program);
    command
}

/// A program under valgrind on a busy machine takes its time to begin.
const PATIENCE: Duration = Duration::from_secs(120);
