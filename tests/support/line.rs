//! A way to a server that can be cut.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Passes on TCP connections from a free port, until it is cut: then bytes go nowhere in either direction and new connections wait, as if
/// packets were dropped. When it is mended, all goes on where it was, unless somebody has given up.
#[derive(Debug)]
pub struct Line {
    addr: SocketAddr,
    is_cut: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Line {
    /// Starts one in front of an address.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let is_cut = watch::Sender::new(false);
        let cuts = is_cut.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        if let Ok((stream, _)) = accepted {
                            connections.spawn(pass(stream, to, cuts.subscribe()));
                        }
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { addr, is_cut, task }
    }

    /// Its address on loopback.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on nothing comes through.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// What waits, and all after it, comes through.
    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    near: TcpStream,
    to: SocketAddr,
    mut is_cut: watch::Receiver<bool>,
) -> io::Result<()> {
    whole(&mut is_cut).await?;
    let far = TcpStream::connect(to).await?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    tokio::select! {
        ended = copy(from_near, to_far, is_cut.clone()) => ended,
        ended = copy(from_far, to_near, is_cut) => ended,
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut is_cut: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        whole(&mut is_cut).await?; // also the news that the other side has gone
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

async fn whole(is_cut: &mut watch::Receiver<bool>) -> io::Result<()> {
    let waited = is_cut.wait_for(|is_cut| !is_cut).await;
    waited.map(drop).map_err(io::Error::other)
}
