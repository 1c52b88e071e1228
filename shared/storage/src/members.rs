//! Who is in a channel.

use crate::{
    NotifyLevel, Role, Storage,
    entity::{
        members::{ActiveModel, Column, Entity, OPEN},
        users,
    },
    error::Result,
    rows,
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter, QuerySelect, QueryTrait,
    sea_query::{Expr, ExprTrait, Order, Query, SelectStatement},
};
use std::{
    cmp::max,
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use touchline_ids::{ChannelId, Seq, UserId};

/// Who is in a channel at one version of its membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Grows with every join and leave.
    pub version: i64,
    /// Sorted.
    pub users: Vec<UserId>,
}

impl Members {
    pub(crate) fn new(version: i64, mut users: Vec<UserId>) -> Self {
        users.sort_unstable();
        Self { version, users }
    }

    /// Whether the user is in the channel.
    pub fn contains(&self, user: UserId) -> bool {
        self.users.binary_search(&user).is_ok()
    }
}

/// One member as others see them.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct MemberView {
    /// Who.
    pub user_id: UserId,
    /// Their unique name.
    pub handle: String,
    /// Their name to show.
    pub display_name: String,
    /// What they may do.
    pub role: Role,
    /// The first entry they see.
    pub joined_seq: Seq,
}

impl Storage {
    /// The members after user `after` in order of their ids, at most `limit`. `None`: no such channel, or `asker` is
    /// not in it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn members_of(
        &self,
        asker: UserId,
        channel: ChannelId,
        after: Option<UserId>,
        limit: u64,
    ) -> Result<Option<Vec<MemberView>>> {
        let page: Vec<MemberView> = self.read_all(&page(asker, channel, after, limit)).await?;
        // An empty page is its end or somebody else's channel.
        if page.is_empty() && self.channel_for(asker, channel).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(page))
    }
}

/// The interval of `user` in `channel` that has not ended.
pub(crate) fn open(channel: ChannelId, user: UserId) -> Expr {
    Expr::col((Entity, Column::ChannelId))
        .eq(channel)
        .and(Expr::col((Entity, Column::LeftSeq)).eq(OPEN))
        .and(Expr::col((Entity, Column::UserId)).eq(user))
}

pub(crate) fn page(asker: UserId, channel: ChannelId, after: Option<UserId>, limit: u64) -> SelectStatement {
    let asker = Query::select().expr(Expr::val(1)).from(Entity).and_where(open(channel, asker)).take();
    Query::select()
        .columns([Column::UserId, Column::Role, Column::JoinedSeq].map(|column| (Entity, column)))
        .columns([users::Column::Handle, users::Column::DisplayName].map(|column| (users::Entity, column)))
        .from(Entity)
        .inner_join(users::Entity, Expr::col((users::Entity, users::Column::Id)).equals((Entity, Column::UserId)))
        .and_where(Expr::col((Entity, Column::ChannelId)).eq(channel))
        .and_where(Expr::col((Entity, Column::LeftSeq)).eq(OPEN))
        .and_where_option(after.map(|after| Expr::col((Entity, Column::UserId)).gt(after)))
        .and_where(Expr::exists(asker))
        .order_by((Entity, Column::UserId), Order::Asc)
        .limit(limit)
        .take()
}

#[derive(FromQueryResult)]
struct Member {
    channel_id: ChannelId,
    user_id: UserId,
}

pub(crate) fn of_channels(channels: &[ChannelId]) -> SelectStatement {
    Entity::find()
        .select_only()
        .columns([Column::ChannelId, Column::UserId])
        .filter(Column::ChannelId.is_in(channels.iter().copied()))
        .filter(Column::LeftSeq.eq(OPEN))
        .into_query()
}

/// The members of channels that this transaction holds locked, at the versions it read under the lock: from the cache
/// where it is current, else from the database, all in one query.
pub(crate) async fn current(
    transaction: &DatabaseTransaction,
    versions: &BTreeMap<ChannelId, i64>,
    cache: &MemberCache,
) -> Result<HashMap<ChannelId, Arc<Members>>> {
    let mut current = HashMap::with_capacity(versions.len());
    let mut missing = HashMap::new();
    for (&channel, &version) in versions {
        match cache.get(channel, version) {
            Some(members) => drop(current.insert(channel, members)),
            None => drop(missing.insert(channel, Vec::new())),
        }
    }
    if missing.is_empty() {
        return Ok(current);
    }
    let asked: Vec<_> = missing.keys().copied().collect();
    for some in asked.chunks(rows::VALUES) {
        for member in rows::all::<Member>(transaction, &of_channels(some)).await? {
            missing.entry(member.channel_id).or_default().push(member.user_id);
        }
    }
    for (channel, users) in missing {
        let members = Arc::new(Members::new(versions[&channel], users));
        cache.put(channel, members.clone());
        current.insert(channel, members);
    }
    Ok(current)
}

/// Begins intervals: these users see the channel's log from `joined_seq` on.
pub(crate) async fn join(
    transaction: &DatabaseTransaction,
    channel: ChannelId,
    joined_seq: Seq,
    users: impl Iterator<Item = (UserId, Role)>,
) -> Result<()> {
    let before = Seq(joined_seq.0 - 1);
    let row = |(user, role)| ActiveModel {
        channel_id: Set(channel),
        user_id: Set(user),
        joined_seq: Set(joined_seq),
        role: Set(role),
        left_seq: Set(OPEN),
        read_seq: Set(before),
        delivered_seq: Set(before),
        notify_level: Set(NotifyLevel::All),
        muted_until: Set(None),
    };
    let rows: Vec<_> = users.map(row).collect();
    for some in rows.chunks(rows::VALUES) {
        Entity::insert_many(some.to_vec()).exec_without_returning(transaction).await?;
    }
    Ok(())
}

/// The version after a join or leave: greater than the one before, and not one that a database which lost its tail
/// had given to other members, because the time has moved on.
pub(crate) fn next_version(version: i64, now_ms: i64) -> i64 {
    max(now_ms, version + 1)
}

/// The members of recently used channels, proven current by each channel's `members_version` under its row lock.
/// Bounded; the channels used longest ago go first.
#[derive(Debug)]
pub struct MemberCache {
    max_channels: usize,
    max_members: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// The database's life that told of them.
    epoch: Option<i64>,
    channels: HashMap<ChannelId, (Arc<Members>, u64)>,
    by_use: BTreeMap<u64, ChannelId>,
    members: usize,
    uses: u64,
}

impl MemberCache {
    /// An empty cache of at most so many channels and so many members (16 bytes each) in all of them.
    pub fn new(max_channels: usize, max_members: usize) -> Self {
        Self { max_channels, max_members, held: Mutex::default() }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.lock() = Held::default();
    }

    /// What another life of the database told is forgotten: one that lost its tail gives the same versions again, to
    /// other members.
    pub(crate) fn of_life(&self, epoch: i64) {
        let held = &mut *self.lock();
        if held.epoch != Some(epoch) {
            *held = Held { epoch: Some(epoch), ..Held::default() };
        }
    }

    pub(crate) fn get(&self, channel: ChannelId, version: i64) -> Option<Arc<Members>> {
        let held = &mut *self.lock();
        let (members, used) = held.channels.get_mut(&channel)?;
        if members.version != version {
            return None;
        }
        held.by_use.remove(used);
        held.uses += 1;
        *used = held.uses;
        held.by_use.insert(held.uses, channel);
        Some(members.clone())
    }

    pub(crate) fn put(&self, channel: ChannelId, members: Arc<Members>) {
        let held = &mut *self.lock();
        held.remove(channel);
        held.uses += 1;
        held.members += members.users.len();
        held.channels.insert(channel, (members, held.uses));
        held.by_use.insert(held.uses, channel);
        while held.channels.len() > self.max_channels || held.members > self.max_members {
            let Some((_, oldest)) = held.by_use.pop_first() else { break };
            held.remove(oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn remove(&mut self, channel: ChannelId) {
        if let Some((members, used)) = self.channels.remove(&channel) {
            self.by_use.remove(&used);
            self.members -= members.users.len();
        }
    }
}

impl Default for MemberCache {
    /// 10,000 channels, 1,000,000 members.
    fn default() -> Self {
        Self::new(10_000, 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_life_of_the_database_told_is_forgotten() {
        let (cache, channel) = (MemberCache::default(), ChannelId::new());
        cache.of_life(1);
        cache.put(channel, members(1, 2));
        cache.of_life(1);
        assert!(cache.get(channel, 1).is_some());
        cache.of_life(2);
        assert!(cache.get(channel, 1).is_none());
    }

    fn members(version: i64, count: usize) -> Arc<Members> {
        Arc::new(Members::new(version, (0..count).map(|_| UserId::new()).collect()))
    }

    #[test]
    fn another_version_is_not_in_the_cache() {
        let cache = MemberCache::default();
        let channel = ChannelId::new();
        cache.put(channel, members(1, 2));
        assert!(cache.get(channel, 1).is_some());
        assert!(cache.get(channel, 2).is_none());
        cache.put(channel, members(2, 2));
        assert!(cache.get(channel, 1).is_none());
        cache.clear();
        assert!(cache.get(channel, 2).is_none());
    }

    #[test]
    fn the_channel_used_longest_ago_leaves_the_full_cache() {
        let cache = MemberCache::new(2, 100);
        let [a, b, c] = [(); 3].map(|()| ChannelId::new());
        cache.put(a, members(1, 1));
        cache.put(b, members(1, 1));
        assert!(cache.get(a, 1).is_some());
        cache.put(c, members(1, 1));
        assert!(cache.get(b, 1).is_none());
        assert!(cache.get(a, 1).is_some() && cache.get(c, 1).is_some());
    }

    #[test]
    fn the_cache_is_bounded_by_members_too() {
        let cache = MemberCache::new(100, 10);
        let [a, b, c] = [(); 3].map(|()| ChannelId::new());
        cache.put(a, members(1, 6));
        cache.put(b, members(1, 6));
        assert!(cache.get(a, 1).is_none());
        assert!(cache.get(b, 1).is_some());
        cache.put(c, members(1, 11));
        let held = cache.lock();
        assert_eq!((held.channels.len(), held.by_use.len(), held.members), (0, 0, 0));
    }
}
