//! What was seen while a world ran: who was told what, what each device showed, and what was wrong at once.

use crate::world::Node;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use touchline_ids::{ChannelId, ClientMessageId, MessageId, Seq};

#[derive(Default)]
pub(crate) struct Record {
    trace: Option<Vec<String>>,
    /// What senders were told: where each named message stands.
    pub(crate) accepted: BTreeMap<ClientMessageId, (ChannelId, Seq, MessageId)>,
    pub(crate) devices: BTreeMap<usize, Shown>,
    pub(crate) closes: BTreeMap<u16, usize>,
    pub(crate) violations: Vec<String>,
    /// The database lost what it had answered for: an answer may differ from the one before.
    pub(crate) tail_lost: bool,
}

/// What one device showed.
#[derive(Default)]
pub(crate) struct Shown {
    /// Now, by channel; in order and without a hole.
    pub(crate) logs: BTreeMap<ChannelId, Vec<(Seq, MessageId)>>,
    /// Ever, with the first time.
    pub(crate) ever: BTreeMap<MessageId, Instant>,
    /// From when to when it was connected and up to date.
    pub(crate) healthy: Vec<(Instant, Option<Instant>)>,
}

impl Record {
    /// With a trace, or without.
    pub(crate) fn new(traced: bool) -> Self {
        Self { trace: traced.then(Vec::new), ..Self::default() }
    }

    pub(crate) fn note(&mut self, now: Duration, who: Node, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10.4} {who:?}: {}", now.as_secs_f64(), what()));
        }
    }

    pub(crate) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Every line so far.
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    pub(crate) fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// A sender was told that its message stands there. The same name is the same message for ever.
    pub(crate) fn accepted(&mut self, channel: ChannelId, seq: Seq, id: MessageId, name: &ClientMessageId) {
        let before = self.accepted.insert(name.clone(), (channel, seq, id));
        if before.is_some_and(|before| before != (channel, seq, id)) && !self.tail_lost {
            self.violation(format!("{} was answered twice, differently", name.as_str()));
        }
    }

    pub(crate) fn closed(&mut self, code: u16) {
        *self.closes.entry(code).or_default() += 1;
    }

    /// What a device shows of a channel now.
    pub(crate) fn log(&self, device: usize, channel: ChannelId) -> &[(Seq, MessageId)] {
        self.devices.get(&device).and_then(|shown| shown.logs.get(&channel)).map_or(&[], Vec::as_slice)
    }

    fn device(&mut self, device: usize) -> &mut Shown {
        self.devices.entry(device).or_default()
    }

    pub(crate) fn shown(&mut self, device: usize, channel: ChannelId, seq: Seq, id: MessageId, now: Instant) {
        let shown = self.device(device);
        shown.ever.entry(id).or_insert(now);
        let log = shown.logs.entry(channel).or_default();
        // The first one, or the first after a reset, begins wherever it stands.
        let before = log.last().map(|(seq, _)| *seq);
        log.push((seq, id));
        if before.is_some_and(|before| before.next() != seq) {
            self.violation(format!("device {device} shows {seq} of {channel} after {before:?}"));
        }
    }

    /// The device forgets a channel: it begins anew, or is not its user's any more.
    pub(crate) fn forgot(&mut self, device: usize, channel: ChannelId) {
        self.device(device).logs.remove(&channel);
    }

    pub(crate) fn caught_up(&mut self, device: usize, now: Instant) {
        let healthy = &mut self.device(device).healthy;
        if healthy.last().is_none_or(|(_, until)| until.is_some()) {
            healthy.push((now, None));
        }
    }

    pub(crate) fn offline(&mut self, device: usize, now: Instant) {
        if let Some((_, until @ None)) = self.device(device).healthy.last_mut() {
            *until = Some(now);
        }
    }
}
