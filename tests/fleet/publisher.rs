//! Whoever has messages for devices: one after the other for each device, and the next only when the one before is kept.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use fastrand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    backing::connection,
    gateways::{GATEWAYS, Places},
    ledger::Ledger,
    plan::Plan,
};

const SEND_LUA: &str = include_str!("../../docs/redis/send.lua");

pub(crate) struct Publisher {
    /// It serves the devices with this number, and every so many after it.
    pub(crate) number: usize,
    pub(crate) of: usize,
    pub(crate) rng: Rng,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) places: Arc<Places>,
    pub(crate) ports: Option<Vec<u16>>,
    pub(crate) every: Duration,
}

impl Publisher {
    /// Until nothing is to be published any more.
    pub(crate) async fn publish(mut self) {
        let devices = (self.number..self.ledger.devices()).step_by(self.of);
        let mut next = vec![0u64; devices.len()];
        while !self.ledger.is_quiet.load(Relaxed) {
            let turn = self.rng.usize(..next.len());
            let device = self.number + turn * self.of;
            let number = next[turn];
            // Under one id until somebody says that it is kept.
            while !self.keep(device, number).await {
                if self.ledger.is_quiet.load(Relaxed) {
                    return; // nobody knows of this one
                }
                sleep(Duration::from_millis(50)).await; // a publisher backs off
            }
            next[turn] += 1;
            let now = Instant::now();
            self.ledger.of(device, |book| book.kept.push((number, now)));
            let every = self.every.as_millis() as u64;
            sleep(Duration::from_millis(
                self.rng.u64(every / 2..every * 3 / 2),
            ))
            .await;
        }
    }

    async fn keep(&mut self, device: usize, number: u64) -> bool {
        let name = Plan::name(device);
        match &self.ports {
            None => {
                let admin = self.places.of(self.rng.usize(..GATEWAYS)).admin;
                let asking = ask_gateway(admin, &name, number);
                timeout(Duration::from_secs(3), asking).await == Ok(Some(202))
            }
            Some(ports) => {
                for &port in ports {
                    let asking = ask_redis(port, &name, number);
                    if timeout(Duration::from_secs(3), asking).await == Ok(Some(())) {
                        return true;
                    }
                }
                false
            }
        }
    }
}

async fn ask_gateway(admin: SocketAddr, name: &str, number: u64) -> Option<u16> {
    let body = format!(r#"{{"data":"{number}","id":"{number}"}}"#);
    let request = format!(
        "POST /api/v1/clients/{name}/messages HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(admin).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// The script of docs/redis, and then the word of a replica that it has the message.
async fn ask_redis(port: u16, name: &str, number: u64) -> Option<()> {
    let mut redis = connection(port).await?;
    let number = number.to_string();
    let _: (String, u64, u64, i64) = redis::cmd("EVAL")
        .arg(SEND_LUA)
        .arg(1)
        .arg(format!("fastsock:mbox:{{{name}}}"))
        .arg(format!("fastsock:bell:{name}"))
        .arg(&number)
        .arg(&["messages", "1000000", "bytes", "0", "id", &number])
        .query_async(&mut redis)
        .await
        .ok()?;
    // WAIT is about what this connection wrote, and of a message that is there already the script writes nothing.
    let mut write = redis::cmd("SET");
    let key = format!("probe:{{{name}}}");
    let _: () = write
        .arg(key)
        .arg(&number)
        .query_async(&mut redis)
        .await
        .ok()?;
    let mut wait = redis::cmd("WAIT");
    let replicas: u64 = wait.arg(1).arg(1000).query_async(&mut redis).await.ok()?;
    (replicas >= 1).then_some(())
}
