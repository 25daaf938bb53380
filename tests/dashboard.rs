//! The dashboard in a real browser: an operator clicks through it, a hostile device is only ever text, nothing comes from elsewhere,
//! and axe-core has nothing against it.
#![allow(
    clippy::disallowed_methods,
    reason = "a test is a host, and may start tasks"
)]

#[path = "dashboard/browser.rs"]
mod browser;
#[path = "dashboard/pictures.rs"]
mod pictures;

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};
use support::{Backend, Device, Gateway, Received, Reply, eventually_within, get};

use self::browser::{Browser, key};

/// The token that the page is given.
const TOKEN: &str = "t0ken-of-an-operator";
/// Names that devices chose to get into the page.
const HOSTILE: [&str; 4] = [
    "<img src=x onerror=\"document.title='owned'\">",
    "\"'><script>document.title='owned'</script>",
    "\u{202e}lairetam\u{2066} 4 rotcaer",
    "javascript:document.title='owned'//{{7*7}}${7*7}",
];

#[tokio::test]
async fn an_operator_clicks_through_it() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::new(400));
    let mut gateway = on_disk(&backend).await;
    let mut device = Device::connect(gateway.addr(), "pump 1/ä").await;
    device.send("to be replayed").await;
    backend.wait_for(1).await;
    backend.answer_all(Reply::ok());
    let device = device.attend();
    let browser = Browser::start().await;
    let origin = page(&gateway);
    browser.open(&origin).await;

    // Without the token there is nothing to see.
    browser.wait_text("#message", "wants its token").await;
    assert_eq!(browser.texts("#devices tr").await, [""; 0]);
    browser.write("#token", "wrong").await;
    browser.click_button("Use token").await;
    browser.wait_text("#message", "does not accept").await;
    sign_in(&browser).await;
    let devices = browser.texts("#devices td.id").await;
    assert_eq!(devices, ["pump 1/ä"]);

    // One device: what it is, a message for it, what it says.
    browser.click_button("pump 1/ä").await;
    browser.wait_text("#device-name", "pump 1/ä").await;
    browser.wait_text("#detail", "127.0.0.1:").await;
    browser.write("#text", "hello <b>device</b>").await;
    browser.click_button("Send").await;
    device.wait_text("hello <b>device</b>").await;
    browser.wait_text("#message", "Sent.").await;
    browser.click("#payloads").await;
    browser.click_button("Trace").await;
    wait_enabled(&browser, "#stop").await;
    device.send("an uplink <i>now</i>").await;
    browser.wait_text("#trace", "an uplink <i>now</i>").await;
    browser.wait_text("#trace", "status=200").await;

    // A dead letter is looked at, and delivered again.
    assert_eq!(browser.texts("#letters td.id").await, ["pump 1/ä"]);
    browser.click_button("Show").await;
    browser.wait_text("#letter-detail", "to be replayed").await;
    browser.click_button("Replay").await;
    browser.wait_text("#message", "Delivering it again.").await;
    let is_replayed = |r: &Received| r.is_delivered() && r.data == "to be replayed";
    let replayed = |all: &[Received]| all.iter().any(is_replayed);
    backend
        .wait_until("the letter is delivered", replayed)
        .await;
    browser.wait_text("#letters-count", "None").await;

    // A kick is asked for twice, once in vain.
    browser.click_button("Kick").await;
    browser.wait_text("#ask[open] #ask-text", "pump 1/ä").await;
    browser.click_button("Cancel").await;
    assert!(device.is_open());
    browser.click_button("Kick").await;
    browser.click("#ask-yes").await;
    assert_eq!(device.wait_closed().await.code, Some(4510));
    browser.wait_text("#trace", "reason=kicked").await;
    browser.wait_text("#detail", "kicked (4510)").await;
    browser.wait_text("#detail", "offline").await;
    assert_eq!(browser.texts("#devices tr").await, [""; 0]);
    browser.click("#stop").await;

    // Drain: the device is told, the gateway ends, the page says so.
    let other = Device::connect(gateway.addr(), "pump 2").await.attend();
    browser
        .script("document.querySelector('#window').value = '1'", &[])
        .await;
    browser.click("#draining button").await;
    browser.click("#ask-yes").await;
    assert_eq!(other.wait_closed().await.code, Some(1012));
    browser
        .wait_text("#message", "The gateway does not answer.")
        .await;
    drop(other);
    assert_eq!(gateway.exit_code().await, Some(0));

    // The token was in no URL, and nothing came from elsewhere.
    let requests = browser.requests().await;
    assert!(requests.len() > 10, "{requests:?}");
    for (_, url) in &requests {
        let is_ours = url.starts_with(&origin) || url.starts_with("data:");
        assert!(is_ours && !url.contains(TOKEN), "{url}");
    }
    let refused = |text: &&String| text.contains("Content Security Policy");
    let complaints = browser.complaints().await;
    assert_eq!(complaints.iter().find(refused), None);
    let kept = "return [document.cookie, localStorage.length, sessionStorage.length]";
    assert_eq!(browser.script(kept, &[]).await, json!(["", 0, 0]));
}

#[tokio::test]
async fn names_and_messages_of_hostile_devices_are_only_text() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::new(400).body(HOSTILE[0]));
    let gateway = on_disk(&backend).await;
    let mut devices = Vec::new();
    for name in HOSTILE {
        let device = Device::connect(gateway.addr(), name).await.attend();
        device.send(name).await;
        devices.push(device);
    }
    backend.wait_for(HOSTILE.len()).await;
    let browser = Browser::start().await;
    browser.open(&page(&gateway)).await;
    sign_in(&browser).await;
    let mut names = HOSTILE.map(String::from).to_vec();
    names.sort();
    assert_eq!(browser.texts("#devices td.id").await, names);
    eventually_within(PATIENCE, "all letters are in the page", async || {
        browser.click("#letters-again").await;
        let mut letters = browser.texts("#letters td.id").await;
        letters.sort();
        letters == names
    })
    .await;
    browser.click("#payloads").await;
    for (device, name) in devices.iter().zip(HOSTILE) {
        browser.click_button(name).await;
        browser.wait_text("#device-name", name).await;
        browser.click_button("Kick").await;
        browser.wait_text("#ask[open] #ask-text", name).await;
        browser.press(key::ESCAPE).await;
        browser.click_button("Trace").await;
        wait_enabled(&browser, "#stop").await;
        device.send(name).await;
        browser.wait_text("#trace", name).await;
        browser.write("#text", name).await;
        browser.click_button("Send").await;
        device.wait_text(name).await;
        browser.click_button("Refresh").await;
    }
    for button in 1..=HOSTILE.len() {
        let show = format!("#letters tr:nth-child({button}) button");
        let name = browser
            .text(&format!("#letters tr:nth-child({button}) td"))
            .await;
        browser.click(&show).await;
        browser.wait_text("#letter-name", &name).await;
        browser.wait_text("#letter-detail", &name).await;
    }
    let grown = "return [document.title, document.images.length, document.scripts.length, document.links.length]";
    assert_eq!(
        browser.script(grown, &[]).await,
        json!(["Fastsock", 0, 1, 1])
    );

    // The policy is the second wall: even a script or a handler that got into the page would not run.
    browser
        .script(
            "const script = document.createElement('script'); script.textContent = \"document.title = 'owned'\"; \
             const picture = document.createElement('img'); picture.setAttribute('onerror', \"document.title = 'owned'\"); \
             picture.src = 'http://127.0.0.1:9/x.png'; document.body.append(script, picture)",
            &[],
        )
        .await;
    let mut complaints = Vec::new();
    eventually_within(PATIENCE, "both are refused", async || {
        complaints.extend(browser.complaints().await);
        let refused = complaints
            .iter()
            .filter(|text| text.contains("Content Security Policy"));
        refused.count() >= 2
    })
    .await;
    assert_eq!(browser.text("title").await, "Fastsock");
    let head = get(gateway.admin_addr(), "/").await;
    let policy = head.headers["content-security-policy"].to_str().unwrap();
    assert!(
        !policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert_eq!(head.headers["x-frame-options"], "DENY");
}

#[tokio::test]
async fn the_keyboard_does_all_of_it() {
    let backend = Backend::start().await;
    let gateway = on_disk(&backend).await;
    let device = Device::connect(gateway.addr(), "dev1").await.attend();
    let browser = Browser::start().await;
    browser.open(&page(&gateway)).await;
    // The first stop leads past the head of the page; the field of the token is the second.
    browser.press(key::TAB).await;
    assert_eq!(focus(&browser).await, "skip");
    browser.press(key::TAB).await;
    assert_eq!(focus(&browser).await, "token");
    browser.press(TOKEN).await;
    browser.press(key::ENTER).await;
    browser.wait_text("#state", "running").await;
    browser.wait_text("#devices", "dev1").await;
    // Every control can be reached, and shows that it is.
    let all = browser.script(
        "return [...document.querySelectorAll('a, button, input, textarea, [tabindex=\"0\"]')].filter(e => e.checkVisibility() && !e.disabled).length",
        &[],
    );
    let all = all.await.as_u64().unwrap();
    browser
        .script("document.activeElement.blur(); window.scrollTo(0, 0)", &[])
        .await;
    browser.click("h1").await;
    let mut reached = 0;
    loop {
        browser.press(key::TAB).await;
        let outline = "const e = document.activeElement; return e === document.body ? '' : getComputedStyle(e).outlineStyle";
        match browser.script(outline, &[]).await.as_str() {
            Some("") => break,
            Some("none") => panic!("{} does not show its focus", focus(&browser).await),
            _ => reached += 1,
        }
        assert!(reached <= all, "Tab leads round in a circle");
    }
    assert!(reached + 1 >= all, "{reached} of {all}"); // the click on the heading begins behind the first
    // A device is opened, and kicked, without a mouse; the question begins where it does no harm.
    browser
        .script("document.querySelector('#devices button').focus()", &[])
        .await;
    browser.press(key::SPACE).await;
    browser.wait_text("#device-name", "dev1").await;
    wait_focus(&browser, "device-name").await;
    browser.press(key::TAB).await;
    assert_eq!(focus(&browser).await, "text");
    for _ in 0..4 {
        browser.press(key::TAB).await;
    }
    assert_eq!(focus(&browser).await, "kick");
    browser.press(key::ENTER).await;
    browser.wait_text("#ask[open] #ask-text", "dev1").await;
    assert_eq!(
        browser
            .script("return document.activeElement.value", &[])
            .await,
        "no"
    );
    browser.press(key::ESCAPE).await;
    wait_focus(&browser, "kick").await;
    assert!(device.is_open());
    // The page hears that the question was closed only after the next one is open.
    let ask_twice = "const kick = document.activeElement; kick.click(); document.getElementById('ask').close(); kick.click()";
    browser.script(ask_twice, &[]).await;
    browser.wait_text("#ask[open] #ask-text", "dev1").await;
    browser.press(key::TAB).await;
    browser.press(key::ENTER).await;
    assert_eq!(device.wait_closed().await.code, Some(4510));
}

async fn focus(browser: &Browser) -> String {
    let id = browser
        .script("return document.activeElement.id", &[])
        .await;
    id.as_str().unwrap_or_default().to_owned()
}

async fn wait_focus(browser: &Browser, id: &str) {
    let what = format!("{id} has the focus");
    eventually_within(PATIENCE, &what, async || focus(browser).await == id).await;
}

async fn wait_enabled(browser: &Browser, css: &str) {
    let script = "return !document.querySelector(arguments[0]).disabled";
    let what = format!("{css} is enabled");
    let is_enabled = async || browser.script(script, &[json!(css)]).await == Value::Bool(true);
    eventually_within(PATIENCE, &what, is_enabled).await;
}

/// Types the token into the page and waits for the list of devices.
async fn sign_in(browser: &Browser) {
    browser.write("#token", TOKEN).await;
    browser.click_button("Use token").await;
    browser.wait_text("#state", "running").await;
    browser.wait_text("#count", "connected here").await;
}

async fn on_disk(backend: &Backend) -> Gateway {
    let builder = Gateway::builder().admin();
    let builder = builder
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_ADMIN_TOKEN", TOKEN)
        .var("FASTSOCK_SPOOL", "disk")
        .var("FASTSOCK_SPOOL_FSYNC", "interval")
        .var("FASTSOCK_DATA_DIR", "data")
        .var("WEBSOCKET_PING_INTERVAL", "1000")
        .var("REMOTE_URL", backend.url());
    builder.start().await
}

fn page(gateway: &Gateway) -> String {
    format!("http://{}/", gateway.admin_addr())
}

/// The root of the project.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("it is below the root")
}

/// A browser that starts while others build takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
