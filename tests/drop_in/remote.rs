//! The way to the backend: redirects, proxies, certificates.

use support::{Authority, Backend, Device, Gateway, GatewayBuilder, Proxy, Reply};

use crate::common::{alone, forwarding};

const SECRETS: &str =
    r#"{"Authorization":"Bearer s3cret","X-Api-Key":"s3cret","Content-Type":"application/json"}"#;

#[tokio::test]
async fn a_307_or_308_is_followed_with_method_and_body() {
    for status in [307, 308] {
        let backend = Backend::start().await;
        let gateway = forwarding(&backend)
            .var("REMOTE_HEADERS", SECRETS)
            .start()
            .await;
        backend.queue([
            Reply::redirect(status, "/moved?to=here"),
            Reply::redirect(status, "again"),
        ]);
        let mut device = Device::connect(gateway.addr(), "dev1").await;
        device.send("hello").await;
        let all = backend.wait_for(3).await;
        let targets: Vec<_> = all.iter().map(|request| request.target.as_str()).collect();
        assert_eq!(targets, ["/uplink", "/moved?to=here", "/again"]);
        for request in &all {
            assert_eq!(
                (request.method.as_str(), request.data.as_str()),
                ("POST", "hello")
            );
            assert_eq!(
                request.header("authorization"),
                Some("Bearer s3cret"),
                "the same host"
            );
            assert_eq!(
                request.header("idempotency-key"),
                all[0].header("idempotency-key")
            );
        }
        gateway.wait_line("Forwarded message to remote").await;
    }
}

#[tokio::test]
async fn secrets_do_not_follow_a_redirect_to_another_host() {
    let (backend, other) = (Backend::start().await, Backend::start().await);
    let gateway = forwarding(&backend)
        .var("REMOTE_HEADERS", SECRETS)
        .start()
        .await;
    backend.queue([Reply::redirect(307, other.url())]);
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("hello").await;
    let request = &other.wait_for(1).await[0];
    assert_eq!(request.body, r#"{"client_id":"dev1","data":"hello"}"#);
    assert_eq!(request.header("authorization"), None);
    assert_eq!(request.header("x-api-key"), None);
    assert_eq!(request.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn secrets_do_not_follow_a_redirect_from_https_to_http() {
    let (authority, plain) = (Authority::new(), Backend::start().await);
    let backend = Backend::start_tls(&authority).await;
    let gateway = forwarding(&backend)
        .var("REMOTE_HEADERS", SECRETS)
        .var("FASTSOCK_REMOTE_CA", authority.ca_path().to_string_lossy())
        .start()
        .await;
    backend.queue([Reply::redirect(308, plain.url())]);
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("hello").await;
    let request = &plain.wait_for(1).await[0];
    assert_eq!(
        (request.header("authorization"), request.header("x-api-key")),
        (None, None)
    );
}

#[tokio::test]
async fn other_redirects_never_become_a_get_and_lose_nothing() {
    for status in [301, 302, 303] {
        let backend = Backend::start().await;
        let gateway = forwarding(&backend).start().await;
        backend.queue([Reply::redirect(status, "/login")]);
        let mut device = Device::connect(gateway.addr(), "dev1").await;
        device.send("hello").await;
        assert_eq!(backend.wait_delivered("dev1", 1).await, ["hello"]);
        let all = backend.requests();
        assert_eq!(all.len(), 2, "it was tried again: {status}");
        for request in &all {
            assert_eq!(
                (request.method.as_str(), request.target.as_str()),
                ("POST", "/uplink")
            );
        }
        assert_eq!(all[1].header("x-fastsock-attempt"), Some("2"));
    }
}

#[tokio::test]
async fn a_sixth_redirect_is_not_followed() {
    let backend = Backend::start().await;
    let gateway = forwarding(&backend).start().await;
    backend.queue((0..6).map(|number| Reply::redirect(307, format!("/{number}"))));
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("hello").await;
    let all = backend.wait_for(7).await;
    let targets: Vec<_> = all.iter().map(|request| request.target.as_str()).collect();
    assert_eq!(
        targets,
        ["/uplink", "/0", "/1", "/2", "/3", "/4", "/uplink"]
    );
    let failed = gateway
        .wait_line("Failed to forward message to remote")
        .await;
    assert_eq!(failed["level"], "error");
}

/// By each of the settings that name certificates.
async fn is_trusted_once_named(backend: &Backend, authority: &Authority) {
    let ca = authority.ca_path().to_string_lossy().into_owned();
    for variable in ["FASTSOCK_REMOTE_CA", "NODE_EXTRA_CA_CERTS"] {
        let gateway = forwarding(backend).var(variable, &ca).start().await;
        let mut device = Device::connect(gateway.addr(), variable).await;
        device.send("hello").await;
        assert_eq!(backend.wait_delivered(variable, 1).await, ["hello"]);
    }
}

#[tokio::test]
async fn an_https_remote_needs_a_certificate_that_is_trusted() {
    let authority = Authority::new();
    let backend = Backend::start_tls(&authority).await;
    is_trusted_once_named(&backend, &authority).await;

    let gateway = forwarding(&backend).start().await;
    let mut device = Device::connect(gateway.addr(), "distrustful").await;
    device.send("hello").await;
    let failed = gateway
        .wait_line("Failed to forward message to remote")
        .await;
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("certificate"), "{error}");
    assert!(backend.requests_of("distrustful").is_empty());
}

/// As OpenSSL has it, and Node with it.
#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_trusted_once_it_is_named() {
    let (authority, own) = Authority::of_its_own();
    let backend = Backend::start_tls_as(&own);
    is_trusted_once_named(&backend, &authority).await;

    // Another one for the same host is not.
    let (other, _) = Authority::of_its_own();
    let other = other.ca_path().to_string_lossy().into_owned();
    let gateway = forwarding(&backend)
        .var("FASTSOCK_REMOTE_CA", other)
        .start()
        .await;
    let mut device = Device::connect(gateway.addr(), "distrustful").await;
    device.send("hello").await;
    gateway
        .wait_line("Failed to forward message to remote")
        .await;
    assert!(backend.requests_of("distrustful").is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_host_is_not_trusted() {
    let authority = Authority::new();
    let backend = Backend::start_tls(&authority).await;
    let gateway = alone()
        .var(
            "REMOTE_URL",
            format!("https://127.0.0.2:{}/", backend.addr().port()),
        )
        .var("FASTSOCK_REMOTE_CA", authority.ca_path().to_string_lossy())
        .var("HTTPS_PROXY", Proxy::start(backend.addr()).await.url())
        .start()
        .await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("hello").await;
    gateway
        .wait_line("Failed to forward message to remote")
        .await;
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_certificate_file_that_cannot_be_read_is_exit_1_and_named() {
    for variable in ["FASTSOCK_REMOTE_CA", "NODE_EXTRA_CA_CERTS"] {
        let mut gateway = alone()
            .var("REMOTE_URL", "https://localhost:1/")
            .var(variable, "missing.pem")
            .launch();
        let code = gateway.exit_code().await;
        let stderr = gateway.stderr();
        assert_eq!((code, stderr.len()), (Some(1), 1), "{stderr:?}");
        assert!(
            stderr[0].contains(variable) && stderr[0].contains("missing.pem"),
            "{stderr:?}"
        );
    }
}

#[tokio::test]
async fn an_http_remote_is_reached_through_its_proxy() {
    let backend = Backend::start().await;
    let (upper, lower) = (
        Proxy::start(backend.addr()).await,
        Proxy::start(backend.addr()).await,
    );
    let remote =
        || through(&backend).var("HTTP_PROXY", upper.url().replace("//", "//user:p%40ss@"));
    deliver(&remote().start().await, &backend, "upper").await;
    assert_eq!((upper.heads().len(), lower.heads().len()), (1, 0));
    let head = upper.heads()[0].to_ascii_lowercase();
    let line = format!(
        "post http://backend.example:{}/uplink http/1.1\r\n",
        backend.addr().port()
    );
    assert!(head.starts_with(&line), "{head}");
    assert!(head.contains("\r\nproxy-authorization: basic "), "{head}");

    deliver(
        &remote().var("http_proxy", lower.url()).start().await,
        &backend,
        "lower",
    )
    .await;
    assert_eq!(
        (upper.heads().len(), lower.heads().len()),
        (1, 1),
        "lower case first"
    );
}

#[tokio::test]
async fn an_https_remote_is_reached_through_a_tunnel() {
    let authority = Authority::new();
    let backend = Backend::start_tls(&authority).await;
    let (proxy, other) = (
        Proxy::start(backend.addr()).await,
        Proxy::start(backend.addr()).await,
    );
    let gateway = forwarding(&backend)
        .var("FASTSOCK_REMOTE_CA", authority.ca_path().to_string_lossy())
        .var("https_proxy", proxy.url())
        .var("http_proxy", other.url())
        .start()
        .await;
    deliver(&gateway, &backend, "dev1").await;
    let line = format!("CONNECT localhost:{} HTTP/1.1\r\n", backend.addr().port());
    assert!(proxy.heads()[0].starts_with(&line), "{:?}", proxy.heads());
    assert_eq!(other.heads(), [""; 0]);
}

#[tokio::test]
async fn hosts_in_no_proxy_are_reached_directly() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.addr()).await;
    for (number, no_proxy) in ["*", "127.0.0.1", "10.0.0.0/8,127.0.0.0/8"]
        .into_iter()
        .enumerate()
    {
        let gateway = forwarding(&backend)
            .var("HTTP_PROXY", proxy.url())
            .var("NO_PROXY", no_proxy)
            .start()
            .await;
        deliver(&gateway, &backend, &format!("dev{number}")).await;
    }
    assert_eq!(proxy.heads(), [""; 0]);
    let gateway = forwarding(&backend)
        .var("HTTP_PROXY", proxy.url())
        .var("NO_PROXY", "*")
        .var("no_proxy", "elsewhere.example")
        .start()
        .await;
    deliver(&gateway, &backend, "lower case first").await;
    assert_eq!(proxy.heads().len(), 1);
}

/// Under a name that only a proxy could know.
fn through(backend: &Backend) -> GatewayBuilder {
    let url = format!("http://backend.example:{}/uplink", backend.addr().port());
    alone().var("REMOTE_URL", url)
}

async fn deliver(gateway: &Gateway, backend: &Backend, id: &str) {
    let mut device = Device::connect(gateway.addr(), id).await;
    device.send("hello").await;
    assert_eq!(backend.wait_delivered(id, 1).await, ["hello"]);
}
