//! `/metrics` and `Bridge::metrics`: what they say, that tools which are no code of ours understand it, and that the dashboards and
//! alerts in `deploy/` ask for what is there.

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use fastsock::{Bridge, Metric, MetricKind, MetricsFormat};
use support::{
    Backend, DEADLINE, Device, Gateway, Process, Reply, TempRedis, call, eventually, free_port,
    get, until,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::programs::{content, found, python, root};

#[tokio::test]
async fn the_figures_are_those_of_what_happened() {
    let backend = Backend::start().await;
    backend.queue([Reply::new(503), Reply::ok(), Reply::new(400)]);
    let config = support::loopback()
        .websocket_ping_interval(Duration::from_millis(300))
        .remote_url(backend.url());
    let bridge = Bridge::builder(config).start().await.unwrap();
    let device = Device::connect(bridge.local_addr(), "dev1").await.attend();
    assert!(Device::try_connect(bridge.local_addr(), "").await.is_err());
    device.send("once more").await;
    device.send("never").await;
    backend.wait_for(3).await;
    let dev1 = fastsock::ClientId::new("dev1").unwrap();
    bridge.send(&dev1, "hello".into()).await.unwrap();
    device.wait_text("hello").await;
    eventually("a pong", async || {
        value(&bridge, "fastsock_ping_round_trip_seconds_count") >= 1.0
    })
    .await;
    eventually("the books", async || {
        value(&bridge, "fastsock_uplinks_held") == 0.0
    })
    .await;
    for (series, expected) in [
        ("fastsock_sessions", 1.0),
        ("fastsock_sessions_opened_total", 1.0),
        ("fastsock_state{state=\"running\"}", 1.0),
        ("fastsock_state{state=\"degraded\"}", 0.0),
        ("fastsock_handshakes_total{result=\"accepted\"}", 1.0),
        ("fastsock_handshakes_total{result=\"refused\"}", 1.0),
        ("fastsock_handshakes_refused_total{status=\"401\"}", 1.0),
        ("fastsock_uplinks_received_total", 2.0),
        ("fastsock_uplinks_delivered_total", 1.0),
        ("fastsock_uplinks_lost_total{reason=\"rejected\"}", 1.0),
        (
            "fastsock_posts_total{destination=\"remote\",result=\"2xx\"}",
            1.0,
        ),
        (
            "fastsock_posts_total{destination=\"remote\",result=\"4xx\"}",
            1.0,
        ),
        (
            "fastsock_posts_total{destination=\"remote\",result=\"5xx\"}",
            1.0,
        ),
        ("fastsock_post_seconds_count{destination=\"remote\"}", 3.0),
        ("fastsock_uplink_delivery_seconds_count", 1.0),
        (
            "fastsock_breaker_state{destination=\"remote\",state=\"closed\"}",
            1.0,
        ),
        ("fastsock_downlinks_delivered_total", 1.0),
        ("fastsock_dead_letters", 1.0),
    ] {
        assert_eq!(value(&bridge, series), expected, "{series}");
    }
    // The first attempt was put off: the message took longer than that.
    assert!(value(&bridge, "fastsock_uplink_delivery_seconds_sum") > 0.0);
    let text = bridge.metrics(MetricsFormat::Text);
    assert!(!text.contains("dev1"), "no client id is told");
    assert!(!text.contains("process_"), "nor is the host");
    drop(device);
    bridge.stop(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn what_waits_has_an_age_and_a_size() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let gateway = Gateway::builder()
        .admin()
        .var("FASTSOCK_BROKER", "embedded")
        .var("REMOTE_URL", backend.url())
        .start()
        .await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("x".repeat(1000)).await;
    backend.wait_for(1).await;
    let figure = async |series: &str| {
        let text = get(gateway.admin_addr(), "/metrics").await.text();
        find(&text, series).unwrap_or_else(|| panic!("no {series} in {text}"))
    };
    let before = figure("fastsock_uplinks_oldest_seconds").await;
    assert_eq!(figure("fastsock_uplinks_held").await, 1.0);
    assert!(figure("fastsock_uplinks_held_bytes").await > 1000.0);
    assert_eq!(
        figure("fastsock_posts_in_flight{destination=\"remote\"}").await,
        1.0
    );
    eventually("it ages", async || {
        figure("fastsock_uplinks_oldest_seconds").await > before
    })
    .await;
    // The binary tells of its process as well.
    assert!(figure("process_open_fds").await >= 5.0);
    assert!(figure("process_resident_memory_bytes").await > 1e6);
}

#[tokio::test]
async fn who_accepts_openmetrics_gets_it_and_who_has_no_token_gets_nothing() {
    let gateway = Gateway::builder()
        .admin()
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_ADMIN_TOKEN", "0123456789abcdef")
        .start()
        .await;
    let admin = gateway.admin_addr();
    let token = ("authorization", "Bearer 0123456789abcdef");
    let open = ("accept", "application/openmetrics-text; version=1.0.0");
    for (method, headers, status, content_type) in [
        (
            "GET",
            &[token][..],
            200,
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        (
            "HEAD",
            &[token],
            200,
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        (
            "GET",
            &[token, open],
            200,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        ("GET", &[], 401, "application/json"),
        ("POST", &[token], 405, "application/json"),
        (
            "GET",
            &[token, ("host", "evil.example")],
            403,
            "application/json",
        ),
    ] {
        let answer = call(admin, method, "/metrics", headers, "").await;
        assert_eq!(answer.status, status, "{method} {headers:?}");
        assert_eq!(answer.headers["content-type"], content_type);
        assert_eq!(answer.body.is_empty(), method == "HEAD");
    }
}

#[tokio::test]
async fn the_tools_of_prometheus_find_no_fault() {
    let redis = TempRedis::new().await;
    let dir = TempDir::new().unwrap();
    let backend = Backend::start().await;
    let config = support::loopback()
        .broker(fastsock::BrokerKind::Redis)
        .redis_port(redis.port())
        .spool(fastsock::SpoolKind::Disk)
        .mailbox(fastsock::MailboxKind::Disk)
        .data_dir(dir.path().to_owned())
        .events_url(backend.url())
        .remote_url(backend.url());
    let bridge = Bridge::builder(config)
        .process_metrics()
        .start()
        .await
        .unwrap();
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    device.send("hello").await;
    backend.wait_for(2).await;
    device.close(1000).await;
    eventually("the session is over", async || {
        value(&bridge, "fastsock_sessions") == 0.0
    })
    .await;
    let [classic, open] =
        [MetricsFormat::Text, MetricsFormat::OpenMetrics].map(|f| bridge.metrics(f));
    // With all parts there, each metric of the table has a sample.
    for metric in Metric::all() {
        let name = match metric.kind {
            MetricKind::Histogram => format!("{}_count", metric.name),
            _ => metric.name.to_owned(),
        };
        let is_absent = match &*name {
            "fastsock_handshakes_refused_total" => true, // nobody was
            name => name.starts_with("fastsock_route_"), // there are none
        };
        for text in [&classic, &open] {
            assert_eq!(names(text).contains(&name), !is_absent, "{name} in {text}");
        }
    }
    content(
        Command::new(python())
            .args(["-c", PARSE])
            .arg(names(&open).len().to_string()),
        &open,
    );
    let promtool = found("promtool", "prometheus");
    let said = content(Command::new(promtool).args(["check", "metrics"]), &classic);
    assert_eq!(said, "", "not even a hint");
    bridge.stop(Duration::from_secs(2)).await;
}

/// Reads OpenMetrics as strictly as the library of Prometheus for Python does.
const PARSE: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
names = {sample.name for family in parse(sys.stdin.read()) for sample in family.samples}
assert len(names) == int(sys.argv[1]), names
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_scrapes_both_formats() {
    let prometheus = found("prometheus", "prometheus");
    let gateway = Gateway::builder()
        .admin()
        .var("FASTSOCK_BROKER", "embedded")
        .start()
        .await;
    let _device = Device::connect(gateway.addr(), "dev1").await;
    let admin = gateway.admin_addr();
    // Prometheus asks for OpenMetrics; who knows only the classic format does not.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let classic = listener.local_addr().unwrap();
    let relay = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _head = stream.read(&mut [0; 4096]).await;
            let answer = get(admin, "/metrics").await;
            let content_type = answer.headers["content-type"].to_str().unwrap();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                answer.body.len()
            );
            let _ = stream
                .write_all(&[head.as_bytes(), &answer.body].concat())
                .await;
        }
    });
    let dir = TempDir::new().unwrap();
    let job = |name, addr| {
        format!("  - job_name: {name}\n    static_configs: [{{ targets: ['{addr}'] }}]\n")
    };
    let config = format!(
        "global: {{ scrape_interval: 200ms }}\nrule_files: ['{}']\nscrape_configs:\n{}{}",
        root()
            .join("deploy/prometheus/fastsock.rules.yml")
            .display(),
        job("open", admin),
        job("classic", classic)
    );
    fs::write(dir.path().join("prometheus.yml"), config).unwrap();
    let port = free_port();
    let process = Process::start(&prometheus.to_string_lossy(), |command| {
        command
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(dir.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
    });
    let addr = ([127, 0, 0, 1], port).into();
    eventually("it listens", async || {
        tokio::net::TcpStream::connect(addr).await.is_ok()
    })
    .await;
    eventually("both are scraped", async || {
        let path = "/api/v1/query?query=fastsock_sessions";
        let answer = get(addr, path).await;
        if answer.status != 200 {
            return false; // it starts
        }
        let found = answer.json();
        let mut samples: Vec<_> = found["data"]["result"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|sample| format!("{} {}", sample["metric"]["job"], sample["value"][1]))
            .collect();
        samples.sort();
        samples == ["\"classic\" \"1\"", "\"open\" \"1\""]
    })
    .await;
    // A scrape has 200 ms, which a busy machine may miss now and then; what cannot be read fails each time.
    let mut errors = Vec::new();
    let is_read = until(DEADLINE, async || {
        let targets = get(addr, "/api/v1/targets").await.json();
        let targets = targets["data"]["activeTargets"].as_array().unwrap();
        errors = targets.iter().map(|t| t["lastError"].clone()).collect();
        errors == ["", ""]
    });
    let is_read = is_read.await.is_some();
    assert!(is_read, "{errors:?}");
    drop(process);
    relay.abort();
}

#[test]
fn each_query_in_deploy_names_a_metric_that_is_there() {
    for file in [
        "deploy/prometheus/fastsock.rules.yml",
        "deploy/grafana/fastsock.json",
    ] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let mut known: BTreeSet<_> = Metric::all().iter().flat_map(series_of).collect();
        known.extend(Metric::all().iter().map(|metric| metric.name.to_owned())); // in what is for people
        let asked =
            words(&text).filter(|w| w.starts_with("fastsock_") || w.starts_with("process_"));
        let mut count = 0;
        for name in asked {
            assert!(known.contains(name), "{file}: there is no {name}");
            count += 1;
        }
        assert!(count > 10, "{file}");
    }
    let promtool = found("promtool", "prometheus");
    let rules = root().join("deploy/prometheus/fastsock.rules.yml");
    content(
        Command::new(&promtool).args(["check", "rules"]).arg(rules),
        "",
    );
    let cases = root().join("deploy/prometheus/fastsock.rules.test.yml");
    content(
        Command::new(promtool).args(["test", "rules"]).arg(cases),
        "",
    );
}

#[test]
fn prometheus_and_grafana_understand_the_dashboard() {
    let json = fs::read_to_string(root().join("deploy/grafana/fastsock.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&json).unwrap();
    let all = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = all.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), all.len(), "panels of the same id");
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for panel in all.iter().filter(|panel| panel["type"] != "row") {
        // What the types of Grafana ask of a panel (@grafana/schema).
        let options = &panel["options"];
        assert!(options["legend"]["showLegend"].is_boolean(), "{panel}");
        assert!(options["legend"]["calcs"].is_array(), "{panel}");
        assert!(options["tooltip"]["sort"].is_string(), "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let legend = target["legendFormat"].as_str().unwrap();
            let metric = Metric::all()
                .iter()
                .find(|metric| {
                    let series = series_of(metric);
                    words(query).any(|word| series.iter().any(|name| name == word))
                })
                .unwrap_or_else(|| panic!("{query}: no metric"));
            // A label that nobody sets would make all lines one.
            let shown = legend
                .split("{{")
                .skip(1)
                .filter_map(|rest| rest.split("}}").next());
            for label in shown {
                let is_there = label == "instance" || metric.labels.contains(&label);
                assert!(is_there, "{query}: {} has no {label}", metric.name);
            }
            let asked = query
                .replace("$__rate_interval", "5m")
                .replace("$job", ".*")
                .replace("$instance", ".*");
            let number = rules.lines().count(); // no two rules of one name
            rules += &format!("  - record: \"query:{number}\"\n    expr: '{asked}'\n");
        }
    }
    assert!(
        !rules.contains('$'),
        "a variable that is not known: {rules}"
    );
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("dashboard.yml");
    fs::write(&file, rules).unwrap();
    let promtool = found("promtool", "prometheus");
    content(
        Command::new(promtool).args(["check", "rules"]).arg(file),
        "",
    );
}

/// The names that a metric is scraped under.
fn series_of(metric: &Metric) -> Vec<String> {
    match metric.kind {
        MetricKind::Histogram => ["bucket", "sum", "count"]
            .map(|part| format!("{}_{part}", metric.name))
            .to_vec(),
        _ => vec![metric.name.to_owned()],
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

/// The names of all samples, without labels.
fn names(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let names = samples.filter_map(|line| line.split(['{', ' ']).next());
    names.map(str::to_owned).collect()
}

fn value(bridge: &Bridge, series: &str) -> f64 {
    let text = bridge.metrics(MetricsFormat::Text);
    find(&text, series).unwrap_or_else(|| panic!("no {series} in {text}"))
}

fn find(text: &str, series: &str) -> Option<f64> {
    let sample = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    sample?.parse().ok()
}
