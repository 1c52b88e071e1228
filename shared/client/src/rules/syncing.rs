//! When to sync: one at a time, after every `ready`, after a hole, and when the gateway counted more than arrived.

use super::{
    Action, Rules,
    connecting::{asked_wait, is_final},
};
use crate::{ClientError, Delays, Event, SyncCause, Synced, SyncedChannel};
use std::time::Duration;
use tokio::time::Instant;
use touchline_ids::ChannelId;

/// How long a missing message may be late before it is fetched.
const HOLE_PATIENCE: Duration = Duration::from_millis(200);
/// How many channels one request may name.
const CURSORS: usize = 1_000;
/// How much of a channel that appears later is shown; the server's limit. It was made while we watched.
const RECENT_OF_NEW: u32 = 50;

#[derive(Debug)]
pub(super) struct Syncing {
    state: State,
    /// How many runs have begun.
    begun: u64,
    recent: u32,
    delays: Delays,
}

#[derive(Debug)]
enum State {
    Idle,
    /// Goes on at this time, or once the access token is renewed.
    Due(Run, Instant),
    Flying {
        run: Run,
        call: u64,
        deadline: Instant,
        /// The channels of this request, in order.
        named: Vec<ChannelId>,
        /// The channel after the last of them.
        next: Option<ChannelId>,
    },
}

/// As many requests as it takes until nothing more is missing.
#[derive(Debug)]
struct Run {
    cause: SyncCause,
    /// When it was wanted.
    since: Instant,
    /// Which run this is; none before its first request.
    number: Option<u64>,
    /// The first channel of the next request.
    from: Option<ChannelId>,
    /// Another one must follow: something happened that this one may have been too early for.
    again: Option<SyncCause>,
}

/// What became of a channel's part of an answer.
struct Part {
    /// It changed something.
    progress: bool,
    /// It is of the log that is held; else another sync tells.
    fits: bool,
    /// A reset to a place before the one that was held.
    went_back: bool,
}

impl Run {
    fn new(cause: SyncCause, since: Instant) -> Self {
        Self { cause, since, number: None, from: None, again: None }
    }
}

impl Syncing {
    pub(super) fn new(recent: u32) -> Self {
        let delays = Delays::new(Duration::from_millis(500), Duration::from_secs(30));
        Self { state: State::Idle, begun: 0, recent, delays }
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun
    }
}

impl Rules {
    /// The answer to [`Action::Sync`].
    pub fn synced(&mut self, call: u64, result: Result<Synced, ClientError>, now: Instant) {
        let (run, named, next) = match std::mem::replace(&mut self.syncing.state, State::Idle) {
            State::Flying { run, call: asked, named, next, .. } if asked == call => (run, named, next),
            other => {
                self.syncing.state = other;
                return;
            }
        };
        match result {
            Ok(synced) => {
                self.token_is_fresh = false;
                self.take_synced(run, synced, &named, next, now);
            }
            Err(error) => {
                self.syncing.state = State::Due(run, now);
                if self.renews_token_after(&error, now) {
                    return;
                }
                if is_final(&error) {
                    self.end(error.into());
                } else {
                    self.sync_later(error, now);
                }
            }
        }
    }

    /// Wants a sync now, or another one after the one under way.
    pub(super) fn want_sync(&mut self, cause: SyncCause, now: Instant) {
        match &mut self.syncing.state {
            State::Idle => self.syncing.state = State::Due(Run::new(cause, now), now),
            State::Due(run, at) if run.number.is_none() => {
                run.cause = run.cause.max(cause);
                *at = now.min(*at);
            }
            State::Due(..) | State::Flying { .. } => return self.want_sync_after(cause),
        }
        self.sync_on_time(now);
    }

    /// Wants another sync after the one under way.
    pub(super) fn want_sync_after(&mut self, cause: SyncCause) {
        if let State::Due(run, _) | State::Flying { run, .. } = &mut self.syncing.state {
            run.again = run.again.max(Some(cause));
        }
    }

    /// Begins a sync whatever is under way: the session is ready, so what it gives from now on is complete.
    pub(super) fn sync_anew(&mut self, now: Instant) {
        self.syncing.state = State::Due(Run::new(SyncCause::Ready, now), now);
        self.sync_on_time(now);
    }

    /// A message that waits for another one for too long is a reason to sync.
    pub(super) fn look_for_holes(&mut self, now: Instant) {
        match &self.syncing.state {
            State::Idle if self.log.has_hole() => {
                self.syncing.state = State::Due(Run::new(SyncCause::Hole, now), now + HOLE_PATIENCE);
            }
            State::Due(Run { cause: SyncCause::Hole, number: None, .. }, _) if !self.log.has_hole() => {
                self.syncing.state = State::Idle;
            }
            _ => {}
        }
    }

    /// After the next `ready` everything is synced anyway.
    pub(super) fn sync_offline(&mut self) {
        if let State::Due(..) = self.syncing.state {
            self.syncing.state = State::Idle;
        }
    }

    pub(super) fn sync_wake(&self) -> Option<Instant> {
        match &self.syncing.state {
            State::Idle => None,
            State::Due(_, at) => self.token.is_none().then_some(*at),
            State::Flying { deadline, .. } => Some(*deadline),
        }
    }

    pub(super) fn sync_on_time(&mut self, now: Instant) {
        match &self.syncing.state {
            State::Due(_, at) if now >= *at && self.token.is_none() => {
                if let State::Due(run, _) = std::mem::replace(&mut self.syncing.state, State::Idle) {
                    self.request(run, now);
                }
            }
            State::Flying { call, deadline, .. } if now >= *deadline => {
                self.synced(*call, Err(ClientError::TooSlow), now);
            }
            _ => {}
        }
    }

    /// A sync that failed goes on after a while, if it is still wanted.
    pub(super) fn sync_later(&mut self, why: ClientError, now: Instant) {
        let State::Due(_, at) = &mut self.syncing.state else { return };
        if self.link.is_none() {
            self.syncing.state = State::Idle;
            return;
        }
        let again_in = self.syncing.delays.next(&mut self.rng) + asked_wait(&why);
        *at = now + again_in;
        self.actions.push_back(Action::Tell(Event::SyncFailed { why, again_in }));
    }

    /// The run's next request.
    fn request(&mut self, mut run: Run, now: Instant) {
        if run.number.is_none() {
            self.syncing.begun += 1;
            run.number = Some(self.syncing.begun);
        }
        let (cursors, next) = self.log.cursors(run.from, CURSORS);
        let named = cursors.iter().map(|cursor| cursor.channel_id).collect();
        let (call, deadline) = (self.call(), self.deadline(now));
        self.actions.push_back(Action::Sync { call, cursors, recent: self.syncing.recent });
        self.syncing.state = State::Flying { run, call, deadline, named, next };
    }

    fn take_synced(
        &mut self,
        mut run: Run,
        synced: Synced,
        named: &[ChannelId],
        next: Option<ChannelId>,
        now: Instant,
    ) {
        let number = run.number.unwrap_or(self.syncing.begun);
        let (mut more, mut progress) = (false, false);
        for channel in synced.channels {
            let (channel_id, has_more) = (channel.channel_id, channel.more);
            let Some(channel) = self.as_named(channel, named, &mut run) else { continue };
            let taken = self.take_channel(channel, number);
            progress |= taken.progress;
            more |= has_more;
            if taken.fits {
                self.must_ack(channel_id);
            }
            if !taken.fits || taken.went_back {
                run.again = run.again.max(Some(SyncCause::Other));
            }
        }
        for channel in synced.gone {
            if self.log.forget(channel, number) {
                self.actions.push_back(Action::Tell(Event::Gone(channel)));
            }
        }
        if more && progress {
            self.request(run, now);
        } else if more {
            // What it brought came otherwise meanwhile. Or the server turns in a circle: not at full speed, then.
            let wait = self.syncing.delays.next(&mut self.rng);
            self.syncing.state = State::Due(run, now + wait);
        } else if next.is_some() {
            run.from = next;
            self.request(run, now);
        } else {
            self.end_sync(&run, number, now);
        }
    }

    fn take_channel(&mut self, channel: SyncedChannel, number: u64) -> Part {
        let SyncedChannel { channel_id, head_seq, reset, .. } = channel;
        let held = self.log.held(channel_id);
        if reset {
            self.actions.push_back(Action::Tell(Event::Reset { channel_id, head_seq, held }));
        }
        let mut shown = Vec::new();
        let fits = self.log.take_synced(channel, number, &mut shown);
        // What came since the answer was written, and before the place that one went back from, was dropped as known.
        let went_back = reset && held > self.log.held(channel_id);
        let progress = reset || !shown.is_empty();
        self.show(shown);
        Part { progress, fits, went_back }
    }

    /// A `reset` of a channel that was not named, for one learned of it after the request or names it in another one,
    /// is none. What its messages continue is taken.
    fn as_named(&self, mut channel: SyncedChannel, named: &[ChannelId], run: &mut Run) -> Option<SyncedChannel> {
        let held = self.log.held(channel.channel_id);
        if let Some(held) = held
            && channel.reset
            && named.binary_search(&channel.channel_id).is_err()
        {
            channel.reset = false;
            let first = channel.messages.first()?;
            // Nobody compared this cursor.
            if !self.log.follows(first) && first.seq.0.saturating_sub(1) == held.0 {
                run.again = run.again.max(Some(SyncCause::Other));
                return None;
            }
            return (first.seq.0.saturating_sub(1) <= held.0).then_some(channel);
        }
        Some(channel)
    }

    fn end_sync(&mut self, run: &Run, number: u64, now: Instant) {
        self.log.end_sync(number);
        self.syncing.recent = RECENT_OF_NEW;
        self.syncing.delays.reset();
        let (cause, took) = (run.cause, now.saturating_duration_since(run.since));
        self.actions.push_back(Action::Tell(Event::CaughtUp { cause, took }));
        // Every sync that ends began after the newest `ready`: nothing that the old socket would bring is missing.
        if let Some(old) = self.old.take() {
            self.actions.push_back(Action::Close { connection: old.connection });
        }
        match run.again.filter(|_| self.link.is_some()) {
            Some(cause) => self.want_sync(cause, now),
            None => self.look_for_holes(now),
        }
    }
}
