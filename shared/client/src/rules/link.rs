//! One open socket as the rules see it: what it counted, what it must say, and when.

use rand::Rng;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;
use touchline_ids::{ChannelId, ConnectionNumber, SessionId};

/// PROTOCOL.md, section 4: silence of so long means that the connection is dead.
const DEAD_AFTER: Duration = Duration::from_secs(60);
/// Who was let in and stayed for so long has failed no more. Short, or a device that a few gateways die under, one after
/// the other, waits for longer each time; and long enough that one which is let in and dropped at once comes ever later.
const LASTS: Duration = Duration::from_secs(5);
/// At most one ack in this time.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// No number of the server's makes a time farther away than this. (A time that is too far cannot be computed.)
const FARTHEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What `ready` said when a socket was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The session.
    pub session: SessionId,
    /// How often to ping.
    pub heartbeat: Duration,
    /// How long the session lives unless it is renewed.
    pub expires_in: Duration,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: ConnectionNumber,
    heartbeat: Duration,
    /// When something last came.
    heard: Instant,
    /// Message frames that came.
    frames: u64,
    ping_at: Instant,
    /// Channels whose cursor is to be acked.
    unacked: BTreeSet<ChannelId>,
    /// Not before then.
    ack_at: Instant,
    expires: Instant,
    /// When to renew the session, so that it outlives the access token.
    pub(super) renew_at: Option<Instant>,
    /// When to move elsewhere, as the gateway asked.
    pub(super) move_at: Option<Instant>,
    /// From when on it has lasted: a gateway that lets everybody in and drops them at once is not tried ever faster.
    pub(super) lasts_at: Option<Instant>,
}

/// What is due on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Ack,
    Ping,
    Dead,
}

impl Link {
    pub(super) fn new(connection: ConnectionNumber, ready: Ready, rng: &mut impl Rng, now: Instant) -> Self {
        let heartbeat = ready.heartbeat.max(Duration::from_secs(1));
        let mut link = Self {
            connection,
            heartbeat,
            heard: now,
            frames: 0,
            // Devices that came together do not ping together.
            ping_at: after(now, heartbeat.mul_f64(rng.random_range(0.0..=1.0))),
            unacked: BTreeSet::new(),
            ack_at: now,
            expires: now,
            renew_at: None,
            move_at: None,
            lasts_at: Some(after(now, LASTS)),
        };
        link.expires_in(ready.expires_in, rng, now);
        link
    }

    /// The session lives so long from now on.
    pub(super) fn expires_in(&mut self, life: Duration, rng: &mut impl Rng, now: Instant) {
        self.expires = after(now, life);
        // Spread, for log-ins of one moment expire in one moment.
        self.renew_at = Some(after(now, life.mul_f64(rng.random_range(0.7..=0.9))));
    }

    /// The renewal failed: tries again while there is time.
    pub(super) fn renew_later(&mut self, now: Instant) {
        let left = self.expires.saturating_duration_since(now);
        self.renew_at = (left > Duration::from_secs(2)).then(|| now + left / 4);
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A message frame came.
    pub(super) fn count(&mut self) {
        self.frames += 1;
    }

    /// The gateway says how many message frames it has sent: whether some did not arrive.
    pub(super) fn lost_some(&mut self, sent: u64) -> bool {
        let lost = sent > self.frames;
        self.frames = self.frames.max(sent);
        lost
    }

    pub(super) fn must_ack(&mut self, channel: ChannelId) {
        self.unacked.insert(channel);
    }

    pub(super) fn take_unacked(&mut self, now: Instant) -> BTreeSet<ChannelId> {
        self.ack_at = now + ACK_EVERY;
        std::mem::take(&mut self.unacked)
    }

    /// A ping went out.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.ping_at = now + self.heartbeat;
    }

    /// What is due next, and when. While the application does not read, silence is not the gateway's.
    pub(super) fn next_due(&self, reading: bool) -> (Instant, Due) {
        let mut next = (self.ping_at, Due::Ping);
        if !self.unacked.is_empty() && self.ack_at < next.0 {
            next = (self.ack_at, Due::Ack);
        }
        let dead = self.heard + DEAD_AFTER;
        if reading && dead <= next.0 { (dead, Due::Dead) } else { next }
    }
}

/// So long after now, within reason.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(FARTHEST)
}
