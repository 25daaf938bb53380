//! Traces: the `traceparent` of a device on its POSTs, and a span of each POST for a collector, as the protocol's own definition has it.

use std::process::Command;

use serde_json::{Value, json};
use support::{Backend, Device, Gateway, GatewayBuilder, Reply, eventually};

use crate::programs::{content, python};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

#[tokio::test]
async fn the_trace_of_a_device_goes_on_to_the_backend_and_to_a_collector() {
    let (backend, collector) = (Backend::start().await, Backend::start().await);
    backend.queue([Reply::new(503), Reply::ok()]);
    let gateway = tracing(&backend, &collector);
    let gateway = gateway.var("FASTSOCK_OTLP_HEADERS", r#"{"X-Key":"k3y"}"#);
    let mut gateway = gateway.start().await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let mut device = connect(
        &gateway,
        "dev1",
        &[("traceparent", &parent), ("tracestate", "a=b,c=d")],
    )
    .await;
    device.send("hello").await;
    for post in backend.wait_for(2).await {
        assert_eq!(post.header("traceparent"), Some(&*parent));
        assert_eq!(post.header("tracestate"), Some("a=b,c=d"));
    }
    let found = eventually("both spans", async || {
        let spans = spans(&collector);
        (spans.len() == 2).then_some(spans)
    })
    .await;
    for (span, status) in found.iter().zip([503, 200]) {
        assert_eq!(
            (&span["traceId"], &span["parentSpanId"]),
            (&json!(TRACE), &json!(SPAN))
        );
        assert_eq!((&span["name"], &span["kind"]), (&json!("POST"), &json!(3)));
        assert_eq!(
            attribute(span, "http.response.status_code")["intValue"],
            status.to_string()
        );
        assert_eq!(attribute(span, "fastsock.client_id")["stringValue"], "dev1");
        assert_eq!(span["status"]["code"] == 2, status == 503, "{span}");
        let nanos = |name: &str| span[name].as_str().unwrap().parse::<u128>().unwrap();
        assert!(nanos("startTimeUnixNano") < nanos("endTimeUnixNano"));
    }
    assert_ne!(found[0]["spanId"], found[1]["spanId"]);
    let export = &collector.requests()[0];
    assert_eq!(
        (export.target.as_str(), export.header("content-type")),
        ("/v1/traces", Some("application/json"))
    );
    assert_eq!(export.header("x-key"), Some("k3y"));

    // A device of no trace begins one, one that is not sampled has no span, and what has not gone yet goes at the stop.
    let mut without = connect(&gateway, "dev2", &[]).await;
    let mut unsampled = connect(
        &gateway,
        "dev3",
        &[("traceparent", &format!("00-{TRACE}-{SPAN}-00"))],
    )
    .await;
    unsampled.send("never seen").await;
    backend.wait_delivered("dev3", 1).await;
    without.send("hello").await;
    let posted = backend.wait_delivered("dev2", 1).await;
    assert_eq!(
        (posted, backend.requests_of("dev2")[0].header("traceparent")),
        (vec!["hello".into()], None)
    );
    assert_eq!(gateway.stop().await, Some(0));
    let all = spans(&collector);
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(
        attribute(&all[2], "fastsock.client_id")["stringValue"],
        "dev2"
    );
    assert_eq!(all[2].get("parentSpanId"), None);
    assert!(all[2]["traceId"] != TRACE && all[2]["traceId"].as_str().unwrap().len() == 32);

    // The definition of the protocol knows every field of it.
    for export in collector.requests() {
        let read = content(
            Command::new(python()).args(["-c", READ]),
            &export.json().to_string(),
        );
        assert_eq!(read.trim(), "fastsock");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_costs_its_spans_and_nothing_else() {
    let (backend, collector) = (Backend::start().await, Backend::start().await);
    collector.answer_all(Reply::new(500));
    let mut gateway = tracing(&backend, &collector).start().await;
    let mut device = connect(&gateway, "dev1", &[]).await;
    for n in 0..3 {
        device.send(format!("#{n}")).await;
    }
    backend.wait_delivered("dev1", 3).await;
    let told = gateway.wait_line("Lost spans").await;
    assert_eq!(told["reason"], "the collector refuses them");

    // What it does not take now it gets later.
    let refused = collector.count();
    collector.answer_all(Reply::new(503));
    device.send("more").await;
    backend.wait_delivered("dev1", 4).await;
    let asked = collector.wait_for(refused + 1).await;
    let span = |export: &support::Received| {
        let export = export.json();
        export["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["spanId"].clone()
    };
    let waiting = span(&asked[refused]);
    collector.answer_all(Reply::ok());
    let taken = |request: &&support::Received| request.is_delivered();
    let taken = eventually("the span", async || {
        collector.requests().iter().find(taken).map(span)
    })
    .await;
    assert_eq!(taken, waiting);

    // One that never answers holds up no stop.
    collector.answer_all(Reply::hang());
    device.send("last").await;
    backend.wait_delivered("dev1", 5).await;
    assert_eq!(gateway.stop().await, Some(0));
    let lost = gateway.wait_line_where("what the stop lost", |line| {
        line["message"] == "Lost spans" && line["reason"] == "the bridge stops"
    });
    assert_eq!(lost.await["count"], 1);
}

#[tokio::test]
async fn a_post_carries_the_trace_of_its_device_and_no_other() {
    let backend = Backend::start().await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let valid: &[(&'static str, &str)] = &[("traceparent", &parent), ("tracestate", "a=b")];
    let started = |more: &[(&str, &str)]| {
        let gateway = Gateway::builder().var("FASTSOCK_BROKER", "embedded");
        let gateway = gateway.var("REMOTE_URL", backend.url());
        let set = |gateway: GatewayBuilder, &(name, value): &(&str, &str)| gateway.var(name, value);
        more.iter().fold(gateway, set).start()
    };
    let posted = async |gateway: &Gateway, name: &str, headers: &[(&'static str, &str)]| {
        connect(gateway, name, headers).await.send("hello").await;
        backend.wait_delivered(name, 1).await;
        let requests = backend.requests_of(name);
        let header = |name: &str| requests[0].header(name).map(str::to_owned);
        (header("traceparent"), header("tracestate"))
    };
    let gateway = started(&[]).await;
    let both = (Some(parent.clone()), Some("a=b".to_owned()));
    assert_eq!(posted(&gateway, "dev1", valid).await, both);
    let bad = &[("traceparent", "00-0-0-01"), ("tracestate", "a=b")];
    assert_eq!(posted(&gateway, "dev2", bad).await, (None, None));
    let twice = &[("traceparent", &*parent), ("traceparent", &*parent)];
    assert_eq!(posted(&gateway, "dev3", twice).await, (None, None));
    let half = &[("traceparent", &*parent), ("tracestate", "not a member")];
    assert_eq!(
        posted(&gateway, "dev4", half).await,
        (Some(parent.clone()), None)
    );
    assert_eq!(posted(&gateway, "dev5", &[]).await, (None, None));

    let gateway = started(&[("FASTSOCK_REMOTE_EXTRA_HEADERS", "off")]).await;
    assert_eq!(posted(&gateway, "dev6", valid).await, (None, None));
    let gateway = started(&[("REMOTE_HEADERS", r#"{"TraceParent":null}"#)]).await;
    assert_eq!(posted(&gateway, "dev7", valid).await, (None, None));
    // The device's own words come after what the gateway made of them, and once.
    let gateway = started(&[
        ("FASTSOCK_REMOTE_CONTEXT", "on"),
        ("FASTSOCK_REMOTE_FORWARD_HEADERS", "traceparent"),
    ])
    .await;
    assert_eq!(posted(&gateway, "dev8", valid).await, both);
    let names = backend.requests_of("dev8").remove(0).headers;
    let count = names
        .iter()
        .filter(|(name, _)| name == "traceparent")
        .count();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn a_trace_goes_through_a_durable_spool() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::new(503));
    let data = tempfile::tempdir().unwrap();
    let started = || {
        Gateway::builder()
            .var("FASTSOCK_BROKER", "embedded")
            .var("REMOTE_URL", backend.url())
            .var("FASTSOCK_SPOOL", "disk")
            .var("FASTSOCK_DATA_DIR", data.path().display().to_string())
            .start()
    };
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let mut gateway = started().await;
    let mut device = connect(&gateway, "dev1", &[("traceparent", &parent)]).await;
    device.send("hello").await;
    backend.wait_for(1).await;
    assert_eq!(gateway.stop().await, Some(0));
    backend.answer_all(Reply::ok());
    let _next = started().await;
    backend.wait_delivered("dev1", 1).await;
    let requests = backend.requests_of("dev1");
    assert_eq!(
        requests.last().unwrap().header("traceparent"),
        Some(&*parent)
    );
}

/// Its own checks included: what is hex in this JSON is base64 in that of protobuf.
const READ: &str = r#"
import base64, json, sys
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
export = json.load(sys.stdin)
for resource in export["resourceSpans"]:
    for scope in resource["scopeSpans"]:
        for span in scope["spans"]:
            for name in ("traceId", "spanId", "parentSpanId"):
                if name in span:
                    span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
request = json_format.ParseDict(export, ExportTraceServiceRequest())
for span in request.resource_spans[0].scope_spans[0].spans:
    assert len(span.trace_id) == 16 and len(span.span_id) == 8 and span.name == "POST", span
print(request.resource_spans[0].resource.attributes[0].value.string_value)
"#;

async fn connect(gateway: &Gateway, name: &str, headers: &[(&'static str, &str)]) -> Device {
    let target = format!("/?token={name}");
    Device::request(gateway.addr(), &target, headers)
        .await
        .expect("it is let in")
}

fn tracing(backend: &Backend, collector: &Backend) -> GatewayBuilder {
    Gateway::builder()
        .var("FASTSOCK_BROKER", "embedded")
        .var("REMOTE_URL", backend.url())
        .var(
            "FASTSOCK_OTLP_URL",
            format!("http://{}/v1/traces", collector.addr()),
        )
}

/// All spans so far, in the order in which they came.
fn spans(collector: &Backend) -> Vec<Value> {
    let exports = collector.requests();
    let scopes = exports.iter().flat_map(|export| {
        let export = export.json();
        export["resourceSpans"].as_array().unwrap().clone()
    });
    let scopes = scopes.flat_map(|resource| resource["scopeSpans"].as_array().unwrap().clone());
    scopes
        .flat_map(|scope| scope["spans"].as_array().unwrap().clone())
        .collect()
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    &found.unwrap_or_else(|| panic!("no {key}: {span}"))["value"]
}
