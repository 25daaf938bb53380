//! A backend to POST to, and the tests of what the forwarder does not see.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::mpsc,
    time::timeout,
};

use super::*;
use crate::config::Config;

/// An HTTP server on loopback that answers each request as the test says.
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    received: mpsc::UnboundedReceiver<Received>,
    connections: Arc<AtomicUsize>,
    tasks: Tasks,
}

/// One request as it came over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// From 1: which connection, and which request on it.
    pub(crate) connection: usize,
    pub(crate) nth: usize,
    /// The request line and headers, as sent.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn request_line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1);
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub(crate) enum Reply {
    /// These bytes, and the connection stays.
    Say(String),
    /// These bytes, and the connection is closed.
    SayAndClose(String),
    /// These bytes, and then nothing for ever.
    SayAndHang(String),
    /// 200 to a CONNECT, and what goes on goes there.
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    Tunnel(SocketAddr),
}

pub(crate) fn status(status: u16, headers: &str) -> Reply {
    Reply::Say(format!(
        "HTTP/1.1 {status} X\r\ncontent-length: 2\r\n{headers}\r\nok"
    ))
}

impl Backend {
    pub(crate) async fn start(reply: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(reply, |tcp| async { Some(tcp) }).await
    }

    /// The same, over what `secure` makes of a connection.
    pub(crate) async fn start_with<S, F>(
        reply: impl Fn(&Received) -> Reply + Send + Sync + 'static,
        secure: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
        F: Future<Output = Option<S>> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sender, received) = mpsc::unbounded_channel();
        let backend = Self {
            addr: listener.local_addr().unwrap(),
            received,
            connections: Arc::default(),
            tasks: Tasks::new(Handle::current()),
        };
        let shared = Arc::new((reply, secure, sender));
        let (tasks, count) = (backend.tasks.clone(), backend.connections.clone());
        backend.tasks.spawn_until_stopped(async move {
            loop {
                let tcp = listener.accept().await.unwrap().0;
                let connection = count.fetch_add(1, Ordering::SeqCst) + 1;
                let shared = shared.clone();
                tasks.spawn_until_stopped(async move {
                    let (reply, secure, sender) = &*shared;
                    if let Some(stream) = secure(tcp).await {
                        serve(stream, connection, reply, sender).await;
                    }
                });
            }
        });
        backend
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// What has come, in order. Call it after the answer has.
    pub(crate) fn received(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    connection: usize,
    reply: &(impl Fn(&Received) -> Reply + Sync),
    sender: &mpsc::UnboundedSender<Received>,
) {
    let mut buffer = Vec::new();
    for nth in 1.. {
        let Some((head, body)) = read_request(&mut stream, &mut buffer).await else {
            return;
        };
        let received = Received {
            connection,
            nth,
            head,
            body,
        };
        let reply = reply(&received);
        sender.send(received).unwrap();
        match reply {
            Reply::Say(bytes) => stream.write_all(bytes.as_bytes()).await.unwrap(),
            Reply::SayAndClose(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                return;
            }
            Reply::SayAndHang(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                return std::future::pending().await;
            }
            Reply::Tunnel(to) => {
                let mut to = TcpStream::connect(to).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut to).await;
                return;
            }
        }
    }
}

async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<(String, String)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = text(buffer[..end].to_vec());
            let lower = head.to_ascii_lowercase();
            let length = lower
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "));
            let total = end + 4 + length.map_or(0, |n| n.parse().unwrap());
            if buffer.len() >= total {
                let rest = buffer.split_off(total);
                let request = std::mem::replace(buffer, rest);
                return Some((head, text(request[end + 4..].to_vec())));
            }
        }
        match stream.read_buf(buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn client(config: &Config) -> Client {
    Client::new(config.into(), None, Tasks::new(Handle::current())).unwrap()
}

/// A URL as a client of the defaults reaches it.
pub(super) fn target(url: &str) -> Target {
    let client = client(&Config::default());
    client.target(&Url::parse(url).unwrap()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn post(client: &Client, url: &str) -> Result<Answer, String> {
    let target = client.target(&Url::parse(url).unwrap()).unwrap();
    let headers = |_| HeaderMap::new();
    client.post(&target, headers, "{}".into(), 0, soon()).await
}

#[tokio::test]
async fn a_connection_is_replaced_when_it_is_too_old_and_no_request_is_sent_twice() {
    let mut backend = Backend::start(|_| status(200, "")).await;
    let client = client(&Config::default().remote_connection_age(Duration::ZERO));
    for n in 1..=3 {
        let answer = post(&client, &backend.url("/")).await.unwrap();
        assert_eq!((answer.status.as_u16(), backend.connections()), (200, n));
    }
    assert_eq!(backend.received().len(), 3);
}

#[tokio::test]
async fn nothing_runs_on_once_its_tasks_are_stopped() {
    let backend = Backend::start(|_| status(200, "")).await;
    let tasks = Tasks::new(Handle::current());
    let client = Client::new((&Config::default()).into(), None, tasks.clone()).unwrap();
    post(&client, &backend.url("/")).await.unwrap();
    assert!(tasks.len() > 0);
    tasks.stop();
    timeout(Duration::from_secs(20), tasks.wait())
        .await
        .expect("the connections end");
    post(&client, &backend.url("/")).await.unwrap_err();
}

#[test]
fn a_url_is_taken_apart_without_its_secrets() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tasks = Tasks::new(runtime.handle().clone());
    let client = Client::new((&Config::default()).into(), None, tasks).unwrap();
    let target = |url| client.target(&Url::parse(url).unwrap());
    let found = target("http://u:p@Example.com:80/a%20b?q=1#frag").unwrap();
    assert_eq!(found.uri, "http://example.com/a%20b?q=1");
    assert_eq!(found.host, "example.com");
    assert_eq!(found.failure("cause"), "http://example.com: cause");
    let found = target("http://[::1]:8080").unwrap();
    assert_eq!(found.host, "[::1]:8080");
    assert_eq!(target("https://h/").is_some(), cfg!(feature = "tls"));
    assert!(target("ftp://h/").is_none());

    for (from, to, is_trusted) in [
        ("http://a/x", "http://a/y", true),
        ("http://a/", "http://a:80/", true),
        ("http://a/", "http://a:81/", false),
        ("http://a/", "http://b/", false),
        ("http://a/", "http://b.a/", false),
    ] {
        let (from, to) = (target(from).unwrap(), target(to).unwrap());
        assert_eq!(
            from.is_as_trusted(&to),
            is_trusted,
            "{} {}",
            from.url,
            to.url
        );
    }
    #[cfg(feature = "tls")]
    for (from, to, is_trusted) in [
        ("http://a/", "https://a/", true),
        ("https://a/", "http://a/", false),
        ("https://a:8443/", "http://a:8443/", false),
    ] {
        let (from, to) = (target(from).unwrap(), target(to).unwrap());
        assert_eq!(
            from.is_as_trusted(&to),
            is_trusted,
            "{} {}",
            from.url,
            to.url
        );
    }
}
