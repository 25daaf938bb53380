//! `run` leaves its process fit for another run, as the Python package needs it.

mod support;

use std::{
    ffi::OsString,
    net::TcpStream,
    panic,
    process::{Command, ExitCode},
    thread,
};

use rustix::process::{Signal, getpid, kill_process};

/// The test starts itself once more, since signals and stdout belong to a whole process.
#[test]
fn a_process_can_run_it_twice() {
    if std::env::var_os(CHILD).is_some() {
        return run_twice();
    }
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["a_process_can_run_it_twice", "--exact", "--nocapture"])
        .current_dir(directory.path())
        .env(CHILD, "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("printed again"), "{stderr}");
    assert!(!stderr.contains("logged"), "{stderr}");
    for file in ["1.log", "2.log"] {
        let text = std::fs::read_to_string(directory.path().join(file)).unwrap();
        for message in [
            "WebSocket server running",
            "A thread panicked\"",
            "Shutdown initiated",
            "Shutdown complete.",
        ] {
            assert_eq!(
                text.matches(message).count(),
                1,
                "{message} in {file}:\n{text}"
            );
        }
    }
}

fn run_twice() {
    for log_file in ["1.log", "2.log"] {
        let port = support::free_port();
        let args = [
            "fastsock".into(),
            format!("--port={port}"),
            "--set=broker=embedded".into(),
            "--set=admin_addr=off".into(),
            format!("--set=log_file={log_file}"),
        ];
        let code = thread::scope(|scope| {
            let running = scope.spawn(|| fastsock_gateway::run(args.map(OsString::from)));
            wait_until_connected(port);
            let _ = panic::catch_unwind(|| panic!("logged"));
            kill_process(getpid(), Signal::TERM).unwrap();
            running.join().unwrap()
        });
        assert_eq!(code, ExitCode::SUCCESS);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }
    let _ = panic::catch_unwind(|| panic!("printed again"));
}

fn wait_until_connected(port: u16) {
    support::wait_until("it listens", || TcpStream::connect(("127.0.0.1", port)));
}

const CHILD: &str = "TEST_CHILD";
