//! Accepting connections, and finding out which HTTP they speak.

use crate::{
    http1, http2,
    wire::PREFACE,
    world::{Face, World},
};
use std::{io::Cursor, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use touchline_mesh::{Shutdown, http::accept};

/// For a client to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes connections until the life stops: with TLS (and ALPN) if there is an acceptor.
pub(crate) async fn serve(
    listener: TcpListener,
    world: Arc<World>,
    face: Face,
    tls: Option<TlsAcceptor>,
    life: Shutdown,
) {
    loop {
        let (socket, _) = accept(&listener).await;
        if face == Face::Google && world.control.settings().away {
            continue;
        }
        let _ = socket.set_nodelay(true);
        life.spawn_until_stop(serve_connection(socket, Arc::clone(&world), face, tls.clone()));
    }
}

async fn serve_connection(socket: TcpStream, world: Arc<World>, face: Face, tls: Option<TlsAcceptor>) {
    let Some(tls) = tls else { return serve_clear(socket, world, face).await };
    let Ok(Ok(socket)) = timeout(PATIENCE, tls.accept(socket)).await else { return };
    if socket.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2::serve(world, socket).await;
    } else {
        http1::serve(world, face, socket).await;
    }
}

/// Without TLS the first bytes tell: HTTP/2 with prior knowledge begins with its preface.
async fn serve_clear(mut socket: TcpStream, world: Arc<World>, face: Face) {
    let Ok(Some(begin)) = timeout(PATIENCE, beginning(&mut socket)).await else { return };
    let is_http2 = begin == PREFACE && face == Face::Google;
    let (read, write) = socket.into_split();
    let socket = tokio::io::join(Cursor::new(begin).chain(read), write);
    if is_http2 {
        http2::serve(world, socket).await;
    } else {
        http1::serve(world, face, socket).await;
    }
}

/// Reads the preface, or as far as it is none.
async fn beginning<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S) -> Option<Vec<u8>> {
    let mut begin = Vec::with_capacity(PREFACE.len());
    while begin.len() < PREFACE.len() && PREFACE.starts_with(&begin) {
        let mut rest = (&mut *socket).take((PREFACE.len() - begin.len()) as u64);
        if rest.read_buf(&mut begin).await.ok()? == 0 {
            return None;
        }
    }
    Some(begin)
}
