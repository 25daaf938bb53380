//! The central system of examples/ocpp with the stations of the PyPI package `ocpp`, 1.6 and 2.0.1, over `wss`: a page starts a
//! transaction by one call, and the station charges.
//!
//! `scripts/setup test` brings their packages.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ring::digest::{SHA256, digest};
use support::{Authority, Gateway, Process, call, eventually, eventually_within, free_port, get};
use tempfile::TempDir;

/// Python programs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stations_with_basic_are_started_from_the_page_and_charge() {
    let place = Place::start().await;
    let line = |station: &str| {
        let hash = digest(&SHA256, password(station).as_bytes());
        let hash = data_encoding::HEXLOWER.encode(hash.as_ref());
        format!("{station} {hash}\n")
    };
    let lines = line("CP16") + &line("CP201");
    let gateway = place.gateway().file("stations", lines);
    let gateway = gateway
        .var("FASTSOCK_AUTH", "tokens")
        .var("FASTSOCK_AUTH_TOKENS_FILE", "stations")
        .start()
        .await;
    let how = |station: &str| vec!["--password".to_owned(), password(station)];
    place.charges(&gateway, how).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stations_with_client_certificates_are_started_from_the_page_and_charge() {
    let place = Place::start().await;
    let ca = text(place.authority.ca_path());
    let gateway = place
        .gateway()
        .var("FASTSOCK_AUTH", "certificate")
        .var("FASTSOCK_TLS_CLIENT_AUTH", "required")
        .var("FASTSOCK_TLS_CLIENT_CA", ca)
        .start()
        .await;
    let how = |station: &str| {
        let identity = place.authority.issue_to_device(station, &[], 3600);
        let (cert, key) = (text(identity.cert_path), text(identity.key_path));
        vec!["--cert".into(), cert, "--key".into(), key]
    };
    place.charges(&gateway, how).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_says_why_a_station_was_not_started() {
    let place = Place::start().await;
    let _gateway = place.gateway().start().await;
    assert!(
        place
            .press("nobody")
            .await
            .contains("There is no such station.")
    );
    // A station that has been there and left.
    let path = "/ocpp/CP16";
    let headers = [
        ("x-fastsock-protocol", "ocpp1.6"),
        ("idempotency-key", "k1"),
    ];
    let boot = r#"[2,"1","BootNotification",{"chargePointModel":"<b>","chargePointVendor":"V"}]"#;
    let answer = call(place.addr, "POST", path, &headers, boot).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()[2]["status"], "Accepted");
    let again = call(place.addr, "POST", path, &headers, boot).await;
    assert_eq!(
        again.body, answer.body,
        "a repeated POST has the same answer"
    );
    let page = place.press("CP16").await;
    assert!(page.contains("not connected"), "{page}");
    assert!(
        page.contains("V &lt;b&gt;") && !page.contains("<b>"),
        "{page}"
    );
    for (message, code) in [
        (
            r#"[2,"2","FirmwareStatusNotification",{}]"#,
            "NotImplemented",
        ),
        (r#"[2,"2","Authorize",{}]"#, "FormationViolation"),
        (r#"[2,"2",[],{}]"#, "FormationViolation"),
        (r#"[2,"2",{"a":1},{}]"#, "FormationViolation"),
    ] {
        let answer = call(place.addr, "POST", path, &headers[..1], message).await;
        assert_eq!(answer.json()[2], code);
    }
    for message in [r#"[3,"2",{}]"#, "{}", "x"] {
        let answer = call(place.addr, "POST", path, &headers[..1], message).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{message}");
    }
}

/// The central system, and where its gateway will be.
struct Place {
    authority: Authority,
    addr: SocketAddr,
    admin: u16,
    _central: Process,
    dir: TempDir,
}

impl Place {
    async fn start() -> Self {
        let (dir, port, admin) = (TempDir::new().unwrap(), free_port(), free_port());
        let central = Process::start(&text(python()), |command| {
            command
                .args(["-m", "uvicorn", "central:app", "--log-level", "warning"])
                .args(["--port", &port.to_string()])
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("FASTSOCK_ADMIN", format!("http://127.0.0.1:{admin}"))
                .current_dir(here().join("../examples/ocpp"))
                .stderr(File::create(dir.path().join("central")).unwrap());
        });
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        eventually_within(PATIENCE, "the central system listens", async || {
            tokio::net::TcpStream::connect(addr).await
        })
        .await;
        Self {
            authority: Authority::new(),
            addr,
            admin,
            _central: central,
            dir,
        }
    }

    /// The gateway of the README.
    fn gateway(&self) -> support::GatewayBuilder {
        let identity = self.authority.issue_for_loopback();
        Gateway::builder()
            .var("FASTSOCK_ADMIN_ADDR", format!("127.0.0.1:{}", self.admin))
            .var(
                "REMOTE_URL",
                format!("http://{}/ocpp/{{client_id}}", self.addr),
            )
            .var("FASTSOCK_REMOTE_BODY", "raw")
            .var("FASTSOCK_REMOTE_REPLY", "on")
            .var("FASTSOCK_REMOTE_CONTEXT", "on")
            .var("FASTSOCK_DEVICE_PATHS", "/ocpp/{id}")
            .var("FASTSOCK_SUBPROTOCOLS", "ocpp2.0.1,ocpp1.6")
            .var("FASTSOCK_BROKER", "embedded")
            .var("FASTSOCK_TLS_CERT", text(identity.cert_path))
            .var("FASTSOCK_TLS_KEY", text(identity.key_path))
    }

    /// Both kinds of stations boot, are started from the page, and charge 2.5 kWh.
    async fn charges(&self, gateway: &Gateway, how: impl Fn(&str) -> Vec<String>) {
        for (station, protocol, last) in [
            ("CP16", "ocpp1.6", "StopTransaction Accepted"),
            ("CP201", "ocpp2.0.1", "TransactionEvent Ended Accepted"),
        ] {
            let [out, err] =
                ["out", "err"].map(|end| self.dir.path().join(format!("{station}.{end}")));
            let mut running = Process::start(&text(python()), |command| {
                let url = format!("wss://localhost:{}/ocpp/{station}", gateway.addr().port());
                command
                    .arg(here().join("../examples/ocpp/station.py"))
                    .args([&url, "--protocol", protocol, "--ca"])
                    .arg(self.authority.ca_path())
                    .args(how(station))
                    .stdout(File::create(&out).unwrap())
                    .stderr(File::create(&err).unwrap());
            });
            let said = || fs::read_to_string(&out).unwrap();
            eventually_within(PATIENCE, "the station has booted", async || {
                let problem = fs::read_to_string(&err).unwrap();
                assert!(
                    running.try_exit().is_none(),
                    "{problem}\n{}",
                    gateway.output()
                );
                said().contains("ready")
            })
            .await;
            let page = self.press(station).await;
            assert!(page.contains(&format!("{station}: Accepted")), "{page}");
            let end = running.exit_within(PATIENCE).await;
            let problem = fs::read_to_string(&err).unwrap();
            assert!(end.success(), "{}\n{problem}", said());
            assert!(said().ends_with(&format!("{last}\n")), "{}", said());
            let page = get(self.addr, "/").await.text();
            let row = page
                .split("<tr>")
                .find(|row| row.contains(station))
                .unwrap();
            for part in [protocol, "Example Wallbox", "Ended 04A2B3C4 2.50 kWh"] {
                assert!(row.contains(part), "no {part}: {row}");
            }
            // It answered a call, too: that is an uplink which has no answer.
            eventually("all is delivered", async || {
                let stats = call(gateway.admin_addr(), "GET", "/api/v1/stats", &[], "").await;
                let uplink = stats.json()["uplink"].clone();
                uplink["received"] == uplink["delivered"]
            })
            .await;
        }
    }

    /// Fills in the form, presses the button, and reads the page that comes.
    async fn press(&self, station: &str) -> String {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let body = format!("station={station}&tag=04A2B3C4");
        let sent = call(self.addr, "POST", "/start", &form, body).await;
        assert_eq!(sent.status, 303, "{}", sent.text());
        let next = sent.headers["location"].to_str().unwrap();
        get(self.addr, next).await.text()
    }
}

fn password(station: &str) -> String {
    format!("0123456789abcdef-{station}")
}

fn python() -> PathBuf {
    let python = here().join("../target/tools/venv/bin/python");
    assert!(python.is_file(), "run `scripts/setup test`");
    python
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: PathBuf) -> String {
    path.to_str().expect("UTF-8").to_owned()
}
