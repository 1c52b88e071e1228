//! The ends of active channels' logs, in memory, so that thousands of devices that come back at once read them once.
//!
//! The log never changes below its end, so what was read or committed once stays right, in one life of the database.
//! A database that was restored or failed over may have lost its tail and grown another one: each life has an epoch,
//! read along with every row, and what one epoch told is never served in another. Who may see an entry is not decided
//! here: memberships are read anew for every answer.

use crate::Entry;
use sea_orm::{
    DbBackend,
    sea_query::{Expr, Query, SelectStatement},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map},
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;
use touchline_ids::{ChannelId, MessageId, Seq};

/// What an entry costs besides its content, about, in bytes.
const ENTRY_BYTES: usize = 256;
/// What a channel costs besides its entries, about, in bytes.
const CHANNEL_BYTES: usize = 256;
/// Most entries of one channel: what five full pages of a sync hold.
const PER_CHANNEL: usize = 1_000;

/// The database's present life as an expression that it evaluates: on Postgres when its server started, in
/// microseconds. A file of SQLite is not replaced under a running process.
pub(crate) fn epoch(backend: DbBackend) -> Expr {
    Expr::cust(match backend {
        DbBackend::Postgres => "CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000 AS BIGINT)",
        _ => "0",
    })
}

/// The epoch by itself.
pub(crate) fn present_life(backend: DbBackend) -> SelectStatement {
    Query::select().expr_as(epoch(backend), "epoch").take()
}

/// The cache. Bounded in bytes; the channels used longest ago go first.
#[derive(Debug)]
pub(crate) struct Recent {
    max_bytes: usize,
    logs: Mutex<Logs>,
    /// The life seen last.
    lives: watch::Sender<Option<i64>>,
}

#[derive(Debug, Default)]
struct Logs {
    epoch: Option<i64>,
    channels: HashMap<ChannelId, Tail>,
    by_use: BTreeMap<u64, ChannelId>,
    bytes: usize,
    uses: u64,
}

/// A part of one log without a hole.
#[derive(Debug, Default)]
struct Tail {
    entries: VecDeque<Arc<Entry>>,
    used: u64,
}

impl Recent {
    /// An empty cache of at most so many bytes; 0 for none.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, logs: Mutex::default(), lives: watch::Sender::default() }
    }

    /// The database's present life, once it was seen.
    pub(crate) fn lives(&self) -> watch::Receiver<Option<i64>> {
        self.lives.subscribe()
    }

    /// These positions of a channel's log, when all of them are here.
    pub(crate) fn range(&self, epoch: i64, channel: ChannelId, seqs: &RangeInclusive<i64>) -> Option<Vec<Arc<Entry>>> {
        let mut logs = self.at(epoch);
        let tail = logs.channels.get(&channel)?;
        let first = tail.position(*seqs.start())?;
        let last = tail.position(*seqs.end())?;
        let entries = tail.entries.range(first..=last).cloned().collect();
        logs.touch(channel);
        Some(entries)
    }

    /// The database was seen in this epoch.
    pub(crate) fn seen(&self, epoch: i64) {
        drop(self.at(epoch));
    }

    /// The id of one entry, when it is here.
    pub(crate) fn id(&self, epoch: i64, channel: ChannelId, seq: Seq) -> Option<MessageId> {
        let logs = self.at(epoch);
        let tail = logs.channels.get(&channel)?;
        Some(tail.entries[tail.position(seq.0)?].message_id)
    }

    /// Entries that were read or committed in this epoch, in order of channel and seq.
    pub(crate) fn put(&self, epoch: i64, entries: impl IntoIterator<Item = Arc<Entry>>) {
        let mut logs = self.at(epoch);
        if self.max_bytes == 0 {
            return;
        }
        for run in runs(entries) {
            logs.put(run);
        }
        while logs.bytes > self.max_bytes {
            let Some((_, oldest)) = logs.by_use.pop_first() else { break };
            logs.remove(oldest);
        }
    }

    /// The logs as this epoch told of them.
    fn at(&self, epoch: i64) -> MutexGuard<'_, Logs> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if logs.epoch != Some(epoch) {
            if logs.epoch.is_some() {
                tracing::warn!("the database has begun another life: what was remembered of its logs is forgotten");
            }
            self.lives.send_replace(Some(epoch));
            *logs = Logs { epoch: Some(epoch), ..Logs::default() };
        }
        logs
    }
}

/// Cuts entries where the channel changes or a position is missing.
fn runs(entries: impl IntoIterator<Item = Arc<Entry>>) -> Vec<VecDeque<Arc<Entry>>> {
    let mut runs: Vec<VecDeque<Arc<Entry>>> = Vec::new();
    for entry in entries {
        match runs.last_mut() {
            Some(run) if run.back().is_some_and(|last| follows(&entry, last)) => run.push_back(entry),
            _ => runs.push(VecDeque::from([entry])),
        }
    }
    runs
}

fn follows(entry: &Entry, last: &Entry) -> bool {
    entry.channel_id == last.channel_id && entry.seq == last.seq.next()
}

impl Logs {
    /// Joins a run to what is here of its log. Where a hole would be between them the later part stays.
    fn put(&mut self, run: VecDeque<Arc<Entry>>) {
        let Some(channel) = run.front().map(|entry| entry.channel_id) else { return };
        let held = self.remove(channel).map(|tail| tail.entries).unwrap_or_default();
        let mut entries = join(held, run);
        let over = entries.len().saturating_sub(PER_CHANNEL);
        entries.drain(..over);
        self.bytes += bytes(&entries);
        self.uses += 1;
        self.by_use.insert(self.uses, channel);
        self.channels.insert(channel, Tail { entries, used: self.uses });
    }

    fn remove(&mut self, channel: ChannelId) -> Option<Tail> {
        let tail = self.channels.remove(&channel)?;
        self.by_use.remove(&tail.used);
        self.bytes -= bytes(&tail.entries);
        Some(tail)
    }

    fn touch(&mut self, channel: ChannelId) {
        if let hash_map::Entry::Occupied(mut tail) = self.channels.entry(channel) {
            self.by_use.remove(&tail.get().used);
            self.uses += 1;
            tail.get_mut().used = self.uses;
            self.by_use.insert(self.uses, channel);
        }
    }
}

impl Tail {
    fn position(&self, seq: i64) -> Option<usize> {
        let first = self.entries.front()?.seq.0;
        let position = usize::try_from(seq.checked_sub(first)?).ok()?;
        (position < self.entries.len()).then_some(position)
    }
}

fn join(held: VecDeque<Arc<Entry>>, run: VecDeque<Arc<Entry>>) -> VecDeque<Arc<Entry>> {
    let end = |part: &VecDeque<Arc<Entry>>| part.back().map_or(0, |last| last.seq.0);
    let start = |part: &VecDeque<Arc<Entry>>| part.front().map_or(0, |first| first.seq.0);
    let (mut first, second) = if start(&held) <= start(&run) { (held, run) } else { (run, held) };
    if end(&first) + 1 < start(&second) || first.is_empty() {
        return second;
    }
    // What both hold is the same.
    let beyond = end(&first);
    first.extend(second.into_iter().filter(|entry| entry.seq.0 > beyond));
    first
}

fn bytes(entries: &VecDeque<Arc<Entry>>) -> usize {
    CHANNEL_BYTES + entries.iter().map(|entry| ENTRY_BYTES + entry.content.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use touchline_ids::UserId;

    fn entry(channel_id: ChannelId, seq: i64, bytes: usize) -> Arc<Entry> {
        Arc::new(Entry {
            channel_id,
            seq: Seq(seq),
            message_id: MessageId::new(),
            sender_id: UserId(uuid::Uuid::nil()),
            kind: Kind::Text,
            content: "x".repeat(bytes),
            created_at_ms: 0,
            prev: None,
        })
    }

    fn part(channel: ChannelId, seqs: RangeInclusive<i64>) -> Vec<Arc<Entry>> {
        seqs.map(|seq| entry(channel, seq, 0)).collect()
    }

    fn held(recent: &Recent, channel: ChannelId, seqs: RangeInclusive<i64>) -> Option<Vec<i64>> {
        let entries = recent.range(1, channel, &seqs)?;
        Some(entries.iter().map(|entry| entry.seq.0).collect())
    }

    #[test]
    fn parts_that_touch_become_one_and_of_others_the_later_one_stays() {
        let (recent, id) = (Recent::new(1_000_000), ChannelId::new());
        recent.put(1, part(id, 5..=6));
        recent.put(1, part(id, 7..=7));
        recent.put(1, part(id, 3..=4));
        recent.put(1, part(id, 4..=8));
        assert_eq!(held(&recent, id, 3..=8), Some((3..=8).collect()));
        assert_eq!(held(&recent, id, 2..=8), None);
        assert_eq!(held(&recent, id, 8..=9), None);
        recent.put(1, part(id, 10..=12));
        assert_eq!((held(&recent, id, 3..=3), held(&recent, id, 10..=12)), (None, Some(vec![10, 11, 12])));
        recent.put(1, part(id, 1..=8));
        assert_eq!(held(&recent, id, 10..=10), Some(vec![10]), "an older page does not push the end out");
        assert_eq!(recent.id(1, id, Seq(13)), None);
        assert!(recent.id(1, id, Seq(12)).is_some());
        assert_eq!(held(&recent, id, i64::MIN..=i64::MAX), None);
        recent.put(1, [part(id, 13..=13), part(ChannelId::new(), 1..=1), part(id, 15..=15)].concat());
        assert_eq!((held(&recent, id, 13..=13), held(&recent, id, 15..=15)), (None, Some(vec![15])), "a hole");
    }

    #[test]
    fn what_another_life_of_the_database_told_is_forgotten() {
        let (recent, id) = (Recent::new(1_000_000), ChannelId::new());
        recent.put(1, part(id, 1..=3));
        assert!(recent.range(1, id, &(1..=3)).is_some());
        assert!(recent.range(2, id, &(1..=3)).is_none());
        assert!(recent.range(1, id, &(1..=3)).is_none(), "for good");
        // A commit of the former life that comes late.
        recent.put(2, part(id, 1..=2));
        recent.put(1, part(id, 3..=3));
        assert!(recent.range(2, id, &(3..=3)).is_none() && recent.id(2, id, Seq(3)).is_none());
    }

    #[test]
    fn the_full_cache_forgets_the_channels_used_longest_ago() {
        let [a, b, c] = [(); 3].map(|()| ChannelId::new());
        let of_one = CHANNEL_BYTES + ENTRY_BYTES + 1_000;
        let recent = Recent::new(2 * of_one);
        for id in [a, b] {
            recent.put(1, [entry(id, 1, 1_000)]);
        }
        assert!(held(&recent, a, 1..=1).is_some());
        recent.put(1, [entry(c, 1, 1_000)]);
        assert!(held(&recent, b, 1..=1).is_none());
        assert!(held(&recent, a, 1..=1).is_some() && held(&recent, c, 1..=1).is_some());
        recent.put(1, [entry(a, 2, 1_000_000)]);
        let logs = recent.at(1);
        assert_eq!((logs.bytes, logs.channels.len(), logs.by_use.len()), (0, 0, 0), "more than there is room for");
    }

    #[test]
    fn a_channel_has_its_share_and_a_cache_of_nothing_holds_nothing() {
        let (recent, id) = (Recent::new(10_000_000), ChannelId::new());
        recent.put(1, part(id, 1..=800));
        recent.put(1, part(id, 801..=1_500));
        assert!(held(&recent, id, 500..=500).is_none());
        assert!(held(&recent, id, 501..=1_500).is_some());
        let none = Recent::new(0);
        none.put(1, part(id, 1..=2));
        assert!(none.range(1, id, &(1..=2)).is_none());
    }
}
