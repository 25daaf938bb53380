//! The least that serves devices under TLS: tokio and rustls, an upgrade, and every message back. No limits, no deadlines, no heartbeat, no
//! order, no log. What it costs is the ceiling for TLS.

use std::{
    env,
    io::{self, Error, ErrorKind},
    net::Ipv4Addr,
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    bare::switching,
    wire::{CLOSE, Head, PING, TEXT, head_end, push_frame, unmask},
};

/// Serves until it is killed.
pub(crate) fn serve() -> io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(config()?));
    let port: u16 = variable("WEBSOCKET_PORT")?.parse().map_err(Error::other)?;
    let runtime = Builder::new_multi_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream, acceptor.clone()));
        }
    })
}

/// The same certificate, and tickets as a gateway has them.
fn config() -> io::Result<ServerConfig> {
    let certificates = CertificateDer::pem_file_iter(variable("FASTSOCK_TLS_CERT")?)
        .and_then(Iterator::collect)
        .map_err(Error::other)?;
    let key = PrivateKeyDer::from_pem_file(variable("FASTSOCK_TLS_KEY")?).map_err(Error::other)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::other)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(Error::other)?;
    config.ticketer = ring::Ticketer::new().map_err(Error::other)?;
    Ok(config)
}

async fn echo(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Boxed, as the gateway has it, so that the memory of a device is what rustls needs.
    let mut tls = Box::new(acceptor.accept(stream).await?);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut length = 0;
    loop {
        length += tls.read(&mut buffer[length..]).await?;
        if let Some(end) = head_end(&buffer[..length]) {
            buffer.copy_within(end..length, 0);
            length -= end;
            break;
        }
        if length == buffer.len() {
            return Err(ErrorKind::InvalidData.into());
        }
    }
    tls.write_all(switching().as_bytes()).await?;
    tls.flush().await?;
    loop {
        let (mut used, mut frame) = (0, Vec::new());
        while let Some(head) = Head::read(&buffer[used..length]) {
            let payload = &mut buffer[used + head.payload.0..used + head.payload.1];
            unmask(payload, head.mask.unwrap_or_default());
            used += head.payload.1;
            match head.opcode {
                CLOSE => return Ok(()),
                PING.. => {}
                _ => push_frame(&mut frame, TEXT, payload, false),
            }
        }
        if !frame.is_empty() {
            tls.write_all(&frame).await?;
            tls.flush().await?;
        }
        buffer.copy_within(used..length, 0);
        length -= used;
        match tls.read(&mut buffer[length..]).await? {
            0 => return Ok(()),
            count => length += count,
        }
    }
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| Error::other(format!("{name}: {error}")))
}

/// Enough for a message of this bench.
const BUFFER_BYTES: usize = 1024;
