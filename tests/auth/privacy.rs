//! A token that is not the client id is told to nobody: not in logs, not to operators, not in Redis, not to the backend.

use std::{fs, sync::Arc};

use parking_lot::Mutex;
use serde_json::json;
use support::{Backend, Device, Gateway, GatewayBuilder, Reply, TempRedis, call, eventually, get};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::common::{Place, Signer, from_now, hs256, secret, sha256};

/// In every token and secret of these tests. Alphanumeric, so that nothing can hide it by quoting.
const CANARY: &str = "c4n4ryc4n4ryc4n4ryc4n4ryc4n4ry12";

#[tokio::test]
async fn tokens_of_a_file_are_told_to_nobody() {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("dev1 {}\n", sha256(CANARY))).unwrap();
    let path = file.path().to_str().unwrap();
    live(
        &[
            ("FASTSOCK_AUTH", "tokens"),
            ("FASTSOCK_AUTH_TOKENS_FILE", path),
        ],
        CANARY,
    )
    .await;
}

#[tokio::test]
async fn jwts_and_their_secret_are_told_to_nobody() {
    // The signature is as secret as the rest; the canary is to be found whatever is cut off.
    let claims = format!(
        r#"{{"sub":"dev1","exp":{},"x":"{CANARY}"}}"#,
        from_now(600.0)
    );
    let key = secret(CANARY);
    let settings = [
        ("FASTSOCK_AUTH", "jwt"),
        ("FASTSOCK_AUTH_JWT_KEY", &key[..]),
    ];
    live(&settings, &hs256(CANARY, &claims)).await;
}

#[tokio::test]
async fn the_password_of_a_key_set_is_told_to_nobody() {
    let url = Backend::start().await;
    let signer = Signer::new("one", 1);
    url.answer_all(Reply::ok().body(signer.set()));
    let place = url.url().replace("//", &format!("//user:{CANARY}@"));
    let settings = [
        ("FASTSOCK_AUTH", "jwt"),
        ("FASTSOCK_AUTH_JWT_JWKS", &place[..]),
        ("FASTSOCK_AUTH_JWT_REFRESH", "1000"),
    ];
    live(&settings, &signer.token("dev1")).await;
    let authorization = url.requests()[0].header("authorization").map(str::to_owned);
    let credentials = format!("user:{CANARY}");
    let basic = data_encoding::BASE64.encode(credentials.as_bytes());
    assert_eq!(authorization, Some(format!("Basic {basic}")));
}

#[tokio::test]
async fn what_the_webhook_is_asked_is_told_to_nobody_else() {
    let webhook = Backend::start().await;
    webhook.answer(|request| {
        let is_known = request.json()["credential"] == CANARY;
        let answer = json!({ "allow": is_known, "client_id": "dev1", "note": CANARY });
        Reply::ok().body(answer.to_string())
    });
    let url = format!("{}?key={CANARY}", webhook.url());
    let headers = format!(r#"{{"X-Api-Key":"{CANARY}"}}"#);
    let settings = [
        ("FASTSOCK_AUTH", "webhook"),
        ("FASTSOCK_AUTH_URL", &url),
        ("FASTSOCK_AUTH_HEADERS", &headers),
    ];
    live(&settings, CANARY).await;
    assert!(webhook.count() > 0);
}

/// The life of a gateway with a device that shows its token in each place: let in, refused, heard, spoken to, replaced.
async fn live(settings: &[(&str, &str)], token: &str) {
    let redis = TempRedis::new().await;
    let monitor = Monitor::start(&redis).await;
    let backend = Backend::start().await;
    backend.queue([Reply::new(500)]);
    let with_settings = || {
        let with =
            |gateway: GatewayBuilder, (name, value): &(&str, &str)| gateway.var(name, *value);
        settings.iter().fold(Gateway::builder(), with)
    };
    let mut gateway = with_settings()
        .admin()
        .var("REDIS_PORT", redis.port().to_string())
        .var("REMOTE_URL", backend.url())
        .var("LOG_LEVEL", "silly")
        .var("FASTSOCK_LOG_PAYLOADS", "full")
        .start()
        .await;
    gateway.wait_line("Connected to Redis as subscriber").await;
    let (addr, admin) = (gateway.addr(), gateway.admin_addr());
    let mut told = Vec::new();
    let mut printed = with_settings().arg("--print-config").launch();
    assert_eq!(printed.exit_code().await, Some(0));
    assert!(
        printed
            .stdout()
            .iter()
            .any(|line| line.starts_with("FASTSOCK_AUTH="))
    );
    told.extend(printed.stdout());
    told.extend(printed.stderr());
    let mut before: Option<Device> = None;
    for (number, place) in Place::ALL.into_iter().enumerate() {
        let mut device = place.show(addr, token).await.unwrap();
        device.send(format!("hello from {place:?}")).await;
        backend.wait_delivered("dev1", number + 1).await;
        redis.wait_field("fastsock:clients", "dev1").await;
        redis.publish("fastsock:client:dev1", "hello to it").await;
        assert_eq!(device.recv_text().await, "hello to it");
        for path in [
            "/healthz",
            "/readyz",
            "/metrics",
            "/api/v1/clients",
            "/api/v1/clients/dev1",
        ] {
            told.push(get(admin, path).await.text());
        }
        let json = ("content-type", "application/json");
        let path = "/api/v1/clients/dev1/messages";
        let answer = call(admin, "POST", path, &[json], r#"{"data":"hi"}"#).await;
        assert_eq!(answer.status, 200);
        told.push(answer.text());
        assert_eq!(device.recv_text().await, "hi");
        let mangled = [
            format!("{token}x"),
            format!("x{token}"),
            token.replace('.', ""),
        ];
        for wrong in mangled.iter().filter(|wrong| *wrong != token) {
            let refused = place.show(addr, wrong).await.unwrap_err();
            told.push(format!(
                "{} {:?} {}",
                refused.status, refused.headers, refused.body
            ));
        }
        if let Some(mut before) = before.replace(device) {
            let closed = before.closed().await;
            assert_eq!(closed.code, Some(4509));
            told.push(closed.reason);
        }
    }
    for (key, _) in keys(&redis).await {
        told.push(key);
    }
    told.extend(
        backend
            .requests()
            .iter()
            .map(|request| format!("{request:?}")),
    );
    gateway.stop().await;
    told.extend(
        keys(&redis)
            .await
            .into_iter()
            .map(|(key, value)| key + &value),
    );
    told.extend(monitor.lines().await);
    told.extend(gateway.stdout());
    told.extend(gateway.stderr());
    told.extend(gateway.log_file().iter().map(ToString::to_string));
    assert!(told.iter().any(|text| text.contains("Client connected")));
    assert!(told.iter().any(|text| text.contains("Handshake refused")));
    assert!(
        told.iter()
            .any(|text| text.contains("\"hset\"") || text.contains("\"HSET\""))
    );
    let parts: Vec<_> = token.split('.').chain([CANARY]).collect();
    for text in &told {
        for part in parts.iter().filter(|part| part.len() > 25) {
            assert!(!text.contains(part), "{text}");
        }
    }
}

/// All keys and what they hold.
async fn keys(redis: &TempRedis) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for key in redis.cmd::<Vec<String>>(&["KEYS", "*"]).await {
        let dump: Vec<u8> = redis.cmd(&["DUMP", &key]).await;
        all.push((key, String::from_utf8_lossy(&dump).into_owned()));
    }
    all
}

/// Everything that Redis is told.
struct Monitor {
    lines: Arc<Mutex<Vec<String>>>,
    port: u16,
}

impl Monitor {
    async fn start(redis: &TempRedis) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port()))
            .await
            .unwrap();
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let heard = lines.clone();
        tokio::spawn(async move {
            let mut read = BufReader::new(stream).lines();
            while let Ok(Some(line)) = read.next_line().await {
                heard.lock().push(line);
            }
        });
        eventually("it listens", async || {
            lines.lock().first().is_some_and(|l| l == "+OK")
        })
        .await;
        Self {
            lines,
            port: redis.port(),
        }
    }

    /// All so far.
    async fn lines(self) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(b"ECHO that-is-all\r\n").await.unwrap();
        eventually("the last line", async || {
            self.lines
                .lock()
                .iter()
                .any(|line| line.contains("that-is-all"))
        })
        .await;
        self.lines.lock().clone()
    }
}
