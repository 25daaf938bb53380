//! A device: it speaks, reads, moves from gateway to gateway, and perhaps sleeps.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::{
    gateways::{GATEWAYS, Places},
    ledger::Ledger,
    plan::Plan,
};

type Socket = WebSocketStream<TcpStream>;

pub(crate) struct Device {
    pub(crate) number: usize,
    pub(crate) rng: Rng,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) places: Arc<Places>,
    pub(crate) uplink_every: Duration,
}

/// Why a session is over.
enum End {
    /// The gateway has ended it, or says nothing any more.
    Broken,
    /// The device goes, or goes elsewhere.
    Leaves,
}

impl Device {
    /// Returns once it is told to settle, if it sleeps; else it stays. Its second sockets are tasks of `left`: each ends when the
    /// gateway closes it.
    pub(crate) async fn live(mut self) -> JoinSet<()> {
        let mut left = JoinSet::new();
        let mut beside: Option<Socket> = None;
        loop {
            while left.try_join_next().is_some() {}
            if self.is_to_settle() {
                drop(beside);
                return left;
            }
            let gateway = self.rng.usize(..GATEWAYS);
            let addr = self.places.of(gateway).devices;
            let Some(socket) = self.connect(addr).await else {
                self.ledger.refused.fetch_add(1, Relaxed);
                sleep(Duration::from_millis(self.rng.u64(50..300))).await; // a device backs off
                continue;
            };
            self.ledger.connects.fetch_add(1, Relaxed);
            if let Some(beside) = beside.take() {
                let (number, ledger) = (self.number, self.ledger.clone());
                left.spawn(read_out(beside, number, ledger));
            }
            self.ledger.of(self.number, |book| book.sockets += 1);
            let (socket, end) = self.session(socket).await;
            match end {
                End::Broken => {
                    drop(socket);
                    sleep(Duration::from_millis(self.rng.u64(..200))).await; // a device backs off
                }
                End::Leaves if self.is_to_settle() => close(socket).await,
                // Some open the next socket while they have one: the gateways are to close the old one.
                End::Leaves if !Plan::sleeps(self.number) && self.rng.bool() => {
                    self.ledger.doubles.fetch_add(1, Relaxed);
                    beside = Some(socket);
                }
                End::Leaves => {
                    close(socket).await;
                    if Plan::sleeps(self.number) {
                        self.sleep_well().await;
                    }
                }
            }
        }
    }

    fn is_to_settle(&self) -> bool {
        Plan::sleeps(self.number) && self.ledger.is_settling.load(Relaxed)
    }

    async fn sleep_well(&mut self) {
        let until = Instant::now() + Duration::from_millis(self.rng.u64(500..4000));
        while Instant::now() < until && !self.ledger.is_gathering.load(Relaxed) {
            sleep(Duration::from_millis(50)).await; // asleep, until it is wanted
        }
    }

    /// Half of them acknowledge what they get, half only answer pings.
    async fn connect(&self, addr: SocketAddr) -> Option<Socket> {
        let protocol = match self.number % 2 {
            0 => "fastsock.v1.ack",
            _ => "fastsock.v2.ack",
        };
        let connecting = async {
            let stream = TcpStream::connect(addr).await.ok()?;
            let url = format!("ws://{addr}/?token={}", Plan::name(self.number));
            let mut request = url.into_client_request().ok()?;
            let headers = request.headers_mut();
            headers.insert("sec-websocket-protocol", protocol.parse().ok()?);
            Some(client_async(request, stream).await.ok()?.0)
        };
        timeout(Duration::from_secs(3), connecting).await.ok()?
    }

    async fn session(&mut self, mut socket: Socket) -> (Socket, End) {
        let stays = match Plan::sleeps(self.number) {
            true => self.rng.u64(300..2000),
            false => self.rng.u64(1000..8000),
        };
        let leaves_at = tokio::time::Instant::now() + Duration::from_millis(stays);
        let mut heard = Instant::now();
        let mut speaks_at = self.next_turn();
        loop {
            let is_gathering = self.ledger.is_gathering.load(Relaxed);
            if self.is_to_settle() {
                return (socket, End::Leaves);
            }
            tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    let Some(Ok(message)) = message else {
                        return (socket, End::Broken);
                    };
                    if !read(message, &mut socket, self.number, &self.ledger).await {
                        return (socket, End::Broken);
                    }
                }
                () = sleep_until(speaks_at) => {
                    speaks_at = self.next_turn();
                    if heard.elapsed() > SILENCE {
                        return (socket, End::Broken);
                    }
                    if is_gathering {
                        continue;
                    }
                    let number = self.ledger.of(self.number, |book| {
                        book.said.push((Instant::now(), book.sockets));
                        book.said.len() - 1
                    });
                    let uplink = format!(r#"{{"id":"{number}","data":"{number}"}}"#);
                    let sent = timeout(SILENCE, socket.send(Message::text(uplink))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return (socket, End::Broken);
                    }
                }
                () = sleep_until(leaves_at), if !is_gathering => return (socket, End::Leaves),
            }
        }
    }

    fn next_turn(&mut self) -> tokio::time::Instant {
        let every = self.uplink_every.as_millis() as u64;
        let wait = self.rng.u64(every / 2..every * 3 / 2).min(500);
        tokio::time::Instant::now() + Duration::from_millis(wait)
    }
}

/// Writes down what came. `false`: the session is over.
async fn read(message: Message, socket: &mut Socket, number: usize, ledger: &Ledger) -> bool {
    let text = match message {
        Message::Text(text) => text,
        Message::Close(_) => return false,
        _ => return true,
    };
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    if let Some(id) = value["ack"].as_str() {
        let id = id.parse().expect("a number of ours");
        ledger.of(number, |book| book.taken.push((id, Instant::now())));
    } else if let Some(data) = value["data"].as_str() {
        let data = data.parse().expect("a number of ours");
        ledger.of(number, |book| book.received.push(data));
        if let Some(id) = value["id"].as_str() {
            let ack = serde_json::json!({ "ack": id }).to_string();
            let sent = timeout(SILENCE, socket.send(Message::text(ack))).await;
            return matches!(sent, Ok(Ok(())));
        }
    }
    true
}

/// Goes on reading a socket that another has taken the place of.
async fn read_out(mut socket: Socket, number: usize, ledger: Arc<Ledger>) {
    while let Some(Ok(message)) = socket.next().await {
        if !read(message, &mut socket, number, &ledger).await {
            break;
        }
    }
    close(socket).await;
}

async fn close(mut socket: Socket) {
    let closing = async {
        let _ = socket.close(None).await;
        while let Some(Ok(_)) = socket.next().await {}
    };
    let _ = timeout(Duration::from_secs(1), closing).await;
}

/// A gateway pings every 2 s; one that says nothing for so long is as good as dead.
const SILENCE: Duration = Duration::from_secs(6);
