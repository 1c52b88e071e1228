//! One socket, from `ready` to its end.

use super::{End, Tail};
use std::{convert::Infallible, io::Write as _, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until};
use touchline_client::{Closed, Frame, Socket};

/// How long a missing message may be late before it is fetched.
const HOLE_PATIENCE: Duration = Duration::from_millis(200);
/// At most one ack in this time.
const ACK_EVERY: Duration = Duration::from_secs(1);

/// What is to be done on this socket, and when.
pub(super) struct Session<'a> {
    tail: &'a mut Tail,
    socket: Socket,
    /// When something last came.
    heard: Instant,
    /// Message frames that came.
    messages: u64,
    /// When to fetch what is missing.
    hole: Option<Instant>,
    /// When to renew the session, so that it outlives the access token.
    renewal: Option<Instant>,
    /// When to leave, as the gateway asked.
    moving: Option<Instant>,
}

impl<'a> Session<'a> {
    pub(super) fn new(tail: &'a mut Tail, socket: Socket) -> Self {
        let heard = Instant::now();
        let renewal = Some(renewal(heard, socket.expires_in()));
        Self { tail, socket, heard, messages: 0, hole: None, renewal, moving: None }
    }

    /// Works until the socket ends.
    pub(super) async fn run(mut self) -> Result<Infallible, End> {
        let beat = self.socket.heartbeat();
        let mut heartbeat = interval_at(Instant::now() + beat, beat);
        let mut acks = interval(ACK_EVERY);
        for timer in [&mut heartbeat, &mut acks] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                text = self.socket.next_text() => self.frame(&text?).await?,
                () = at(self.hole) => {
                    self.hole = None;
                    self.tail.sync().await?;
                }
                () = at(self.renewal) => {
                    self.renewal = None;
                    self.renew().await?;
                }
                () = at(self.moving) => return Err(End::Moved),
                _ = acks.tick() => {
                    let unacked = self.tail.log.take_unacked();
                    if !unacked.is_empty() {
                        self.socket.ack(&unacked).await?;
                    }
                }
                _ = heartbeat.tick() => {
                    if self.heard.elapsed() > beat * 5 / 2 {
                        return Err(Closed { code: 1006, reason: "silence".into() }.into());
                    }
                    // It lasted: a gateway that lets everybody in and drops them at once is not tried ever faster.
                    self.tail.backoff.reset();
                    self.socket.ping().await?;
                }
            }
        }
    }

    async fn frame(&mut self, text: &str) -> Result<(), End> {
        self.heard = Instant::now();
        match Frame::parse(text) {
            Frame::Message(message) => {
                self.messages += 1;
                for message in self.tail.log.take(message) {
                    self.tail.screen.show(&mut self.tail.account, &message).await?;
                }
                let since = self.hole.unwrap_or(self.heard + HOLE_PATIENCE);
                self.hole = self.tail.log.has_hole().then_some(since);
                return Ok(());
            }
            Frame::Pong { frames } if frames > self.messages => {
                self.messages = frames;
                self.tail.sync().await?;
            }
            Frame::Ready { expires_in_s, .. } => {
                self.renewal = Some(renewal(self.heard, Duration::from_secs(expires_in_s)));
                // Also when nobody asked for it: then the gateway had been lost to the senders for a while.
                self.tail.sync().await?;
            }
            Frame::Reconnect { after_ms } => self.moving = Some(self.heard + Duration::from_millis(after_ms)),
            Frame::Error { code, message } => {
                let _ = writeln!(std::io::stderr(), "the gateway says: {message} ({code})");
            }
            Frame::Pong { .. } | Frame::Unknown(_) => {}
        }
        Ok(self.tail.screen.show_frame(text)?)
    }

    /// Says hello again with a ticket of a fresh access token. When there is none, the session ends in its time, and
    /// the next one tells why.
    async fn renew(&mut self) -> Result<(), End> {
        let Tail { account, device, connection, .. } = &mut *self.tail;
        if account.renew().await.is_ok_and(|renewed| renewed)
            && let Ok(connect) = account.call(async |client| client.connect(device).await).await
        {
            self.socket.renew(&connect.ticket, device, *connection).await?;
        }
        Ok(())
    }
}

fn renewal(ready: Instant, expires_in: Duration) -> Instant {
    ready + expires_in.mul_f64(0.8)
}

/// Resolves at this time, if there is one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
