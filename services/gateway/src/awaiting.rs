//! The pushes of one stream whose acks are awaited, without I/O: what was handed to whom goes in, results come out.
//!
//! Looks are first in, first out: an api asks for the same wait every time, and a shorter wait behind a longer one is
//! answered late, never wrongly.

use crate::hub::{Hub, User};
use bytes::{Bytes, BytesMut};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::Instant;
use touchline_ids::{ChannelId, Seq};
use touchline_proto::{convert::ID_LEN, push::PushResult};

/// What became of a push, but for the acks.
#[derive(Debug)]
pub(crate) struct HandedOut {
    pub(crate) push_id: u64,
    pub(crate) channel: ChannelId,
    pub(crate) seq: Seq,
    /// Packed: who has no session here.
    pub(crate) gone: Bytes,
    /// Packed: whose queues were full.
    pub(crate) slow: Bytes,
    /// Who has it and may ack. Pointers, so that neither acking nor looking allocates.
    pub(crate) unacked: Vec<Arc<User>>,
}

/// The pushes under way.
#[derive(Debug, Default)]
pub(crate) struct Awaiting {
    /// Waiting for the first look at their acks.
    early: VecDeque<Pending>,
    /// Waiting for the last.
    late: VecDeque<Pending>,
    recipients: usize,
}

#[derive(Debug)]
struct Pending {
    out: HandedOut,
    /// When its acks are looked at first, and last.
    early: Instant,
    due: Instant,
}

impl Awaiting {
    /// Recipients whose acks are awaited.
    pub(crate) fn recipients(&self) -> usize {
        self.recipients
    }

    /// A push was handed out: its acks are looked at after `early`, and for the last time after `wait`. Some: its
    /// result, for nobody's ack is awaited.
    pub(crate) fn add(&mut self, out: HandedOut, early: Duration, wait: Duration, now: Instant) -> Option<PushResult> {
        if out.unacked.is_empty() {
            return Some(out.result());
        }
        self.recipients += out.unacked.len();
        let pending = Pending { out, early: now + wait.min(early), due: now + wait };
        if wait.is_zero() {
            // Behind others this one would not be answered at once.
            self.early.push_front(pending);
        } else {
            self.early.push_back(pending);
        }
        None
    }

    /// When the next look at acks is due.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let early = self.early.front().map(|pending| pending.early);
        let late = self.late.front().map(|pending| pending.due);
        early.into_iter().chain(late).min()
    }

    /// Looks at the acks of every push that is due; answers with the results of those that are done.
    pub(crate) fn look(&mut self, hub: &Hub, now: Instant) -> Vec<PushResult> {
        let mut results = Vec::new();
        while let Some(mut pending) = self.early.pop_front_if(|pending| now >= pending.early) {
            self.drop_acked(hub, &mut pending);
            if pending.out.unacked.is_empty() || now >= pending.due {
                results.push(self.done(pending));
            } else {
                self.late.push_back(pending);
            }
        }
        while let Some(mut pending) = self.late.pop_front_if(|pending| now >= pending.due) {
            self.drop_acked(hub, &mut pending);
            results.push(self.done(pending));
        }
        results
    }

    /// Answers every push by what was acked until now.
    pub(crate) fn end(&mut self, hub: &Hub) -> Vec<PushResult> {
        let pending: Vec<_> = self.late.drain(..).chain(self.early.drain(..)).collect();
        let result = |mut pending| {
            self.drop_acked(hub, &mut pending);
            self.done(pending)
        };
        pending.into_iter().map(result).collect()
    }

    fn drop_acked(&mut self, hub: &Hub, pending: &mut Pending) {
        let HandedOut { channel, seq, unacked, .. } = &mut pending.out;
        let before = unacked.len();
        unacked.retain(|user| !hub.has_acked(user, *channel, *seq));
        self.recipients -= before - unacked.len();
    }

    fn done(&mut self, pending: Pending) -> PushResult {
        self.recipients -= pending.out.unacked.len();
        pending.out.result()
    }
}

impl HandedOut {
    fn result(self) -> PushResult {
        let mut unacked = BytesMut::with_capacity(self.unacked.len() * ID_LEN);
        self.unacked.iter().for_each(|user| unacked.extend_from_slice(user.id.as_bytes()));
        let Self { push_id, gone, slow, .. } = self;
        PushResult { push_id, stale_incarnation: false, gone, slow, unacked: unacked.freeze() }
    }
}
