//! What everybody writes on while a load runs, and progress and report read.

use crate::{
    checker::Sighting,
    clock::Clock,
    faults::Faults,
    findings::{Findings, Kind as Broke},
    judge::{Outcome, Span},
    ledger::Ledger,
    outages::Noticed,
    plan::{Kind, Plan},
    report::Sends,
    seat::Seat,
    times::Recorder,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};
use touchline_ids::{ChannelId, Seq};

/// Reasons that are told apart.
const REASONS: usize = 20;

/// Everything of one load.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) plan: Plan,
    /// Marks the texts of this load.
    pub(crate) run: String,
    pub(crate) clock: Clock,
    pub(crate) ledger: Ledger,
    pub(crate) counts: Counts,
    pub(crate) faults: Faults,
    pub(crate) outages: Noticed,
    pub(crate) answer: Recorder,
    pub(crate) delivery: Recorder,
    pub(crate) after_answer: Recorder,
    pub(crate) resume: Recorder,
    pub(crate) seats: Vec<Seat>,
    heads: HashMap<ChannelId, AtomicI64>,
    outcomes: Mutex<Vec<Outcome>>,
    findings: Mutex<Findings>,
    /// Tokens that took the place of those of the plan.
    renewed: Mutex<HashMap<usize, String>>,
    /// What kept a device from being online, last.
    trouble: Mutex<Option<String>>,
    /// Why sockets of steady devices ended, and how often.
    endings: Mutex<BTreeMap<String, u64>>,
}

/// Running numbers.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) messages: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unresolved: AtomicU64,
    pub(crate) attempts: AtomicU64,
    pub(crate) most_tries: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) resolved: AtomicU64,
    pub(crate) deferred: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) twice: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) shown: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) connects: AtomicU64,
    pub(crate) disconnects: AtomicU64,
    pub(crate) resets: AtomicU64,
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub(crate) fn new(plan: Plan, run: String) -> Self {
        Self {
            clock: Clock::start(),
            ledger: Ledger::default(),
            counts: Counts::default(),
            faults: Faults::default(),
            outages: Noticed::default(),
            answer: Recorder::default(),
            delivery: Recorder::default(),
            after_answer: Recorder::default(),
            resume: Recorder::default(),
            seats: Seat::all(&plan),
            heads: plan.channels.iter().map(|channel| (channel.id, AtomicI64::new(0))).collect(),
            outcomes: Mutex::default(),
            findings: Mutex::default(),
            renewed: Mutex::default(),
            trouble: Mutex::default(),
            endings: Mutex::default(),
            plan,
            run,
        }
    }

    /// Whether the load sends there.
    pub(crate) fn has(&self, channel: ChannelId) -> bool {
        self.heads.contains_key(&channel)
    }

    /// Something is accepted at this position.
    pub(crate) fn raise(&self, channel: ChannelId, seq: Seq) {
        if let Some(head) = self.heads.get(&channel) {
            head.fetch_max(seq.0, Ordering::Relaxed);
        }
    }

    /// Up to where everything is known to be accepted, by channel.
    pub(crate) fn heads(&self) -> HashMap<ChannelId, Seq> {
        self.heads.iter().map(|(channel, head)| (*channel, Seq(head.load(Ordering::Relaxed)))).collect()
    }

    /// Steady devices that are not connected, or miss something up to these heads.
    pub(crate) fn lagging(&self, heads: &HashMap<ChannelId, Seq>) -> usize {
        self.steady().filter(|seat| !seat.is_online() || seat.is_behind(heads)).count()
    }

    /// Steady devices that are connected and miss something up to these heads.
    pub(crate) fn behind(&self, heads: &HashMap<ChannelId, Seq>) -> usize {
        self.steady().filter(|seat| seat.is_online() && seat.is_behind(heads)).count()
    }

    pub(crate) fn steady(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(|seat| seat.kind == Kind::Steady && !seat.is_canary)
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        lock(&self.outcomes).push(outcome);
    }

    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        lock(&self.outcomes).clone()
    }

    /// Somebody saw what must not be.
    pub(crate) fn broke(&self, kind: Broke, example: impl FnOnce() -> String) {
        lock(&self.findings).add(kind, 1, example);
    }

    pub(crate) fn findings(&self) -> Findings {
        lock(&self.findings).clone()
    }

    pub(crate) fn trouble(&self, what: String) {
        *lock(&self.trouble) = Some(what);
    }

    /// A steady device's socket ended. Reasons that differ every time are counted as one.
    pub(crate) fn ended_because(&self, why: String) {
        let mut endings = lock(&self.endings);
        let is_new = !endings.contains_key(&why);
        let why = if is_new && endings.len() >= REASONS { "for another reason".into() } else { why };
        *endings.entry(why).or_default() += 1;
    }

    pub(crate) fn endings(&self) -> BTreeMap<String, u64> {
        lock(&self.endings).clone()
    }

    pub(crate) fn last_trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// The token of one of the plan's users, the newest one.
    pub(crate) fn token(&self, user: usize) -> String {
        lock(&self.renewed).get(&user).unwrap_or(&self.plan.users[user].access_token).clone()
    }

    /// Gets a new token in place of the one that is over. False when there is none to be had.
    pub(crate) async fn renew(&self, user: usize) -> bool {
        let Some(renewal) = &self.plan.users[user].renewal else { return false };
        let Ok(token) = renewal.renew().await else { return false };
        lock(&self.renewed).insert(user, token);
        true
    }

    /// A sender was answered that its message stands there.
    pub(crate) fn answered(&self, sighting: Sighting, number: u64, at: u64) {
        self.raise(sighting.channel, sighting.seq);
        if !self.ledger.answered(sighting, number, at) {
            self.broke(Broke::Conflicting, || format!("number {number}: {sighting:?} was shown as another message"));
        }
    }
}

impl Counts {
    pub(crate) fn sends(&self) -> Sends {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Sends {
            messages: read(&self.messages),
            accepted: read(&self.accepted),
            refused: read(&self.refused),
            unresolved: read(&self.unresolved),
            attempts: read(&self.attempts),
            most_tries: read(&self.most_tries),
            unknown: read(&self.unknown),
            resolved: read(&self.resolved),
            deferred: read(&self.deferred),
            duplicates: read(&self.duplicates),
            twice: read(&self.twice),
            dropped: read(&self.dropped),
        }
    }
}

/// The devices are entitled to everything between.
pub(crate) fn spans(start: &HashMap<ChannelId, Seq>, end: &HashMap<ChannelId, Seq>) -> HashMap<ChannelId, Span> {
    let span = |(channel, end): (&ChannelId, &Seq)| {
        let start = start.get(channel).copied().unwrap_or(*end);
        (*channel, Span { start, end: *end })
    };
    end.iter().map(span).collect()
}
