//! One connection through the proxy: dialled on, carried both ways, cut.

use super::{
    pipe::Pipe,
    rules::{Rules, Table},
};
use bytes::{Bytes, BytesMut};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
    sync::{Notify, watch},
    time::timeout,
};

/// How long the target may take to accept.
const DIAL: Duration = Duration::from_secs(10);
/// What is kept of a dialler that talks into a hole.
const EARLY: usize = 16 * 1024;

pub(super) struct Connection {
    pub(super) near: TcpStream,
    pub(super) target: SocketAddr,
    pub(super) table: watch::Receiver<Table>,
    pub(super) dialler: Option<u32>,
}

impl Connection {
    /// Carries the connection until its end; a reset of one side, or an order to `cut`, resets the other.
    pub(super) async fn run(mut self, cut: &Notify) {
        let mut far = None;
        let ended = tokio::select! {
            ended = carry(&mut self.near, &mut far, self.target, self.table, self.dialler) => ended,
            () = cut.notified() => Err(io::ErrorKind::ConnectionReset.into()),
        };
        if ended.is_err() {
            reset(&self.near);
            far.iter().for_each(reset);
        }
    }
}

/// Closing it from now on sends RST.
pub(super) fn reset(stream: &TcpStream) {
    // Fails when the other side was quicker, then there is nothing to reset.
    let _ = stream.set_zero_linger();
}

async fn carry(
    near: &mut TcpStream,
    far: &mut Option<TcpStream>,
    target: SocketAddr,
    mut table: watch::Receiver<Table>,
    dialler: Option<u32>,
) -> io::Result<()> {
    // A handshake that hangs ends when who dialled gives up.
    let mut early = BytesMut::new();
    tokio::select! {
        open = table.wait_for(|table| !table.rules(dialler).hangs()) => drop(open.map_err(io::Error::other)?),
        ended = gives_up(near, &mut early) => return ended,
    }
    let window = table.borrow().window;
    let far = far.insert(timeout(DIAL, dial(target, window)).await??);
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;

    let rules = table.borrow_and_update().rules(dialler);
    let (up_rules, up_changes) = watch::channel(rules.up);
    let (down_rules, down_changes) = watch::channel(rules.down);
    let follow = async {
        while table.changed().await.is_ok() {
            let Rules { up, down } = table.borrow_and_update().rules(dialler);
            up_rules.send_replace(up);
            down_rules.send_replace(down);
        }
        // The proxy is gone.
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    };
    let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
    let both = async {
        tokio::try_join!(
            Pipe::new(rules.up, early.freeze()).run(near_in, far_out, up_changes),
            Pipe::new(rules.down, Bytes::new()).run(far_in, near_out, down_changes),
        )
    };
    tokio::select! {
        ended = both => ended.map(drop),
        gone = follow => gone,
    }
}

/// The window is told in the handshake, so the buffer's size is set before.
async fn dial(target: SocketAddr, window: Option<u32>) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(window) = window {
        socket.set_recv_buffer_size(window)?;
    }
    socket.connect(target).await
}

/// Keeps what comes, until the other side closes. Who sends more than we keep waits, and is not seen to close.
async fn gives_up(near: &mut TcpStream, early: &mut BytesMut) -> io::Result<()> {
    while early.len() < EARLY {
        if near.read_buf(early).await? == 0 {
            return Ok(());
        }
    }
    std::future::pending().await
}
