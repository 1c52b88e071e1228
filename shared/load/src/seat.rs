//! A device's place: who it is, and how it stands, for others to see while it runs.

use crate::plan::{Kind, Plan};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};
use touchline_ids::{ChannelId, Seq};

/// One device to be.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Its name on the wire and in examples.
    pub(crate) name: String,
    /// Of [`Plan::users`], or of [`Plan::canaries`].
    pub(crate) user: usize,
    pub(crate) is_canary: bool,
    pub(crate) kind: Kind,
    online: AtomicBool,
    /// It has caught up once.
    pub(crate) settled: AtomicBool,
    /// It ended by itself: nothing will come any more.
    pub(crate) ended: AtomicBool,
    /// It has everything it must have in the end.
    pub(crate) at_head: AtomicBool,
    /// When it showed something last.
    pub(crate) last_shown: AtomicU64,
    /// Up to where it shows each of its channels.
    shown: HashMap<ChannelId, AtomicI64>,
}

/// Of a channel one was removed from, nothing is missing.
const GONE: i64 = i64::MAX;

impl Seat {
    /// The devices of a plan: its users' in turn, then one for each canary.
    pub(crate) fn all(plan: &Plan) -> Vec<Self> {
        let mut channels: Vec<Vec<ChannelId>> = vec![Vec::new(); plan.users.len()];
        for channel in &plan.channels {
            channel.members.iter().for_each(|member| channels[*member].push(channel.id));
        }
        let count = if plan.devices.count == 0 { plan.users.len() } else { plan.devices.count };
        let kinds = plan.devices.mix.deal(count).into_iter().enumerate();
        let users = plan.users.len().max(1);
        let seats = kinds.map(|(at, kind)| Self::new(at, at % users, kind, false, &channels[at % users]));
        let canary = |at| Self::new(count + at, at, Kind::Steady, true, &[]);
        seats.chain((0..plan.canaries.len()).map(canary)).collect()
    }

    fn new(at: usize, user: usize, kind: Kind, is_canary: bool, channels: &[ChannelId]) -> Self {
        let what = if is_canary { "canary" } else { kind.name() };
        Self {
            name: format!("{what}-{at}"),
            user,
            is_canary,
            kind,
            online: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            at_head: AtomicBool::new(false),
            last_shown: AtomicU64::new(0),
            shown: channels.iter().map(|channel| (*channel, AtomicI64::new(0))).collect(),
        }
    }

    pub(crate) fn is_online(&self) -> bool {
        self.online.load(Ordering::Relaxed)
    }

    pub(crate) fn set_online(&self, online: bool) {
        self.online.store(online, Ordering::Relaxed);
    }

    /// It showed everything up to here.
    pub(crate) fn showed(&self, channel: ChannelId, seq: Seq) {
        if let Some(shown) = self.shown.get(&channel) {
            shown.store(seq.0, Ordering::Relaxed);
        }
    }

    /// Its user is not in this channel any more.
    pub(crate) fn gone(&self, channel: ChannelId) {
        if let Some(shown) = self.shown.get(&channel) {
            shown.store(GONE, Ordering::Relaxed);
        }
    }

    /// Whether it misses something up to these heads.
    pub(crate) fn is_behind(&self, heads: &HashMap<ChannelId, Seq>) -> bool {
        let behind = |(channel, shown): (&ChannelId, &AtomicI64)| {
            heads.get(channel).is_some_and(|head| shown.load(Ordering::Relaxed) < head.0)
        };
        self.shown.iter().any(behind)
    }
}
