//! The baseline: a tokio-tungstenite server that does the socket writes and nothing else. It runs as a child of its own
//! (`fanout bare`), so that its CPU time and memory can be read like those of our processes.

use crate::measure::now;
use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, watch},
    time::interval,
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

    /// Has it write `frames` frames of `bytes` bytes to each of its `sockets`, `rate` of them per second or, for 0, as
    /// fast as it can.
    pub(crate) async fn write(&mut self, sockets: usize, frames: usize, bytes: usize, rate: u32) -> Result<()> {
        self.orders.write_all(format!("{sockets} {frames} {bytes} {rate}\n").as_bytes()).await?;
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
    let (hand_over, mut handed_over) = mpsc::unbounded_channel();
    let order = loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, hand_over, collected) = (accepted?.0, hand_over.clone(), collected.clone());
                // The handshake's future is large: the session lives in a task of its own, and both are boxed, so that
                // what wraps a task holds them once.
                let inside = life.clone();
                life.spawn(Box::pin(async move {
                    if let Ok(socket) = handshake(stream).await {
                        inside.spawn(Box::pin(session(socket, collected, hand_over)));
                    }
                }));
            }
            order = orders.next_line() => match order? {
                Some(order) => break order,
                None => return Ok(()),
            },
        }
    };
    let numbers: Vec<usize> = order.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let &[count, frames, bytes, rate] = numbers.as_slice() else { bail!("not an order: {order}") };
    collect.send(true)?;
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        sockets.push(handed_over.recv().await.context("the sessions are gone")?);
    }
    write(&mut sockets, frames, bytes, u32::try_from(rate)?).await?;
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

/// Holds a socket and reads it until the sockets are collected or the client leaves.
async fn session(
    mut socket: WebSocketStream<TcpStream>,
    mut collected: watch::Receiver<bool>,
    hand_over: mpsc::UnboundedSender<WebSocketStream<TcpStream>>,
) {
    loop {
        tokio::select! {
            _ = collected.changed() => {
                let _ = hand_over.send(socket);
                return;
            }
            frame = socket.next() => if !matches!(frame, Some(Ok(_))) { return },
        }
    }
}

/// The loop itself: every frame to every socket, one flush each.
async fn write(sockets: &mut [WebSocketStream<TcpStream>], frames: usize, bytes: usize, rate: u32) -> Result<()> {
    let mut pace = (rate > 0).then(|| interval(Duration::from_secs(1) / rate));
    for _ in 0..frames {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
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
