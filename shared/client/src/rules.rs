//! The client rules (PROTOCOL.md, section 6) as a state machine without I/O: frames, answers and times go in, what to
//! do comes out. [`Device`](crate::Device) drives it over real sockets; so can you, over others.
//!
//! A driver gives what happened to the method of that name, then takes [`next_action`](Rules::next_action) until there
//! is none, and calls [`on_time`](Rules::on_time) when [`next_wake`](Rules::next_wake) has come. A socket is named by
//! its connection number, a call by a number of its own; what comes from one that is over is ignored.

mod action;
mod connecting;
mod link;
mod log;
mod syncing;
#[cfg(test)]
mod tests;

use crate::{ClientError, Closed, Cursor, Delays, Event, Frame, Message, SyncCause, Trouble};
use connecting::Errand;
use link::{Due, Link};
use log::{Log, Taken};
use rand::rngs::SmallRng;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use syncing::Syncing;
use tokio::time::Instant;
use touchline_ids::{ChannelId, ConnectionNumber, Seq};

pub use action::{Action, Ticket};
pub use link::Ready;

/// How a device behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The last connection number this device has used.
    pub connection: ConnectionNumber,
    /// What it holds already.
    pub cursors: Vec<Cursor>,
    /// With how many messages each channel begins.
    pub recent: u32,
    /// Whether to ack.
    pub ack: bool,
    /// Whether to tell every frame as it came.
    pub raw: bool,
    /// Whether a new access token can be had: [`Action::RenewToken`] is asked for only then.
    pub renewable: bool,
    /// How long an answer is waited for.
    pub patience: Duration,
    /// Ways to break the rules on purpose.
    #[cfg(feature = "simulation")]
    pub sabotage: Sabotage,
}

/// Ways to break the rules on purpose, so that a simulator can show that it would notice.
#[cfg(feature = "simulation")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Sabotage {
    /// Acks what arrived, whatever is missing before it.
    pub ack_on_receipt: bool,
    /// Syncs while the socket is opened, and not after `ready`.
    pub sync_before_ready: bool,
}

/// One device's state.
#[derive(Debug)]
pub struct Rules {
    options: Options,
    rng: SmallRng,
    log: Log,
    /// The socket one is online on.
    link: Option<Link>,
    /// The one before it, until what it may have missed is synced.
    old: Option<Link>,
    /// Getting a ticket and what it is for.
    errand: Option<Errand>,
    syncing: Syncing,
    /// The call for a new access token; the calls that need one wait for it.
    token: Option<(u64, Instant)>,
    /// The access token was just renewed: another one would not help.
    token_is_fresh: bool,
    /// The access token may not be taken any more.
    token_is_doubtful: bool,
    delays: Delays,
    calls: u64,
    reading: bool,
    ended: bool,
    actions: VecDeque<Action>,
}

impl Rules {
    /// A device that is offline and connects at once. `rng` spreads its tries.
    pub fn new(mut options: Options, rng: SmallRng, now: Instant) -> Self {
        Self {
            log: Log::new(std::mem::take(&mut options.cursors)),
            link: None,
            old: None,
            errand: Some(Errand::connect(now)),
            syncing: Syncing::new(options.recent),
            token: None,
            token_is_fresh: false,
            token_is_doubtful: false,
            // Until the server gives its own numbers.
            delays: Delays::new(Duration::from_millis(500), Duration::from_secs(30)),
            calls: 0,
            reading: true,
            ended: false,
            actions: VecDeque::new(),
            options,
            rng,
        }
    }

    /// What to do next.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether the device has ended by itself.
    pub fn is_over(&self) -> bool {
        self.ended
    }

    /// Whether a socket is ready.
    pub fn is_online(&self) -> bool {
        self.link.is_some()
    }

    /// The greatest connection number used so far.
    pub fn connection(&self) -> ConnectionNumber {
        self.options.connection
    }

    /// What is held, by channel, but for the messages that are still to be told.
    pub fn cursors(&self) -> Vec<Cursor> {
        let (mut cursors, _) = self.log.cursors(None, usize::MAX);
        for action in self.actions.iter().rev() {
            if let Action::Tell(Event::Message(message)) = action
                && let Some(cursor) = cursors.iter_mut().find(|cursor| cursor.channel_id == message.channel_id)
            {
                (cursor.seq, cursor.check) = (Seq(message.seq.0 - 1), message.prev);
            }
        }
        cursors
    }

    /// A frame came.
    pub fn frame_in(&mut self, connection: ConnectionNumber, frame: Frame, now: Instant) {
        let Some(link) = [&mut self.link, &mut self.old].into_iter().flatten().find(|l| l.connection == connection)
        else {
            return;
        };
        link.heard(now);
        if self.options.raw {
            self.actions.push_back(Action::Tell(Event::Wire(frame.clone())));
        }
        match frame {
            Frame::Message(message) => {
                link.count();
                self.message(message, now);
            }
            Frame::Pong { frames } => {
                if link.lost_some(frames) {
                    self.want_sync(SyncCause::Lost, now);
                }
            }
            Frame::Ready { expires_in_s, .. } => {
                link.expires_in(Duration::from_secs(expires_in_s), &mut self.rng, now);
                // Also when nobody asked for it: then the gateway had been lost to the senders for a while.
                self.sync_anew(now);
            }
            Frame::Reconnect { after_ms } => {
                link.move_at = Some(link::after(now, Duration::from_millis(after_ms)));
            }
            Frame::Error { code, message } => self.complaint(code, message, now),
            Frame::Unknown(_) => {}
        }
    }

    /// A socket ended.
    pub fn closed(&mut self, connection: ConnectionNumber, closed: Closed, now: Instant) {
        if self.old.take_if(|old| old.connection == connection).is_some() {
            // We replaced it ourselves, however it took that.
            return;
        }
        if self.link.take_if(|link| link.connection == connection).is_some() {
            if let Some(old) = self.old.take() {
                self.actions.push_back(Action::Close { connection: old.connection });
            }
            self.offline(closed.into(), now);
        }
    }

    /// The application cuts the connection.
    pub fn cut(&mut self, now: Instant) {
        if let Some(link) = &self.link {
            let connection = link.connection;
            self.actions.push_back(Action::Drop { connection });
            self.closed(connection, Closed { code: 1006, reason: "cut by the application".into() }, now);
        }
    }

    /// The application stops or goes on reading: meanwhile silence means nothing.
    pub fn set_reading(&mut self, reading: bool, now: Instant) {
        self.reading = reading;
        [&mut self.link, &mut self.old].into_iter().flatten().for_each(|link| link.heard(now));
    }

    /// When [`on_time`](Self::on_time) has something to do next.
    pub fn next_wake(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let links = [&self.link, &self.old].into_iter().flatten().map(|link| link.next_due(self.reading).0);
        let lasts = self.link.as_ref().and_then(|link| link.lasts_at);
        let token = self.token.map(|(_, deadline)| deadline);
        links.chain(lasts).chain(token).chain(self.errand_wake()).chain(self.sync_wake()).min()
    }

    /// Time has passed.
    pub fn on_time(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        if let Some((call, deadline)) = self.token
            && now >= deadline
        {
            self.token_renewed(call, Err(ClientError::TooSlow), now);
        }
        if let Some(link) = &mut self.link
            && link.lasts_at.take_if(|lasts| now >= *lasts).is_some()
        {
            self.delays.reset();
        }
        self.links_on_time(now);
        self.errand_on_time(now);
        self.sync_on_time(now);
    }

    fn links_on_time(&mut self, now: Instant) {
        let mut dead = None;
        for link in [&mut self.link, &mut self.old].into_iter().flatten() {
            let connection = link.connection;
            loop {
                let (at, due) = link.next_due(self.reading);
                if now < at {
                    break;
                }
                match due {
                    Due::Ping => {
                        link.pinged(now);
                        self.actions.push_back(Action::Ping { connection });
                    }
                    Due::Ack => {
                        let unacked = link.take_unacked(now);
                        let cursors = unacked.into_iter().filter_map(|channel| {
                            #[cfg(feature = "simulation")]
                            if self.options.sabotage.ack_on_receipt {
                                return Some((channel, self.log.farthest(channel)?));
                            }
                            Some((channel, self.log.held(channel)?))
                        });
                        let cursors: BTreeMap<_, _> = cursors.collect();
                        if !cursors.is_empty() {
                            self.actions.push_back(Action::Ack { connection, cursors });
                        }
                    }
                    Due::Dead => {
                        dead = Some(connection);
                        break;
                    }
                }
            }
        }
        if let Some(connection) = dead {
            self.actions.push_back(Action::Drop { connection });
            self.closed(connection, Closed { code: 1006, reason: "silence".into() }, now);
        }
    }

    /// A message was pushed.
    fn message(&mut self, message: Message, now: Instant) {
        let channel = message.channel_id;
        let mut shown = Vec::new();
        match self.log.take(message, self.syncing.begun(), &mut shown) {
            Taken::Shown | Taken::Known => self.must_ack(channel),
            Taken::Aside =>
            {
                #[cfg(feature = "simulation")]
                if self.options.sabotage.ack_on_receipt {
                    self.must_ack(channel);
                }
            }
            Taken::Other => self.want_sync(SyncCause::Other, now),
            Taken::Full => self.want_sync_after(SyncCause::Hole),
        }
        self.show(shown);
        self.look_for_holes(now);
    }

    fn must_ack(&mut self, channel: ChannelId) {
        if self.options.ack {
            // On both sockets: either gateway may wait for it.
            [&mut self.link, &mut self.old].into_iter().flatten().for_each(|link| link.must_ack(channel));
        }
    }

    fn show(&mut self, messages: Vec<Message>) {
        self.actions.extend(messages.into_iter().map(|message| Action::Tell(Event::Message(message))));
    }

    fn complaint(&mut self, code: String, message: String, now: Instant) {
        // It could not check the ticket of a renewal; the session lives on.
        if let Some(link) = self.link.as_mut().filter(|link| code == "overloaded" && link.renew_at.is_none()) {
            link.renew_later(now);
        }
        self.actions.push_back(Action::Tell(Event::Complaint { code, message }));
    }

    /// Nothing more to be done.
    fn end(&mut self, why: Trouble) {
        let links = [self.link.take(), self.old.take()].into_iter().flatten().map(|link| link.connection);
        let open = links.chain(self.errand.take().and_then(|errand| errand.opening()));
        self.actions.extend(open.map(|connection| Action::Drop { connection }));
        self.actions.push_back(Action::Tell(Event::Ended(why)));
        self.ended = true;
    }

    /// Until when an answer to what is asked now is waited for.
    fn deadline(&self, now: Instant) -> Instant {
        link::after(now, self.options.patience)
    }

    /// A number for a call.
    fn call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }
}
