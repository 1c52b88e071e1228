//! The baseline: a tokio-tungstenite server that does the socket writes and nothing else. It runs as a child of its own
//! (`fanout bare`), so that its CPU time and memory can be read like those of our processes.

use crate::measure::now;
use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};
use touchline_mesh::Shutdown;

/// The baseline's process, seen from the benchmark.
pub(crate) struct Bare {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Where its sockets are.
    pub(crate) url: String,
}

impl Bare {
    /// Starts it.
    pub(crate) async fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("bare")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = child.stdin.take().context("stdin is piped")?;
        let mut answers = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let url = answers.next_line().await?.context("the bare loop ended")?;
        Ok(Self { child, orders, answers, url })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("the bare loop ended")
    }

    /// Has it write `frames` frames of `bytes` bytes to each of its `sockets`.
    pub(crate) async fn write(&mut self, sockets: usize, frames: usize, bytes: usize) -> Result<()> {
        self.orders.write_all(format!("{sockets} {frames} {bytes}\n").as_bytes()).await?;
        match self.answers.next_line().await? {
            Some(answer) if answer == "written" => Ok(()),
            other => bail!("the bare loop answered {other:?}"),
        }
    }
}

/// The child's own side: serves until its standard input ends.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ws://{}/", listener.local_addr()?);
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let life = Shutdown::new();
    let (collect, collected) = watch::channel(false);
    let mut sessions = Vec::new();
    let order = loop {
        tokio::select! {
            accepted = listener.accept() => {
                let stream = accepted?.0;
                let (life, collected) = (life.clone(), collected.clone());
                // The handshake's future is large: the session lives in a task of its own, and both are boxed, so that
                // a finished handshake leaves nothing behind.
                sessions.push(life.clone().spawn(Box::pin(async move {
                    let socket = handshake(stream).await?;
                    anyhow::Ok(life.spawn(Box::pin(session(socket, collected))))
                })));
            }
            order = orders.next_line() => match order? {
                Some(order) => break order,
                None => return Ok(()),
            },
        }
    };
    let numbers: Vec<usize> = order.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let &[count, frames, bytes] = numbers.as_slice() else { bail!("not an order: {order}") };
    collect.send(true)?;
    let mut sockets = Vec::with_capacity(count);
    for session in sessions {
        let session = session.await?.context("never stopped")??;
        sockets.extend(session.await?.context("never stopped")?);
    }
    if sockets.len() != count {
        bail!("{} sockets, not {count}", sockets.len());
    }
    write(&mut sockets, frames, bytes).await?;
    println!("written");
    // The sockets stay open until the benchmark has read what it was sent.
    while orders.next_line().await?.is_some() {}
    Ok(())
}

async fn handshake(stream: TcpStream) -> Result<WebSocketStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let config =
        WebSocketConfig::default().read_buffer_size(2048).write_buffer_size(4096).max_write_buffer_size(256 * 1024);
    Ok(accept_async_with_config(stream, Some(config)).await?)
}

/// Holds a socket and reads it until the sockets are collected; none when the client left.
async fn session(
    mut socket: WebSocketStream<TcpStream>,
    mut collected: watch::Receiver<bool>,
) -> Option<WebSocketStream<TcpStream>> {
    loop {
        tokio::select! {
            _ = collected.wait_for(|collected| *collected) => return Some(socket),
            frame = socket.next() => {
                frame?.ok()?;
            }
        }
    }
}

/// The loop itself: every frame to every socket, one flush each.
async fn write(sockets: &mut [WebSocketStream<TcpStream>], frames: usize, bytes: usize) -> Result<()> {
    for _ in 0..frames {
        let mut text = format!(r#"{{"type":"message","at":{},"text":""#, now());
        text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len() + 2)));
        text.push_str("\"}");
        let frame = Message::text(text);
        for socket in &mut *sockets {
            socket.send(frame.clone()).await?;
        }
    }
    Ok(())
}
