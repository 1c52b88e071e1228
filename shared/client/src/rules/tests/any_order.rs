//! Whatever order, loss and repetition: a server with a dense log per channel against one device, driven by any list of
//! steps. What the device shows is that log, once and in order; what it acks, it holds.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// A message is stored.
    Store(usize),
    /// A stored message is pushed on the newest open socket, or on the one before it: now, again, late, in any order.
    Push {
        channel: usize,
        back: i64,
        old: bool,
    },
    /// A push is counted by the gateway and never arrives.
    Lose,
    Wait(u64),
    /// The server's answer to a sync is made now, and arrives with the next `Arrive`.
    Answer {
        page: usize,
    },
    Arrive,
    /// The sync fails.
    Fail,
    /// The ticket is given.
    Ticket,
    /// The socket gets ready.
    Connect,
    Pong,
    Ready,
    Reconnect,
    Close {
        code: u16,
        old: bool,
    },
    Cut,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..CHANNELS).prop_map(Step::Store),
        9 => (0..CHANNELS, 0..6_i64, any::<bool>()).prop_map(|(channel, back, old)| Step::Push { channel, back, old }),
        1 => Just(Step::Lose),
        4 => (0..2_000_u64).prop_map(Step::Wait),
        5 => (1..4_usize).prop_map(|page| Step::Answer { page }),
        5 => Just(Step::Arrive),
        1 => Just(Step::Fail),
        3 => Just(Step::Ticket),
        3 => Just(Step::Connect),
        1 => Just(Step::Pong),
        1 => Just(Step::Ready),
        1 => Just(Step::Reconnect),
        1 => (prop_oneof![Just(1006_u16), Just(1012), Just(4010)], any::<bool>())
            .prop_map(|(code, old)| Step::Close { code, old }),
        1 => Just(Step::Cut),
    ]
}

const CHANNELS: usize = 2;

struct World {
    device: Driven,
    logs: Vec<(ChannelId, Vec<Message>)>,
    /// Open sockets, the newest last, and what was sent on each.
    sockets: Vec<(ConnectionNumber, u64)>,
    answer: Option<(u64, Synced)>,
    /// Stored, and neither pushed nor lost yet.
    unpushed: Vec<Message>,
    /// How much of what the device told and wanted was looked at.
    told: usize,
    shown: Vec<i64>,
}

impl World {
    /// The channels have ten messages each, and the device knows the first five.
    fn new(options: Options) -> Self {
        let channels: Vec<_> = (0..CHANNELS).map(|_| ChannelId::new()).collect();
        let log = |channel: &ChannelId| (*channel, (1..=10).map(|seq| message(*channel, seq)).collect::<Vec<_>>());
        let logs: Vec<_> = channels.iter().map(log).collect();
        let cursors = logs.iter().map(|(_, log)| log[4].cursor()).collect();
        let device = Driven::new(Options { cursors, ..options });
        Self { device, logs, sockets: vec![], answer: None, unpushed: vec![], told: 0, shown: vec![5; CHANNELS] }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Store(channel) => {
                let (id, log) = &mut self.logs[channel];
                log.push(message(*id, log.len() as i64 + 1));
                // To whom nobody is connected, nothing is pushed.
                self.unpushed.extend(log.last().filter(|_| !self.sockets.is_empty()).cloned());
            }
            Step::Push { channel, back, old } => {
                let log = &self.logs[channel].1;
                let message = log[(log.len() as i64 - 1 - back) as usize].clone();
                self.frame(Frame::Message(message), old);
            }
            Step::Lose => {
                if let Some(socket) = self.sockets.last_mut()
                    && self.unpushed.pop().is_some()
                {
                    socket.1 += 1;
                }
            }
            Step::Wait(time) => self.device.wait(millis(time)),
            Step::Answer { page } => self.make_answer(page),
            Step::Arrive => {
                if let Some((call, synced)) = self.answer.take() {
                    self.device.rules.synced(call, Ok(synced), self.device.now);
                }
            }
            Step::Fail => {
                if let Some(Action::Sync { call, .. }) = self.take(|action| matches!(action, Action::Sync { .. })) {
                    self.device.rules.synced(call, Err(refused(503, "unavailable", Some(1))), self.device.now);
                }
            }
            Step::Ticket => {
                if let Some(Action::AskTicket { call }) = self.take(|action| matches!(action, Action::AskTicket { .. }))
                {
                    self.device.rules.ticket(call, Ok(connect_answer(1)), self.device.now);
                }
            }
            Step::Connect => {
                if let Some(Action::Open { connection, .. }) = self.take(|action| matches!(action, Action::Open { .. }))
                {
                    self.sockets.push((connection, 0));
                    self.device.open(connection, seconds(900));
                }
            }
            Step::Pong => {
                if let Some((_, sent)) = self.sockets.last() {
                    self.frame(Frame::Pong { frames: *sent }, false);
                }
            }
            Step::Ready => {
                let ready = Frame::Ready { session_id: SessionId::new(), heartbeat_s: 25, expires_in_s: 900 };
                self.frame(ready, false);
            }
            Step::Reconnect => self.frame(Frame::Reconnect { after_ms: 100 }, false),
            Step::Close { code, old } => {
                if let Some(at) = self.socket(old) {
                    let (connection, _) = self.sockets.remove(at);
                    self.device.rules.closed(connection, closed(code), self.device.now);
                }
            }
            Step::Cut => self.device.rules.cut(self.device.now),
        }
        self.look();
    }

    fn socket(&self, old: bool) -> Option<usize> {
        self.sockets.len().checked_sub(if old { 2 } else { 1 })
    }

    fn frame(&mut self, frame: Frame, old: bool) {
        if let Some(at) = self.socket(old) {
            let (connection, sent) = &mut self.sockets[at];
            *sent += u64::from(matches!(frame, Frame::Message(_)));
            self.device.rules.frame_in(*connection, frame, self.device.now);
        }
    }

    /// What the server's log says now, a page of it.
    fn make_answer(&mut self, page: usize) {
        let Some(Action::Sync { call, cursors, .. }) = self.take(|action| matches!(action, Action::Sync { .. })) else {
            return;
        };
        let channels = self.logs.iter().filter_map(|(channel_id, log)| {
            let cursor = cursors.iter().find(|cursor| cursor.channel_id == *channel_id)?;
            let after = &log[cursor.seq.0 as usize..];
            let (messages, more) = (after[..page.min(after.len())].to_vec(), after.len() > page);
            let head_seq = Seq(log.len() as i64);
            let synced = SyncedChannel { channel_id: *channel_id, head_seq, messages, more, reset: false };
            (!after.is_empty()).then_some(synced)
        });
        self.answer = Some((call, Synced { channels: channels.collect(), gone: vec![] }));
    }

    /// The newest of what is wanted; what was wanted before it is not any more.
    fn take(&mut self, matches: impl Fn(&Action) -> bool) -> Option<Action> {
        self.device.settle();
        let at = self.device.wanted.iter().rposition(matches)?;
        Some(self.device.wanted.remove(at))
    }

    /// Judges what was told and acked since the last look.
    fn look(&mut self) {
        self.device.settle();
        for event in &self.device.told[self.told..] {
            if let Event::Message(message) = event {
                let channel = self.logs.iter().position(|(id, _)| *id == message.channel_id).expect("known");
                assert_eq!(message.seq.0, self.shown[channel] + 1, "once, in order, without a hole");
                assert_eq!(*message, self.logs[channel].1[message.seq.0 as usize - 1]);
                self.shown[channel] += 1;
            }
            assert!(!matches!(event, Event::Ended(_) | Event::Reset { .. } | Event::Gone(_)), "{event:?}");
        }
        self.told = self.device.told.len();
        let mut gone = HashSet::new();
        for action in &self.device.wanted {
            match action {
                Action::Ack { cursors, .. } => {
                    for (channel, seq) in cursors {
                        let channel = self.logs.iter().position(|(id, _)| id == channel).expect("known");
                        assert!(seq.0 <= self.shown[channel], "acked {seq} and shown {}", self.shown[channel]);
                    }
                }
                Action::Close { connection } | Action::Drop { connection } => _ = gone.insert(*connection),
                _ => {}
            }
        }
        self.sockets.retain(|(connection, _)| !gone.contains(connection));
        if self.sockets.is_empty() {
            self.unpushed.clear();
        }
        self.device
            .wanted
            .retain(|action| matches!(action, Action::AskTicket { .. } | Action::Open { .. } | Action::Sync { .. }));
    }

    /// The faults end. What was not pushed is, the newest first.
    fn heal(&mut self) {
        while let Some(message) = self.unpushed.pop() {
            self.frame(Frame::Message(message), false);
            self.look();
        }
        for _ in 0..200 {
            for step in
                [Step::Ticket, Step::Connect, Step::Answer { page: 3 }, Step::Arrive, Step::Pong, Step::Wait(500)]
            {
                self.step(step);
            }
        }
    }
}

/// Runs the steps, heals, and looks whether the device is where the server is.
fn run(options: Options, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new(options);
    for step in steps {
        world.step(step);
    }
    world.heal();
    let heads: Vec<_> = world.logs.iter().map(|(_, log)| log.len() as i64).collect();
    prop_assert_eq!(&world.shown, &heads);
    prop_assert!(world.device.rules.is_online());
    prop_assert!(world.sockets.len() == 1, "the old socket was left");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_order_and_repetition_gives_the_log_once(steps in prop::collection::vec(any_step(), 0..150)) {
        run(options(), steps)?;
    }
}

#[cfg(feature = "simulation")]
#[test]
fn a_device_that_breaks_a_rule_is_found_out() {
    use proptest::test_runner::{Config, TestRunner};

    let ack_on_receipt = Sabotage { ack_on_receipt: true, ..Sabotage::default() };
    let sync_before_ready = Sabotage { sync_before_ready: true, ..Sabotage::default() };
    for sabotage in [ack_on_receipt, sync_before_ready] {
        let config = Config { cases: 2_000, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
        let result = TestRunner::new(config)
            .run(&prop::collection::vec(any_step(), 0..150), |steps| run(Options { sabotage, ..options() }, steps));
        assert!(result.is_err(), "{sabotage:?}");
    }
}
