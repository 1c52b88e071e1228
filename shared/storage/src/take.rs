//! Taking over fan-outs that another api left unfinished.

use crate::{
    Entry, Members, Storage,
    connection::{commit, in_time},
    entity::{
        members,
        messages::{self, Column, Model},
        outbox,
    },
    error::Result,
    outbox::{DEAD, MAX_ATTEMPTS, NOBODY, among, claim_until, expired, keys_to_lock, update_locked},
    rows::{self, KEYS},
};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, FromQueryResult, Iterable,
    sea_query::{Expr, ExprTrait, Order, Query, SelectStatement, UpdateStatement},
};
use std::{
    cmp::{max, min},
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use touchline_ids::{ChannelId, Seq, UserId};
use uuid::Uuid;

/// A message whose fan-out is to be done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// As it stands in the log.
    pub entry: Entry,
    /// Who was in the channel at its seq, whoever has come or gone since. Messages to the same people share it. Its
    /// version is 0: it is no version of today's membership.
    pub members: Arc<Members>,
    /// Nobody is to be notified of it.
    pub no_push: bool,
    /// How often its fan-out has begun, with this one: 2 to [`MAX_ATTEMPTS`].
    pub attempts: u32,
}

impl Storage {
    /// Takes outbox rows whose claims have ended, those first that have waited longest, at most `limit` and 1,000, and
    /// claims them for `owner` for 5 s. Returned are their messages in order of (channel, seq). A row whose fan-out
    /// has begun [`MAX_ATTEMPTS`] times becomes a dead letter instead.
    ///
    /// # Errors
    /// When the database fails; then nothing is taken, except with `InDoubt`: then rows may be claimed for `owner`
    /// that nobody works on, so it must not go on under that name.
    pub async fn take_expired(&self, owner: Uuid, limit: u32) -> Result<Vec<Taken>> {
        self.take_expired_since(owner, limit, Duration::ZERO).await
    }

    /// The same of rows whose claims ended so long ago that others had their chance.
    ///
    /// # Errors
    /// As [`take_expired`](Self::take_expired).
    pub async fn take_expired_since(&self, owner: Uuid, limit: u32, waited: Duration) -> Result<Vec<Taken>> {
        let backend = self.writer.get_database_backend();
        // Nearly always there is nothing, and then nobody's writes are held up.
        if self.read_one::<One>(&any_expired(waited, backend)).await?.is_none() {
            return Ok(Vec::new());
        }
        let transaction = self.begin().await?;
        let taken = in_time(take(&transaction, owner, limit, waited)).await?;
        commit(transaction).await?;
        Ok(taken)
    }
}

async fn take(transaction: &DatabaseTransaction, owner: Uuid, limit: u32, waited: Duration) -> Result<Vec<Taken>> {
    let claim = claim(owner, limit, waited, transaction.get_database_backend());
    let claims = transaction.query_all(&claim).await?;
    let claims: Vec<Claim> =
        claims.iter().map(|row| Claim::from_query_result(row, "")).collect::<std::result::Result<_, _>>()?;
    let (dead, claims): (Vec<_>, Vec<_>) = claims.into_iter().partition(|claim| claim.claim_until == DEAD);
    if !dead.is_empty() {
        let letters: Vec<_> = dead.iter().take(10).map(|claim| format!("{} {}", claim.channel_id, claim.seq)).collect();
        tracing::error!(
            outbox.dead = dead.len(),
            outbox.letters = ?letters,
            "given up after {MAX_ATTEMPTS} attempts; see `touchline outbox list --dead`"
        );
    }
    let claims: BTreeMap<_, _> = claims.into_iter().map(|claim| ((claim.channel_id, claim.seq), claim)).collect();
    let entries = entries(transaction, &claims).await?;
    let mut members = members_at(transaction, claims.keys().copied()).await?;

    let (mut taken, mut damaged) = (Vec::with_capacity(claims.len()), Vec::new());
    let mut entries: HashMap<_, _> = entries.into_iter().map(|entry| ((entry.channel_id, entry.seq), entry)).collect();
    for (key, claim) in claims {
        let attempts = u32::try_from(claim.attempts).unwrap_or(MAX_ATTEMPTS);
        match (entries.remove(&key), members.remove(&key)) {
            (Some(entry), Some(members)) => taken.push(Taken { entry, members, no_push: claim.no_push, attempts }),
            _ => damaged.push(key),
        }
    }
    if !damaged.is_empty() {
        // Nobody's, so that its claim ends and the next attempt counts.
        let disowned = Query::update().table(outbox::Entity).value(outbox::Column::Owner, NOBODY).take();
        transaction.execute(&{ disowned }.and_where(among(&damaged)).take()).await?;
        tracing::error!(outbox.damaged = ?damaged, "outbox rows without a readable message");
    }
    Ok(taken)
}

#[derive(FromQueryResult)]
struct One {
    #[expect(dead_code, reason = "that there is a row is all")]
    one: i32,
}

pub(crate) fn any_expired(waited: Duration, backend: DbBackend) -> SelectStatement {
    Query::select()
        .expr_as(Expr::val(1), "one")
        .from(outbox::Entity)
        .and_where(expired(waited, backend))
        .limit(1)
        .take()
}

/// An outbox row as the claim left it.
#[derive(FromQueryResult)]
struct Claim {
    channel_id: ChannelId,
    seq: Seq,
    claim_until: i64,
    attempts: i32,
    no_push: bool,
}

/// Claims what has expired, and gives up what has expired too often, in one statement.
pub(crate) fn claim(owner: Uuid, limit: u32, waited: Duration, backend: DbBackend) -> UpdateStatement {
    use outbox::Column::{Attempts, ChannelId, ClaimUntil, NoPush, Owner, Seq};
    let mut due = keys_to_lock();
    due.and_where(expired(waited, backend))
        .order_by(ClaimUntil, Order::Asc)
        .order_by(ChannelId, Order::Asc)
        .order_by(Seq, Order::Asc)
        .limit(min(u64::from(limit), KEYS as u64));
    let attempts = || Expr::col((outbox::Entity, Attempts));
    let too_often = || attempts().gte(i32::try_from(MAX_ATTEMPTS).unwrap_or(i32::MAX));
    update_locked(due)
        .value(Owner, Expr::case(too_often(), NOBODY).finally(owner))
        .value(ClaimUntil, Expr::case(too_often(), DEAD).finally(claim_until(backend)))
        .value(Attempts, Expr::case(too_often(), attempts()).finally(attempts().add(1)))
        .returning(Query::returning().columns([ChannelId, Seq, ClaimUntil, Attempts, NoPush]))
        .take()
}

/// The entries at these places. One that cannot be read is left out: it must not keep the others back.
async fn entries<T>(transaction: &DatabaseTransaction, at: &BTreeMap<(ChannelId, Seq), T>) -> Result<Vec<Entry>> {
    if at.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<_> = at.keys().copied().collect();
    let rows = transaction.query_all(&entries_at(&places)).await?;
    Ok(rows.iter().filter_map(|row| Model::from_query_result(row, "").ok()).map(Entry::from).collect())
}

pub(crate) fn entries_at(places: &[(ChannelId, Seq)]) -> SelectStatement {
    let column = |column: Column| Expr::col((messages::Entity, column));
    let (channel, seq) =
        (column(Column::ChannelId).equals(("keys", "column1")), column(Column::Seq).equals(("keys", "column2")));
    Query::select()
        .columns(Column::iter().map(|column| (messages::Entity, column)))
        // Not spelt as alternatives: see `append::with_keys`.
        .from_values(places.iter().copied(), "keys")
        .inner_join(messages::Entity, channel.and(seq))
        .take()
}

#[derive(FromQueryResult)]
struct Interval {
    channel_id: ChannelId,
    user_id: UserId,
    joined_seq: Seq,
    left_seq: Seq,
}

/// Who was in the channel at each place. What was committed at a seq never changes: an interval that ends later ends
/// at a greater seq.
async fn members_at(
    transaction: &DatabaseTransaction,
    places: impl Iterator<Item = (ChannelId, Seq)>,
) -> Result<HashMap<(ChannelId, Seq), Arc<Members>>> {
    let mut seqs: BTreeMap<ChannelId, Vec<Seq>> = BTreeMap::new();
    places.for_each(|(channel, seq)| seqs.entry(channel).or_default().push(seq));
    let mut intervals: HashMap<_, Vec<_>> = seqs.keys().map(|channel| (*channel, Vec::new())).collect();
    let spans: Vec<_> = seqs
        .iter()
        .map(|(channel, seqs)| {
            seqs.iter().fold((*channel, seqs[0], seqs[0]), |(c, low, high), &seq| (c, min(low, seq), max(high, seq)))
        })
        .collect();
    for some in spans.chunks(KEYS) {
        for interval in rows::all::<Interval>(transaction, &in_spans(some)).await? {
            intervals.entry(interval.channel_id).or_default().push(interval);
        }
    }
    let each = seqs.into_iter().flat_map(|(channel, seqs)| {
        let members = at_each(&seqs, &intervals[&channel]);
        seqs.into_iter().zip(members).map(move |(seq, members)| ((channel, seq), members))
    });
    Ok(each.collect())
}

/// Every interval that meets one of these parts of logs (channel, first, last).
pub(crate) fn in_spans(spans: &[(ChannelId, Seq, Seq)]) -> SelectStatement {
    use members::Column::{ChannelId, JoinedSeq, LeftSeq, UserId};
    let column = |column: members::Column| Expr::col((members::Entity, column));
    let channel = column(ChannelId).equals(("keys", "column1"));
    let not_over = column(LeftSeq).gt(Expr::col(("keys", "column2")));
    let begun = column(JoinedSeq).lte(Expr::col(("keys", "column3")));
    Query::select()
        .columns([ChannelId, UserId, JoinedSeq, LeftSeq].map(|column| (members::Entity, column)))
        .from_values(spans.iter().copied(), "keys")
        .inner_join(members::Entity, channel.and(not_over).and(begun))
        .take()
}

/// The members at each of `seqs`, shared as long as nobody joins or leaves between them.
fn at_each(seqs: &[Seq], intervals: &[Interval]) -> Vec<Arc<Members>> {
    let changes: BTreeSet<_> = intervals.iter().flat_map(|interval| [interval.joined_seq, interval.left_seq]).collect();
    let mut shared: HashMap<Option<Seq>, Arc<Members>> = HashMap::new();
    let at = |&seq: &Seq| {
        let last_change = changes.range(..=seq).next_back().copied();
        let members = shared.entry(last_change).or_insert_with(|| {
            let there = intervals.iter().filter(|interval| (interval.joined_seq..interval.left_seq).contains(&seq));
            Arc::new(Members::new(0, there.map(|interval| interval.user_id).collect()))
        });
        Arc::clone(members)
    };
    seqs.iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_those_at_each_seq_and_shared_while_nobody_comes_or_goes() {
        let channel_id = ChannelId::new();
        let mut users = [UserId::new(), UserId::new(), UserId::new()];
        users.sort();
        let interval = |user: usize, joined: i64, left: i64| Interval {
            channel_id,
            user_id: users[user],
            joined_seq: Seq(joined),
            left_seq: Seq(left),
        };
        let intervals = [interval(0, 1, i64::MAX), interval(1, 4, 7), interval(1, 9, i64::MAX), interval(2, 1, 4)];
        let seqs = [1, 3, 4, 6, 7, 8, 9, 100].map(Seq);
        let members = at_each(&seqs, &intervals);
        let there: Vec<_> = members
            .iter()
            .map(|members| users.iter().map(|user| u8::from(members.contains(*user))).collect::<Vec<_>>())
            .collect();
        let (ac, ab, a) = (vec![1, 0, 1], vec![1, 1, 0], vec![1, 0, 0]);
        assert_eq!(there, [ac.clone(), ac, ab.clone(), ab.clone(), a.clone(), a, ab.clone(), ab]);
        assert!(Arc::ptr_eq(&members[0], &members[1]) && Arc::ptr_eq(&members[4], &members[5]));
        assert!(!Arc::ptr_eq(&members[3], &members[6]));
    }
}
