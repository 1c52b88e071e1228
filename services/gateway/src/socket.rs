//! One session's task: socket in, queue out, one timer. What a frame or a moment means is [`Session`]'s to say.

use crate::{
    addresses::Place,
    admission::{self, Membership},
    close_codes::{Close, CloseCode},
    config::ms,
    gateway::Gateway,
    queue::{Order, Queue, Queued, Taken},
    running::Running,
    session::{Action, Received, Session},
};
use futures_util::{FutureExt as _, Sink as _, SinkExt as _, StreamExt as _, future::BoxFuture};
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, Utf8Bytes, error::ProtocolError},
};

/// Answers that may wait for a client that asks but does not read; beyond them it is not read from either.
const REPLIES: usize = 16;
/// What a closed client may still send before the socket is dropped under it.
const LAST_WORDS: usize = 1024 * 1024;

/// How a socket ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// We close it, after this frame if there is one.
    Close(Option<Utf8Bytes>, Close),
    /// The peer closed it; its close frame is still to be answered.
    PeerClosed,
    /// There is nobody at the other end.
    Gone,
}

enum Event {
    Order(Order),
    Received(Message),
    Renewed(Result<Instant, Close>),
    Time,
    Ended(Ending),
}

/// A WebSocket and what is on its way into it.
struct Wire {
    socket: WebSocketStream<TcpStream>,
    replies: VecDeque<Message>,
    batch: VecDeque<Queued>,
    unflushed: bool,
    /// Since when nothing could be written.
    blocked: Option<Instant>,
}

/// An authenticated socket.
pub(crate) struct Connection {
    gateway: Arc<Gateway>,
    membership: Membership,
    session: Session,
    wire: Wire,
    renewal: Option<BoxFuture<'static, Result<Instant, Close>>>,
    /// On the clock of the session, which is not the timer's.
    timer_set_for: Instant,
    place: Place,
}

impl Connection {
    pub(crate) fn new(
        socket: WebSocketStream<TcpStream>,
        session: Session,
        membership: Membership,
        place: Place,
        gateway: Arc<Gateway>,
    ) -> Self {
        let wire = Wire { socket, replies: VecDeque::new(), batch: VecDeque::new(), unflushed: false, blocked: None };
        let timer_set_for = session.next_wake(&gateway.rules);
        Self { gateway, membership, session, wire, renewal: None, timer_set_for, place }
    }

    /// Runs a session to its end. Everything stays where it is in `self`: each move of a part would make every
    /// session's task larger by that part.
    pub(crate) async fn run(mut self) {
        let ending = self.live().await;
        let (session, user, ending_name) = (self.membership.member.session, self.membership.user.id, ending.name());
        if ending.is_misconduct() {
            tracing::info!(session.id = %session, user.id = %user, ending = ending_name, "a session was cut off");
        } else {
            tracing::debug!(session.id = %session, user.id = %user, ending = ending_name, "a session ended");
        }
        // First out of the hub, so that pushes are answered "gone" while we say goodbye.
        drop(self.membership);
        ending.carry_out(&mut self.wire.socket, &self.gateway).await;
        // Last, so that the socket counts for as long as it is open.
        drop(self.place);
    }

    async fn live(&mut self) -> Ending {
        let now = self.gateway.running.now();
        let ready = self.session.ready(&self.gateway.rules, now);
        self.wire.replies.push_back(Message::Text(ready));
        let mut timer = pin!(sleep_until(self.gateway.running.real(self.timer_set_for)));
        loop {
            let event = poll_fn(|cx| self.poll(cx, timer.as_mut())).await;
            let now = self.gateway.running.now();
            let action = match event {
                Event::Ended(ending) => return ending,
                Event::Order(Order::Close(close)) => return Ending::Close(None, close),
                Event::Order(Order::Leave(after)) => self.session.leave(&self.gateway.rules, after, now),
                Event::Order(Order::Ready) => Action::Reply(self.session.ready(&self.gateway.rules, now)),
                Event::Received(Message::Close(_)) => return Ending::PeerClosed,
                Event::Received(message) => self.receive(&message, now),
                Event::Renewed(Ok(expires)) => self.session.renewed(&self.gateway.rules, expires, now),
                Event::Renewed(Err(close)) => self.session.not_renewed(close),
                Event::Time => self.on_time(now),
            };
            if let Some(ending) = self.carry_out(action) {
                return ending;
            }
        }
    }

    fn receive(&mut self, message: &Message, now: Instant) -> Action {
        let received = match message {
            Message::Text(text) => Received::Text(text),
            Message::Binary(_) => Received::Binary,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_) => Received::Control,
        };
        self.session.receive(&self.gateway.rules, received, now)
    }

    fn on_time(&mut self, now: Instant) -> Action {
        if self.write_deadline().is_some_and(|deadline| now >= deadline) {
            return Action::Close(None, Close::new(CloseCode::Slow, "you do not read"));
        }
        self.session.on_time(&self.gateway.rules, now)
    }

    fn carry_out(&mut self, action: Action) -> Option<Ending> {
        match action {
            Action::Wait => {}
            Action::Reply(text) => self.wire.replies.push_back(Message::Text(text)),
            // A blocked socket is watched by its write deadline.
            Action::Ping if self.wire.blocked.is_some() => {}
            Action::Ping => self.wire.replies.push_back(Message::Ping(Default::default())),
            Action::Ack(cursors) => {
                crash_before_ack();
                self.gateway.hub.ack(&self.membership.user, &cursors);
            }
            Action::Renew(hello) => {
                let (gateway, member) = (Arc::clone(&self.gateway), Arc::clone(&self.membership.member));
                self.renewal = Some(admission::renew(gateway, member, hello).boxed());
            }
            Action::Close(text, close) => return Some(Ending::Close(text, close)),
            Action::Abandon => return Some(Ending::Gone),
        }
        None
    }

    /// Moves everything that can move; Ready with what has to be decided.
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Event> {
        if let Some(event) = self.poll_out(cx) {
            return Poll::Ready(event);
        }
        if let Some(renewal) = &mut self.renewal
            && let Poll::Ready(renewed) = renewal.poll_unpin(cx)
        {
            self.renewal = None;
            return Poll::Ready(Event::Renewed(renewed));
        }
        if self.wire.replies.len() < REPLIES
            && let Poll::Ready(received) = self.wire.socket.poll_next_unpin(cx)
        {
            return Poll::Ready(match received {
                Some(Ok(message)) => Event::Received(message),
                Some(Err(error)) => Event::Ended(Ending::of_error(&error)),
                None => Event::Ended(Ending::Gone),
            });
        }
        // The timer is moved forward only when something is due earlier; when it fires too early, it is set again.
        let session = self.session.next_wake(&self.gateway.rules);
        let wake = self.write_deadline().map_or(session, |deadline| deadline.min(session));
        if timer.is_elapsed() && self.gateway.running.now() >= wake {
            return Poll::Ready(Event::Time);
        }
        if wake < self.timer_set_for || timer.is_elapsed() {
            self.timer_set_for = wake;
            timer.as_mut().reset(self.gateway.running.real(wake));
        }
        timer.poll(cx).map(|()| Event::Time)
    }

    /// Writes until there is nothing left or nothing can be written. Some: an order, or the end.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        let queue: &Queue = &self.membership.member.queue;
        loop {
            let written = self.wire.poll_write(cx, &mut self.session, &self.gateway.running);
            if let Poll::Ready(Err(error)) = written {
                return Some(Event::Ended(Ending::of_error(&error)));
            }
            match queue.poll(cx, written.is_ready()) {
                Poll::Ready(Taken::Frames(frames)) => self.wire.batch = frames,
                Poll::Ready(Taken::Order(order)) => return Some(Event::Order(order)),
                Poll::Pending => return None,
            }
        }
    }

    fn write_deadline(&self) -> Option<Instant> {
        self.wire.blocked.map(|since| since + ms(self.gateway.config.times.write_ms))
    }
}

impl Wire {
    /// Feeds everything that is to be sent, then flushes once. Ready: all of it is in the kernel.
    fn poll_write(&mut self, cx: &mut Context<'_>, session: &mut Session, clock: &Running) -> Poll<Result<(), Error>> {
        let written = self.poll_feed_and_flush(cx, session);
        if written.is_ready() {
            self.blocked = None;
        } else {
            self.blocked.get_or_insert_with(|| clock.now());
        }
        written
    }

    fn poll_feed_and_flush(&mut self, cx: &mut Context<'_>, session: &mut Session) -> Poll<Result<(), Error>> {
        while !(self.replies.is_empty() && self.batch.is_empty()) {
            ready!(Pin::new(&mut self.socket).poll_ready(cx))?;
            // Ready after having been blocked is progress.
            self.blocked = None;
            let message = match self.replies.pop_front() {
                Some(reply) => reply,
                None => match self.batch.pop_front() {
                    Some(queued) => {
                        session.sent();
                        Message::Text(queued.text)
                    }
                    None => break,
                },
            };
            Pin::new(&mut self.socket).start_send(message)?;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
            // Nothing waits: hold no buffers.
            self.replies = VecDeque::new();
            self.batch = VecDeque::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Crash point: a device has acked, nobody knows it yet.
fn crash_before_ack() {
    fail::fail_point!("before_ack", |_| std::process::abort());
}

impl Ending {
    /// What a read or write error means.
    pub(crate) fn of_error(error: &Error) -> Self {
        let (code, detail) = match error {
            Error::Capacity(_) => (CloseCode::TooBig, "a frame or message is above the size limit"),
            Error::Utf8(_) => (CloseCode::InvalidText, "a text frame is not UTF-8"),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return Self::Gone,
            Error::Protocol(ProtocolError::UnmaskedFrameFromClient) => {
                (CloseCode::ProtocolError, "frames of a client must be masked")
            }
            Error::Protocol(_) => (CloseCode::ProtocolError, "the frames break RFC 6455"),
            _ => return Self::Gone,
        };
        Self::Close(None, Close::new(code, detail))
    }

    /// Whether the client brought it on itself.
    fn is_misconduct(&self) -> bool {
        use CloseCode::{InvalidText, ProtocolError, RateLimited, Slow, TooBig};
        matches!(self, Self::Close(_, Close { code: ProtocolError | InvalidText | TooBig | RateLimited | Slow, .. }))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Close(_, close) => close.code.rule().name,
            Self::PeerClosed => "peer_closed",
            Self::Gone => "gone",
        }
    }

    /// Ends the socket accordingly; never longer than a peer's answer may take.
    pub(crate) async fn carry_out(self, socket: &mut WebSocketStream<TcpStream>, gateway: &Gateway) {
        let patience = ms(gateway.config.times.close_ms);
        // Whether the peer hears it or not, the socket goes.
        match self {
            Self::Close(text, close) => drop(timeout(patience, say_goodbye(socket, text, close)).await),
            Self::PeerClosed => drop(timeout(patience, socket.flush()).await),
            Self::Gone => {}
        }
    }
}

/// Sends the close frame, then listens until the peer has closed too: a socket dropped with unread bytes is reset, and
/// the reset may overtake the close frame.
async fn say_goodbye(
    socket: &mut WebSocketStream<TcpStream>,
    text: Option<Utf8Bytes>,
    close: Close,
) -> Result<(), Error> {
    if let Some(text) = text {
        socket.feed(Message::Text(text)).await?;
    }
    socket.close(Some(close.frame())).await?;
    let stream = socket.get_mut();
    stream.shutdown().await?;
    let mut rest = vec![0; 2048];
    let mut heard = 0;
    while heard < LAST_WORDS {
        match stream.read(&mut rest).await? {
            0 => break,
            n => heard += n,
        }
    }
    Ok(())
}
