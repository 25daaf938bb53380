//! What the page looks like: axe-core judges it in both colour schemes, and pictures at three widths are kept in docs/dashboard.

use std::env;

use super::*;

#[tokio::test]
async fn axe_has_nothing_against_it_and_it_fits_every_width() {
    let backend = Backend::start().await;
    let gateway = on_disk(&backend).await;
    backend.answer(|request| match request.data.contains("bad") {
        true => Reply::new(422),
        false => Reply::ok(),
    });
    let mut devices = Vec::new();
    for name in ["boiler-17", "gate/north", "meter-0042", "pump-1", "pump-2"] {
        let device = Device::connect(gateway.addr(), name).await.attend();
        device.send(r#"{"temperature":21.5}"#).await;
        devices.push(device);
    }
    devices[2].send("bad reading").await;
    backend.wait_for(devices.len() + 1).await;
    let browser = Browser::start().await;
    browser.size(1280, 900).await;
    browser.open(&page(&gateway)).await;
    sign_in(&browser).await;
    eventually_within(PATIENCE, "the letter is in the page", async || {
        browser.click("#letters-again").await;
        !browser.texts("#letters td.id").await.is_empty()
    })
    .await;
    // All parts of the page are shown.
    browser.click_button("meter-0042").await;
    browser.wait_text("#device-name", "meter-0042").await;
    browser.click_button("Show").await;
    browser.wait_text("#letter-detail", "bad reading").await;
    browser.click("#payloads").await;
    browser.click_button("Trace").await;
    wait_enabled(&browser, "#stop").await;
    devices[2].send(r#"{"volts":230.1}"#).await;
    browser.wait_text("#trace", "volts").await;
    browser.wait_text("#trace", "status=200").await;
    browser.wait_text("#slowest", " ms").await;

    let axe = fs::read_to_string(root().join("target/tools/npm/node_modules/axe-core/axe.min.js"));
    let axe = axe.expect("scripts/setup test installs axe-core");
    browser.script(&axe, &[]).await;
    for scheme in ["light", "dark"] {
        browser.scheme(scheme).await;
        for (width, height) in WINDOWS {
            browser.size(width, height).await;
            let overhang = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(browser.script(overhang, &[]).await, 0, "{width} pixels");
            assert_eq!(violations(&browser).await, "", "{scheme}, {width} pixels");
        }
        browser.click_button("Kick").await;
        browser
            .wait_text("#ask[open] #ask-text", "meter-0042")
            .await;
        assert_eq!(violations(&browser).await, "", "{scheme}, a question");
        browser.press(key::ESCAPE).await;
    }

    browser
        .script("document.activeElement.blur(); window.scrollTo(0, 0)", &[])
        .await;
    for ((width, height), scheme) in WINDOWS.into_iter().zip(["light", "light", "dark"]) {
        browser.scheme(scheme).await;
        browser.size(width, height).await;
        let path = root().join(format!("docs/dashboard/{width}.png"));
        let picture = browser.picture().await;
        if env::var_os("FASTSOCK_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &picture).unwrap();
        }
        let kept = fs::read(&path).expect("FASTSOCK_BLESS=1 takes it");
        assert_eq!(size(&kept), size(&picture), "{}", path.display());
        assert!(kept.len() < 300_000, "{}", path.display());
    }
}

/// What axe-core says is wrong, a line each.
async fn violations(browser: &Browser) -> String {
    let found = browser.script_later(
        "const done = arguments[0]; axe.run(document, { resultTypes: ['violations'] }).then(\
         found => done(found.violations.flatMap(v => v.nodes.map(n => v.id + ': ' + n.html + ' ' + n.failureSummary)).join('\\n')), \
         error => done('axe: ' + error))",
    );
    let found = found.await;
    found
        .as_str()
        .map_or_else(|| found.to_string(), str::to_owned)
}

/// Width and height of a PNG.
fn size(png: &[u8]) -> [u32; 2] {
    [16, 20].map(|at| u32::from_be_bytes(png[at..at + 4].try_into().unwrap()))
}

/// A desk, a tablet, a telephone.
const WINDOWS: [(u32, u32); 3] = [(1280, 900), (800, 900), (360, 780)];
