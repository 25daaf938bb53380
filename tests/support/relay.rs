//! A long way to a server.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

/// Passes on TCP connections from a free port, with every byte as late as it would be over a long way.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts one in front of an address. A byte takes half a `round_trip` each way, and connecting a whole one.
    pub async fn start(to: SocketAddr, round_trip: Duration) -> Self {
        Self::uneven(to, round_trip / 2, round_trip / 2).await
    }

    /// The same where the way there takes another time than the way back.
    pub async fn uneven(to: SocketAddr, there: Duration, back: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(carry(stream, to, there, back));
            }
        });
        Self { addr, task }
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(near: TcpStream, to: SocketAddr, there: Duration, back: Duration) -> io::Result<()> {
    sleep(there + back).await; // the delay of the line
    let far = TcpStream::connect(to).await?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    let there = late(from_near, to_far, there);
    let back = late(from_far, to_near, back);
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
    }
}

/// Copies bytes, each after the same time.
async fn late(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    time: Duration,
) -> io::Result<()> {
    let (sender, mut on_their_way) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let sending = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = from.read(&mut buffer).await?;
            let bytes = buffer[..count].to_vec();
            if sender.send((Instant::now() + time, bytes)).await.is_err() || count == 0 {
                return io::Result::Ok(());
            }
        }
    };
    let arriving = async {
        while let Some((at, bytes)) = on_their_way.recv().await {
            sleep_until(at).await;
            if bytes.is_empty() {
                break;
            }
            to.write_all(&bytes).await?;
        }
        io::Result::Ok(())
    };
    tokio::try_join!(sending, arriving)?;
    Ok(())
}
