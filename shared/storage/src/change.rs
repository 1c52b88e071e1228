//! What changes a channel: one transaction each, under the lock of the channel's row, with an entry in its log.

use crate::{
    Entry, Kind, MemberCache, Members, Role, Storage,
    connection::{commit, in_time},
    entity::{
        channels,
        members::{Column, Entity, OPEN},
        messages,
    },
    error::Result,
    log::{self, Locked, Locks, NewEntries, WhenLocked},
    members,
    roles::{Verdict, judge},
    users,
};
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect, Select, sea_query::Expr};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use touchline_ids::{ChannelId, MessageId, Seq, UserId};
use uuid::Uuid;

/// A change to a channel.
#[derive(Debug, Clone)]
pub struct ChannelChange {
    /// Of which channel.
    pub channel_id: ChannelId,
    /// Who does it.
    pub actor: UserId,
    /// What.
    pub action: Action,
    /// The id of the log's entry.
    pub message_id: MessageId,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// What is done to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Gives it another name, at most 128 characters.
    Rename(String),
    /// Adds members.
    Add {
        /// Whom; those who are in it already do no harm.
        users: Vec<UserId>,
        /// As what.
        role: Role,
    },
    /// Removes a member; oneself to leave.
    Remove(UserId),
    /// Gives a member another role.
    SetRole {
        /// Whom.
        user: UserId,
        /// Which; `Owner` hands the channel over.
        role: Role,
    },
}

/// What a change found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Done, and in the log.
    Stored {
        /// As it stands in the log.
        entry: Entry,
        /// Who is in the channel after the change.
        members: Arc<Members>,
    },
    /// It was so already; nothing is in the log.
    Unchanged,
    /// No such channel, or the actor is not in it.
    NotAMember,
    /// The actor's role does not allow it.
    Forbidden,
    /// These are nobody; nobody was added.
    UnknownUsers(Vec<UserId>),
    /// The one to remove or to give a role is not in the channel.
    NoSuchMember,
    /// The owner cannot leave others behind, nor step down: another one must become owner first.
    OwnerMustHandOver,
    /// The channel would have too many members; nobody was added.
    ChannelFull,
    /// Somebody else holds the channel locked, and it was passed over.
    Locked,
}

impl Storage {
    /// Changes a channel in one transaction: the actor's role is checked under the lock. `owner` is this api's
    /// instance: its claim on the outbox row lives 5 s.
    ///
    /// # Errors
    /// When the database fails; then nothing is stored, except with `InDoubt`.
    pub async fn change_channel(
        &self,
        change: ChannelChange,
        owner: Uuid,
        cache: &MemberCache,
        max_members: usize,
        when_locked: WhenLocked,
    ) -> Result<Changed> {
        let id = change.channel_id;
        let transaction = self.begin().await?;
        let work = async {
            let Locks { mut held, elsewhere } = log::lock(&transaction, &BTreeSet::from([id]), when_locked).await?;
            match held.remove(&id) {
                Some(channel) => {
                    let epoch = channel.epoch;
                    Ok((apply(&transaction, channel, change, owner, cache, max_members).await?, epoch))
                }
                None if elsewhere.contains(&id) => Ok((Changed::Locked, 0)),
                None => Ok((Changed::NotAMember, 0)),
            }
        };
        let (changed, epoch) = in_time(work).await?;
        commit(transaction).await?;
        // Only now: a version that was never committed may be given again, to other members.
        if let Changed::Stored { entry, members } = &changed {
            cache.put(id, members.clone());
            self.recent.put(epoch, [Arc::new(entry.clone())]);
        }
        Ok(changed)
    }
}

async fn apply(
    transaction: &DatabaseTransaction,
    channel: Locked,
    change: ChannelChange,
    owner: Uuid,
    cache: &MemberCache,
    max_members: usize,
) -> Result<Changed> {
    let id = channel.id;
    cache.of_life(channel.epoch);
    let versions = BTreeMap::from([(id, channel.members_version)]);
    let Some(members) = members::current(transaction, &versions, cache).await?.remove(&id) else {
        return Ok(Changed::NotAMember);
    };
    let target = change.action.target();
    let roles = roles(transaction, id, [Some(change.actor), target]).await?;
    let Some(&role) = roles.get(&change.actor) else { return Ok(Changed::NotAMember) };
    let target_role = target.and_then(|target| roles.get(&target).copied());
    match judge(change.actor, role, &change.action, target_role, members.users.len() == 1) {
        Verdict::Allowed => {}
        Verdict::Unchanged => return Ok(Changed::Unchanged),
        Verdict::Forbidden => return Ok(Changed::Forbidden),
        Verdict::NoSuchMember => return Ok(Changed::NoSuchMember),
        Verdict::OwnerMustHandOver => return Ok(Changed::OwnerMustHandOver),
    }
    let seq = channel.last_seq.next();
    let mut draft = Draft { transaction, channel, members, seq, at_ms: change.created_at_ms };
    let (kind, content) = match draft.carry_out(change.actor, change.action, max_members).await? {
        Ok(done) => done,
        Err(not_done) => return Ok(not_done),
    };
    // Under the lock: it stays the last one.
    let last = messages::Entity::find_by_id((id, draft.channel.last_seq)).select_only().column(messages::Column::Id);
    let last: Option<MessageId> = last.into_tuple().one(transaction).await?;
    let entry = Entry {
        channel_id: id,
        seq,
        message_id: change.message_id,
        sender_id: change.actor,
        kind,
        content: content.to_string(),
        created_at_ms: change.created_at_ms,
        prev: last.map(|last| last.check()),
    };
    let members = draft.members.clone();
    draft.write(&entry, owner).await?;
    Ok(Changed::Stored { entry, members })
}

impl Action {
    fn target(&self) -> Option<UserId> {
        match self {
            Self::Remove(user) | Self::SetRole { user, .. } => Some(*user),
            Self::Rename(_) | Self::Add { .. } => None,
        }
    }
}

/// The roles of those of `users` who are in the channel.
async fn roles(
    transaction: &DatabaseTransaction,
    channel: ChannelId,
    users: [Option<UserId>; 2],
) -> Result<HashMap<UserId, Role>> {
    let members = intervals(channel, users).all(transaction).await?;
    Ok(members.into_iter().map(|member| (member.user_id, member.role)).collect())
}

pub(crate) fn intervals(channel: ChannelId, users: [Option<UserId>; 2]) -> Select<Entity> {
    Entity::find()
        .filter(Column::ChannelId.eq(channel))
        .filter(Column::LeftSeq.eq(OPEN))
        .filter(Column::UserId.is_in(users.into_iter().flatten()))
}

/// A change on its way: the channel as it will be.
struct Draft<'a> {
    transaction: &'a DatabaseTransaction,
    channel: Locked,
    members: Arc<Members>,
    /// Of the entry that tells of the change.
    seq: Seq,
    at_ms: i64,
}

/// What the log's entry says, or why there is none.
type Done = std::result::Result<(Kind, Value), Changed>;

impl Draft<'_> {
    async fn carry_out(&mut self, actor: UserId, action: Action, max_members: usize) -> Result<Done> {
        match action {
            Action::Rename(name) if name == self.channel.name => Ok(Err(Changed::Unchanged)),
            Action::Rename(name) => {
                let content = json!({ "name": name });
                self.channel.name = name;
                Ok(Ok((Kind::Renamed, content)))
            }
            Action::Add { users, role } => self.add(users, role, max_members).await,
            Action::Remove(user) => self.remove(user).await,
            Action::SetRole { user, role } => self.set_role(actor, user, role).await,
        }
    }

    async fn add(&mut self, users: Vec<UserId>, role: Role, max_members: usize) -> Result<Done> {
        let mut users: BTreeSet<_> = users.into_iter().collect();
        users.retain(|&user| !self.members.contains(user));
        if users.is_empty() {
            return Ok(Err(Changed::Unchanged));
        }
        let unknown = users::unknown(self.transaction, &users).await?;
        if !unknown.is_empty() {
            return Ok(Err(Changed::UnknownUsers(unknown)));
        }
        if self.members.users.len() + users.len() > max_members {
            return Ok(Err(Changed::ChannelFull));
        }
        members::join(self.transaction, self.channel.id, self.seq, users.iter().map(|&user| (user, role))).await?;
        let after = self.members.users.iter().chain(&users).copied().collect();
        self.set_members(after);
        Ok(Ok((Kind::Joined, json!({ "user_ids": users }))))
    }

    async fn remove(&mut self, user: UserId) -> Result<Done> {
        self.update(user, Column::LeftSeq, Expr::value(self.seq)).await?;
        self.set_members(self.members.users.iter().copied().filter(|&member| member != user).collect());
        Ok(Ok((Kind::Left, json!({ "user_id": user }))))
    }

    async fn set_role(&mut self, actor: UserId, user: UserId, role: Role) -> Result<Done> {
        let mut roles = BTreeMap::new();
        if role == Role::Owner {
            roles.insert(actor, Role::Admin);
        }
        roles.insert(user, role);
        // In order of users, as whoever else locks members does.
        for (user, role) in roles {
            self.update(user, Column::Role, Expr::value(role)).await?;
        }
        Ok(Ok((Kind::RoleChanged, json!({ "user_id": user, "role": role }))))
    }

    async fn update(&self, user: UserId, column: Column, value: Expr) -> Result<()> {
        Entity::update_many()
            .col_expr(column, value)
            .filter(members::open(self.channel.id, user))
            .exec(self.transaction)
            .await?;
        Ok(())
    }

    fn set_members(&mut self, users: Vec<UserId>) {
        self.channel.members_version = members::next_version(self.channel.members_version, self.at_ms);
        self.members = Arc::new(Members::new(self.channel.members_version, users));
    }

    async fn write(self, entry: &Entry, owner: Uuid) -> Result<()> {
        let mut entries = NewEntries::default();
        entries.push(entry, None, false);
        entries.write(self.transaction, owner).await?;
        channels::Entity::update_many()
            .col_expr(channels::Column::LastSeq, Expr::value(self.seq))
            .col_expr(channels::Column::Name, Expr::value(self.channel.name))
            .col_expr(channels::Column::MembersVersion, Expr::value(self.channel.members_version))
            .filter(channels::Column::Id.eq(self.channel.id))
            .exec(self.transaction)
            .await?;
        Ok(())
    }
}
