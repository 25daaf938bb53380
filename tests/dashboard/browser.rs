//! A headless Chromium, driven through ChromeDriver's own HTTP API (WebDriver).

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use support::{Process, eventually_within, free_port, until};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// A browser with one page. It ends with the test: Chromium talks to the driver through a pipe, and ends when that does.
#[derive(Debug)]
pub(crate) struct Browser {
    addr: SocketAddr,
    /// `/session/<id>`
    session: String,
    _driver: Process,
    _profile: TempDir,
}

/// Keys that are no characters (WebDriver §17.4.2).
pub(crate) mod key {
    pub(crate) const TAB: &str = "\u{e004}";
    pub(crate) const ENTER: &str = "\u{e007}";
    pub(crate) const SPACE: &str = " ";
    pub(crate) const ESCAPE: &str = "\u{e00c}";
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let profile = TempDir::new().expect("a temporary directory");
        let port = free_port();
        let driver = Process::start("chromedriver", |command| {
            command
                .arg(format!("--port={port}"))
                .current_dir(profile.path())
                .env("HOME", profile.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        });
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        eventually_within(PATIENCE, "chromedriver answers", async || {
            let status = ask(addr, "GET", "/status", None).await?;
            status["ready"].as_bool().filter(|ready| *ready)
        })
        .await;
        let user_data = format!("--user-data-dir={}", profile.path().join("data").display());
        let args = [ARGUMENTS, &[&user_data]].concat();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": "/usr/bin/chromium", "args": args },
            "goog:loggingPrefs": { "performance": "ALL", "browser": "ALL" },
        } } });
        let session = ask(addr, "POST", "/session", Some(wanted)).await;
        let session = session.expect("chromedriver starts chromium");
        let id = session["sessionId"].as_str();
        let id = id.unwrap_or_else(|| panic!("no session: {session}"));
        Self {
            addr,
            session: format!("/session/{id}"),
            _driver: driver,
            _profile: profile,
        }
    }

    pub(crate) async fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// What a script of the test returns in the page. It is not bound to the page's policy.
    pub(crate) async fn script(&self, script: &str, args: &[Value]) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": args }))
            .await
    }

    /// The same of a script that calls its last argument with the result.
    pub(crate) async fn script_later(&self, script: &str) -> Value {
        self.post("/execute/async", json!({ "script": script, "args": [] }))
            .await
    }

    /// The text of the element as it is in the document.
    pub(crate) async fn text(&self, css: &str) -> String {
        let script = "const found = document.querySelector(arguments[0]); return found ? found.textContent : null";
        let text = self.script(script, &[json!(css)]).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// The texts of all such elements.
    pub(crate) async fn texts(&self, css: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)";
        let texts = self.script(script, &[json!(css)]).await;
        serde_json::from_value(texts).expect("they are texts")
    }

    /// Waits until the text of the element has this in it.
    pub(crate) async fn wait_text(&self, css: &str, part: &str) {
        let mut last = String::new();
        let found = until(PATIENCE, async || {
            last = self.text(css).await;
            last.contains(part)
        });
        if found.await.is_none() {
            panic!("{css} does not come to have {part:?}: {last:?}");
        }
    }

    /// Clicks where the element is; fails when it is hidden or behind another.
    pub(crate) async fn click(&self, css: &str) {
        let element = self.element("css selector", css).await;
        self.post(&format!("{element}/click"), json!({})).await;
    }

    /// Clicks the button with this text.
    pub(crate) async fn click_button(&self, text: &str) {
        let is_it = format!("//button[normalize-space()={}]", xpath_text(text));
        let element = self.element("xpath", &is_it).await;
        self.post(&format!("{element}/click"), json!({})).await;
    }

    /// Types into the element after what it has.
    pub(crate) async fn write(&self, css: &str, text: &str) {
        let element = self.element("css selector", css).await;
        self.post(&format!("{element}/value"), json!({ "text": text }))
            .await;
    }

    /// Presses keys where the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        let actions = keys.chars().flat_map(|key| {
            [
                json!({ "type": "keyDown", "value": key }),
                json!({ "type": "keyUp", "value": key }),
            ]
        });
        let actions: Vec<_> = actions.collect();
        let keyboard =
            json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] });
        self.post("/actions", keyboard).await;
    }

    /// Has the page in this colour scheme.
    pub(crate) async fn scheme(&self, name: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": name }]);
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    /// Has the page in a window of this size.
    pub(crate) async fn size(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
    }

    /// A picture of what the window shows.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        let picture = self
            .devtools("Page.captureScreenshot", json!({ "format": "png" }))
            .await;
        let data = picture["data"].as_str().expect("a picture");
        data_encoding::BASE64
            .decode(data.as_bytes())
            .expect("it is base64")
    }

    /// The addresses that pages have asked for, with the methods; without those of the browser's own first page.
    pub(crate) async fn requests(&self) -> Vec<(String, String)> {
        let entries = self.log("performance").await;
        let sent = entries.iter().filter_map(|entry| {
            let told: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &told["message"];
            let request = &message["params"]["request"];
            let page = message["params"]["documentURL"].as_str()?;
            let is_asked = message["method"] == "Network.requestWillBeSent";
            (is_asked && !page.starts_with("chrome:")).then(|| {
                let text = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
                (text("method"), text("url"))
            })
        });
        sent.collect()
    }

    /// What the browser complained of since it was last asked.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let entries = self.log("browser").await;
        let text = |entry: &Value| entry["message"].as_str().unwrap_or_default().to_owned();
        entries.iter().map(text).collect()
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.post("/se/log", json!({ "type": kind })).await;
        entries.as_array().cloned().unwrap_or_default()
    }

    async fn devtools(&self, command: &str, params: Value) -> Value {
        let body = json!({ "cmd": command, "params": params });
        self.post("/goog/cdp/execute", body).await
    }

    /// The path of an element, once there is one.
    async fn element(&self, using: &str, value: &str) -> String {
        let path = format!("{}/element", self.session);
        let wanted = json!({ "using": using, "value": value });
        let what = format!("an element {value}");
        let found = eventually_within(PATIENCE, &what, async || {
            let found = ask(self.addr, "POST", &path, Some(wanted.clone())).await?;
            let (_, id) = found
                .as_object()?
                .iter()
                .find(|(name, _)| name.starts_with("element-"))?;
            id.as_str().map(str::to_owned)
        })
        .await;
        format!("/element/{found}")
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let path = format!("{}{path}", self.session);
        let answer = ask(self.addr, "POST", &path, Some(body)).await;
        let answer = answer.unwrap_or_else(|| panic!("{path}: chromedriver does not answer"));
        assert!(answer.get("error").is_none(), "{path}: {answer}");
        answer
    }
}

/// The `value` of an answer; `None` without one.
async fn ask(addr: SocketAddr, method: &str, path: &str, body: Option<Value>) -> Option<Value> {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = Request::builder().method(method).uri(path);
    let request = request
        .header("host", addr.to_string())
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .expect("a request that HTTP can say");
    let exchange = async {
        let stream = TcpStream::connect(addr).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        driver.abort();
        let answer: Value = serde_json::from_slice(&body).ok()?;
        Some(answer["value"].clone())
    };
    tokio::time::timeout(PATIENCE, exchange).await.ok()?
}

/// A text with quotes of any kind as XPath says it.
fn xpath_text(text: &str) -> String {
    let parts: Vec<_> = text.split('\'').map(|part| format!("'{part}'")).collect();
    format!("concat({}, '')", parts.join(", \"'\", "))
}

/// A browser that starts while others build takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing of it looks for its maker, and it needs no screen and no rights.
const ARGUMENTS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
    "--lang=en",
];
