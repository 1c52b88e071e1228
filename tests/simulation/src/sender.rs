//! Whoever sends and changes channels: each thing with one name, again and again until the answer is known.

use crate::{
    database::Change,
    world::{
        Input, Node, World,
        calls::{CallId, Outcome, Question, Reply, Rest, RestAnswer},
    },
};
use rand::Rng as _;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use touchline_ids::{ChannelId, ClientMessageId, UserId};

const PATIENCE: Duration = Duration::from_secs(8);
const FIRST_PAUSE: Duration = Duration::from_millis(300);
const LAST_PAUSE: Duration = Duration::from_secs(3);

/// Something to be done at a time.
#[derive(Debug, Clone)]
pub(crate) struct Deed {
    pub(crate) at: Instant,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Send { channel: ChannelId, sender: UserId, name: ClientMessageId },
    Change { channel: ChannelId, change: Change },
}

pub(crate) struct Sender {
    node: Node,
    /// What is left, by time; an entry is tried again later until its outcome is known.
    deeds: Vec<Deed>,
    calls: BTreeMap<CallId, What>,
}

impl Sender {
    pub(crate) fn new(number: usize, deeds: Vec<Deed>) -> Self {
        Self { node: Node::Sender(number), deeds, calls: BTreeMap::new() }
    }

    pub(crate) fn input(&mut self, world: &mut World, input: Input) {
        if let Input::Answer(call, outcome) = input {
            self.answer(world, call, outcome);
        }
        let (due, left): (Vec<_>, Vec<_>) = self.deeds.drain(..).partition(|deed| deed.at <= world.now);
        self.deeds = left;
        for deed in due {
            // Now and then somebody taps twice.
            let times = if world.chance.random_ratio(1, 5) { 2 } else { 1 };
            for _ in 0..times {
                self.ask(world, deed.what.clone());
            }
        }
    }

    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.deeds.iter().map(|deed| deed.at).min()
    }

    /// Whether everything is done.
    pub(crate) fn is_done(&self) -> bool {
        self.deeds.is_empty() && self.calls.is_empty()
    }

    fn ask(&mut self, world: &mut World, what: What) {
        let rest = match what.clone() {
            What::Send { channel, sender, name } => Rest::Send { channel, sender, name },
            What::Change { channel, change } => Rest::Change { channel, change },
        };
        let api = world.some_api();
        let call = world.ask(self.node, api, Question::Api(rest), PATIENCE);
        self.calls.insert(call, what);
    }

    fn answer(&mut self, world: &mut World, call: CallId, outcome: Outcome) {
        let Some(what) = self.calls.remove(&call) else { return };
        match (outcome, &what) {
            (Ok(Reply::Api(RestAnswer::Sent { seq, message })), What::Send { channel, name, .. }) => {
                world.record.accepted(*channel, seq, message, name);
            }
            (Ok(Reply::Api(RestAnswer::Sent { .. } | RestAnswer::Refused | RestAnswer::Changed)), _) => {}
            _ => {
                let at = world.now + world.between(FIRST_PAUSE, LAST_PAUSE);
                self.deeds.push(Deed { at, what });
            }
        }
    }
}
