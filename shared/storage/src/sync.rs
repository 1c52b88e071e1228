//! What a device missed, from the cursors it holds.

pub(crate) mod plan;

use crate::{
    Entry, Storage,
    entity::{channels, members},
    error::Result,
    history::{Piece, Range},
    recent::epoch,
};
use plan::{Head, acked, plan};
use sea_orm::{
    DbBackend,
    sea_query::{Expr, ExprTrait, Query, SelectStatement},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use touchline_ids::{ChannelId, Check, MessageId, Seq, UserId};

/// Bytes of content in one answer: a thousand of the longest entries would be 48 MiB.
const BYTES: usize = 1024 * 1024;
/// No entry's content is longer.
const ENTRY_BYTES: usize = 64 * 1024;

/// Up to where a device holds a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Which channel.
    pub channel_id: ChannelId,
    /// The last position it holds; 0 for nothing.
    pub seq: Seq,
    /// The check of the entry at `seq` ([`touchline_ids::MessageId::check`]), so that a log which lost its tail and
    /// grew again is noticed.
    pub check: Option<Check>,
}

/// What the device needs to be up to date.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Synced {
    /// Channels with something new: those named by cursors in their order, then the others by id.
    pub channels: Vec<SyncedChannel>,
    /// Channels named by cursors that the user is not in (any more), or that never were.
    pub gone: Vec<ChannelId>,
    /// Cursors that are right and further than what the user's devices had acked before: as good as acks.
    pub acked: Vec<(ChannelId, Seq)>,
}

/// What the device needs of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedChannel {
    /// Which.
    pub channel_id: ChannelId,
    /// The log's last position.
    pub head_seq: Seq,
    /// Oldest first, dense.
    pub entries: Vec<Entry>,
    /// There are more after the last of `entries`: ask again.
    pub more: bool,
    /// Do not continue from the cursor: what is held of this channel ends here, start from these entries (the newest
    /// ones) or, when there are none, from `head_seq`.
    pub reset: bool,
}

impl Storage {
    /// Everything after each cursor, at most 200 entries a channel, 1,000 and 1 MiB of content in all, and the newest
    /// `recent` entries of the user's channels that no cursor names. A channel whose cursor is at its end is left out.
    /// A cursor beyond the end, before the user's membership or with a wrong check gets a `reset`.
    ///
    /// It reads the memberships, and then at once everything that is not remembered ([`crate::recent`]); once more
    /// only for checks that turned out wrong.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sync(&self, user: UserId, cursors: &[Cursor], recent: u32) -> Result<Synced> {
        // One look at the memberships settles what the user may see; see `history`.
        let heads: Vec<Head> = self.read_all(&heads(user, self.reader.get_database_backend())).await?;
        let epoch = heads.first().map_or(0, |head| head.epoch);
        let heads: BTreeMap<_, _> = heads.into_iter().map(|head| (head.channel_id, head)).collect();
        let mut known = Known::of(self, epoch, &heads, cursors);
        loop {
            let wrong = known.wrong_checks();
            let (planned, gone) = plan(&heads, cursors, &wrong, i64::from(recent));
            let missing: Vec<_> =
                planned.iter().map(|planned| &planned.range).filter(|range| !known.has(range)).cloned().collect();
            let places = known.unknown_places();
            if missing.is_empty() && places.is_empty() {
                let acked = acked(&heads, cursors, &wrong);
                return Ok(Synced { channels: known.answer(planned), gone, acked });
            }
            known.learn(&missing, &places, self.log_pieces(&missing, &places, BYTES).await?);
        }
    }
}

/// What one sync knows of the logs so far.
struct Known<'a> {
    storage: &'a Storage,
    epoch: i64,
    /// Parts of logs that were read or remembered; of what was read the bytes may have ended before the part.
    parts: HashMap<Range, Vec<Arc<Entry>>>,
    /// The checks that came with cursors within what the user sees.
    checks: HashMap<(ChannelId, Seq), AtPlace>,
}

struct AtPlace {
    /// What the device holds.
    held: Check,
    entry: AtCursor,
}

/// The entry at a cursor.
enum AtCursor {
    Unknown,
    Missing,
    Is(MessageId),
}

impl AtPlace {
    fn is_wrong(&self) -> bool {
        match self.entry {
            AtCursor::Unknown => false,
            AtCursor::Missing => true,
            AtCursor::Is(id) => id.check() != self.held,
        }
    }
}

impl<'a> Known<'a> {
    fn of(storage: &'a Storage, epoch: i64, heads: &BTreeMap<ChannelId, Head>, cursors: &[Cursor]) -> Self {
        let mut checks = HashMap::new();
        for cursor in cursors {
            if let Some(held) = cursor.check
                && heads.get(&cursor.channel_id).is_some_and(|head| head.sees(cursor.seq))
            {
                let id = storage.recent.id(epoch, cursor.channel_id, cursor.seq);
                let check = AtPlace { held, entry: id.map_or(AtCursor::Unknown, AtCursor::Is) };
                checks.insert((cursor.channel_id, cursor.seq), check);
            }
        }
        Self { storage, epoch, parts: HashMap::new(), checks }
    }

    /// The channels whose entry at the cursor is known not to be the one the device holds.
    fn wrong_checks(&self) -> HashSet<ChannelId> {
        self.checks.iter().filter(|(_, check)| check.is_wrong()).map(|((channel, _), _)| *channel).collect()
    }

    fn unknown_places(&self) -> Vec<(ChannelId, Seq)> {
        let unknown = self.checks.iter().filter(|(_, check)| matches!(check.entry, AtCursor::Unknown));
        unknown.map(|(place, _)| *place).collect()
    }

    fn has(&mut self, range: &Range) -> bool {
        if range.seqs.is_empty() || self.parts.contains_key(range) {
            return true;
        }
        let remembered = self.storage.recent.range(self.epoch, range.channel_id, &range.seqs);
        remembered.map(|entries| self.parts.insert(range.clone(), entries)).is_some()
    }

    /// Takes in what was read for these ranges and places, and leaves it to be remembered.
    fn learn(&mut self, ranges: &[Range], places: &[(ChannelId, Seq)], pieces: Vec<Piece>) {
        let wrong_before = self.wrong_checks();
        for place in places {
            if let Some(check) = self.checks.get_mut(place) {
                check.entry = AtCursor::Missing;
            }
        }
        let mut parts: HashMap<ChannelId, Vec<Arc<Entry>>> = HashMap::new();
        let mut to_remember = BTreeMap::new();
        for piece in pieces {
            let place = (piece.channel_id, piece.seq);
            if piece.is_check
                && let Some(check) = self.checks.get_mut(&place)
            {
                check.entry = AtCursor::Is(piece.id);
            }
            let (is_check, epoch) = (piece.is_check, piece.epoch);
            let Some(entry) = piece.entry().map(Arc::new) else { continue };
            to_remember.insert((epoch, place), Arc::clone(&entry));
            if !is_check {
                parts.entry(place.0).or_default().push(entry);
            }
        }
        for range in ranges {
            let mut entries = parts.remove(&range.channel_id).unwrap_or_default();
            entries.sort_unstable_by_key(|entry| entry.seq);
            self.parts.insert(range.clone(), entries);
        }
        if self.wrong_checks() != wrong_before {
            // The plan changes, and with it what has a place in the answer: what ended early may go on.
            self.parts.retain(|range, entries| entries.len() == range.len());
        }
        // A connection to the former server may still have answered.
        let of_now = to_remember.into_iter().filter(|((epoch, _), _)| *epoch == self.epoch);
        self.storage.recent.put(self.epoch, of_now.map(|(_, entry)| entry));
    }

    /// The answer, of at most so many bytes of content: entries are left out at the end, in order of channel and seq.
    fn answer(&self, planned: Vec<plan::Planned>) -> Vec<SyncedChannel> {
        let mut wanted: Vec<_> = planned.iter().map(|planned| &planned.range).filter(|r| !r.seqs.is_empty()).collect();
        wanted.sort_unstable_by_key(|range| range.channel_id);
        let (mut left, mut count, mut fits) = (BYTES, 0, true);
        let mut found: HashMap<ChannelId, Vec<Entry>> = HashMap::with_capacity(planned.len());
        for range in &wanted {
            let Some(part) = self.parts.get(*range) else { continue };
            for entry in part {
                fits = fits && entry.content.len() <= left;
                if fits {
                    left -= entry.content.len();
                    count += 1;
                    found.entry(entry.channel_id).or_default().push(Entry::clone(entry));
                }
            }
            // The bytes ended here for what was read, so they do for what is remembered of later channels.
            fits = fits && !(part.len() < range.len() && left < ENTRY_BYTES);
        }
        // Fewer than asked for because one more had no place, and not because some are missing.
        let wanted: usize = wanted.into_iter().map(Range::len).sum();
        let full = left < ENTRY_BYTES && count < wanted;
        let channels = planned.into_iter().map(|planned| {
            let plan::Planned { range, head_seq, more, reset } = planned;
            let entries = found.remove(&range.channel_id).unwrap_or_default();
            let cut = full && entries.last().map_or(!reset, |last| last.seq.0 < *range.seqs.end());
            SyncedChannel { channel_id: range.channel_id, head_seq, entries, more: more || cut, reset }
        });
        channels.collect()
    }
}

pub(crate) fn heads(user: UserId, backend: DbBackend) -> SelectStatement {
    use members::Column::{ChannelId, DeliveredSeq, JoinedSeq};
    let member = |column: members::Column| Expr::col((members::Entity, column));
    Query::select()
        .columns([ChannelId, JoinedSeq, DeliveredSeq].map(|column| (members::Entity, column)))
        .column((channels::Entity, channels::Column::LastSeq))
        .expr_as(epoch(backend), "epoch")
        .from(members::Entity)
        .inner_join(
            channels::Entity,
            Expr::col((channels::Entity, channels::Column::Id)).equals((members::Entity, members::Column::ChannelId)),
        )
        .and_where(member(members::Column::UserId).eq(user))
        .and_where(member(members::Column::LeftSeq).eq(members::OPEN))
        .take()
}
