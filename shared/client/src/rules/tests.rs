//! The rules against the clock, list by list. What any list may do is in `any_order`.

use super::*;
use crate::{Backoff, Connect, GatewayAddress, Refusal, Synced, SyncedChannel};
use rand::SeedableRng as _;
use touchline_ids::{MessageId, SessionId, UserId};

mod any_order;
mod online;
mod reconnect;

/// The message at a place, the same one every time.
pub(super) fn message(channel_id: ChannelId, seq: i64) -> Message {
    let message_id = MessageId(uuid::Uuid::from_u128(channel_id.0.as_u128() ^ u128::from(seq.cast_unsigned())));
    Message {
        channel_id,
        seq: Seq(seq),
        message_id,
        sender_id: UserId(uuid::Uuid::nil()),
        kind: "text".into(),
        content: "x".into(),
        created_at: "2026-01-02T03:04:05Z".into(),
        check: message_id.check(),
        prev: None,
    }
}

fn options() -> Options {
    Options {
        connection: ConnectionNumber(0),
        cursors: Vec::new(),
        recent: 20,
        ack: true,
        raw: false,
        renewable: false,
        patience: Duration::from_secs(10),
        #[cfg(feature = "simulation")]
        sabotage: Sabotage::default(),
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn closed(code: u16) -> Closed {
    Closed { code, reason: String::new() }
}

fn refused(status: u16, code: &str, retry_after: Option<u64>) -> ClientError {
    let retry_after = retry_after.map(Duration::from_secs);
    ClientError::Refused(Refusal { status, code: code.into(), detail: String::new(), retry_after })
}

fn pushed(channel: ChannelId, seq: i64) -> Frame {
    Frame::Message(message(channel, seq))
}

fn nothing_new() -> Synced {
    Synced { channels: vec![], gone: vec![] }
}

fn synced(channel_id: ChannelId, seqs: impl IntoIterator<Item = i64>, reset: bool) -> Synced {
    let messages: Vec<_> = seqs.into_iter().map(|seq| message(channel_id, seq)).collect();
    let head_seq = messages.last().map_or(Seq(0), |last| last.seq);
    Synced { channels: vec![SyncedChannel { channel_id, head_seq, messages, more: false, reset }], gone: vec![] }
}

/// Rules with a clock and what they wanted so far.
struct Driven {
    rules: Rules,
    now: Instant,
    told: Vec<Event>,
    wanted: Vec<Action>,
}

impl Driven {
    fn new(options: Options) -> Self {
        let now = Instant::now();
        let rules = Rules::new(options, SmallRng::seed_from_u64(7), now);
        let mut driven = Self { rules, now, told: Vec::new(), wanted: Vec::new() };
        driven.wait(Duration::ZERO);
        driven
    }

    /// A device that is online on socket 1, holds `channel` up to 10, and has told so.
    fn online(options: Options) -> (Self, ChannelId) {
        let channel = ChannelId::new();
        let mut driven = Self::new(options);
        driven.connect();
        driven.answer_sync(synced(channel, [9, 10], true));
        driven.wait(seconds(1));
        driven.forget();
        (driven, channel)
    }

    /// Answers the ticket and opens the socket; gives its number.
    fn connect(&mut self) -> ConnectionNumber {
        self.give_ticket(2);
        let connection = self.opening();
        self.open(connection, seconds(900));
        connection
    }

    fn give_ticket(&mut self, gateways: usize) {
        let call = self.want(|action| matches!(action, Action::AskTicket { .. }));
        let Action::AskTicket { call } = call else { unreachable!() };
        self.rules.ticket(call, Ok(connect_answer(gateways)), self.now);
        self.settle();
    }

    fn refuse_ticket(&mut self, error: ClientError) {
        let call = self.want(|action| matches!(action, Action::AskTicket { .. }));
        let Action::AskTicket { call } = call else { unreachable!() };
        self.rules.ticket(call, Err(error), self.now);
        self.settle();
    }

    fn give_token(&mut self, result: Result<(), ClientError>) {
        let Action::RenewToken { call } = self.want(|action| matches!(action, Action::RenewToken { .. })) else {
            unreachable!()
        };
        self.rules.token_renewed(call, result, self.now);
        self.settle();
    }

    fn opening(&mut self) -> ConnectionNumber {
        match self.want(|action| matches!(action, Action::Open { .. })) {
            Action::Open { connection, .. } => connection,
            _ => unreachable!(),
        }
    }

    fn open(&mut self, connection: ConnectionNumber, expires_in: Duration) {
        let ready = Ready { session: SessionId::new(), heartbeat: seconds(25), expires_in };
        self.rules.opened(connection, ready, self.now);
        self.settle();
    }

    /// Answers the sync under way; gives the cursors it was asked with.
    fn answer_sync(&mut self, answer: Synced) -> Vec<Cursor> {
        let (call, cursors) = self.sync();
        self.rules.synced(call, Ok(answer), self.now);
        self.settle();
        cursors
    }

    fn sync(&mut self) -> (u64, Vec<Cursor>) {
        match self.want(|action| matches!(action, Action::Sync { .. })) {
            Action::Sync { call, cursors, .. } => (call, cursors),
            _ => unreachable!(),
        }
    }

    fn frame(&mut self, connection: i64, frame: Frame) {
        self.rules.frame_in(ConnectionNumber(connection), frame, self.now);
        self.settle();
    }

    fn close(&mut self, connection: i64, code: u16) {
        self.rules.closed(ConnectionNumber(connection), closed(code), self.now);
        self.settle();
    }

    /// Takes the first of what is wanted that matches.
    #[track_caller]
    fn want(&mut self, matches: impl Fn(&Action) -> bool) -> Action {
        self.settle();
        let at = self.wanted.iter().position(matches);
        self.wanted.remove(at.unwrap_or_else(|| panic!("not wanted; wanted: {:?}, told: {:?}", self.wanted, self.told)))
    }

    fn wants(&self, matches: impl Fn(&Action) -> bool) -> usize {
        self.wanted.iter().filter(|action| matches(action)).count()
    }

    fn syncs(&self) -> usize {
        self.wants(|action| matches!(action, Action::Sync { .. }))
    }

    fn acks(&self) -> Vec<BTreeMap<ChannelId, Seq>> {
        let acks = self.wanted.iter().filter_map(|action| match action {
            Action::Ack { cursors, .. } => Some(cursors.clone()),
            _ => None,
        });
        acks.collect()
    }

    /// What is due now is done; time does not pass.
    fn settle(&mut self) {
        loop {
            while let Some(action) = self.rules.next_action() {
                match action {
                    Action::Tell(event) => self.told.push(event),
                    action => self.wanted.push(action),
                }
            }
            if self.rules.next_wake().is_none_or(|wake| wake > self.now) {
                return;
            }
            self.rules.on_time(self.now);
            assert!(self.rules.next_wake().is_none_or(|wake| wake > self.now), "turns in a circle");
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while let Some(wake) = self.rules.next_wake().filter(|wake| *wake <= end) {
            self.now = wake;
            self.settle();
        }
        self.now = end;
    }

    fn forget(&mut self) {
        self.told.clear();
        self.wanted.clear();
    }

    fn shown(&self) -> Vec<i64> {
        let messages = self.told.iter().filter_map(|event| match event {
            Event::Message(message) => Some(message.seq.0),
            _ => None,
        });
        messages.collect()
    }

    /// How long the last `Offline` said it would take.
    #[track_caller]
    fn again_in(&self) -> Duration {
        let last = self.told.iter().rev().find_map(|event| match event {
            Event::Offline { again_in, .. } => Some(*again_in),
            _ => None,
        });
        last.unwrap_or_else(|| panic!("is not offline: {:?}", self.told))
    }

    fn has_ended(&self) -> bool {
        matches!(self.told.last(), Some(Event::Ended(_))) && self.rules.is_over()
    }
}

fn connect_answer(gateways: usize) -> Connect {
    Connect {
        gateways: (0..gateways).map(|n| GatewayAddress { url: format!("ws://gateway-{n}") }).collect(),
        ticket: "ticket".into(),
        expires_in_s: 30,
        heartbeat_s: 25,
        backoff: Backoff { base_ms: 500, cap_ms: 30_000 },
    }
}
