//! What is known about those who are to be notified, read just before it is sent: how far they hold the channel, what
//! they wish, and where a push would go.

use crate::{
    NotifyLevel, Platform, PushOutcome, QuietHours, Storage, TargetKind,
    claimed::Notification,
    entity::{
        channels, devices,
        members::{self, OPEN},
        mentions, messages, push_outcomes, quiet_hours, users,
    },
    error::Result,
    rows::{KEYS, VALUES},
};
use sea_orm::{
    FromQueryResult,
    sea_query::{Expr, ExprTrait, Query, SelectStatement},
};
use std::{
    cmp::max,
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
};
use touchline_ids::{ChannelId, DeviceId, Seq, UserId};

/// A place to push to.
#[derive(Clone, PartialEq, Eq, FromQueryResult)]
pub struct PushDevice {
    /// Whose.
    pub user_id: UserId,
    /// Which.
    pub device_id: DeviceId,
    /// What it runs.
    pub platform: Platform,
    /// What kind of name it has at the push service.
    pub target_kind: TargetKind,
    /// That name.
    pub push_token: String,
    /// Since when the provider says that this is another sender's, Unix milliseconds.
    pub suspect_since: Option<i64>,
    /// When it was here last, Unix milliseconds.
    pub last_seen_at: i64,
}

impl fmt::Debug for PushDevice {
    /// Without the push token: whoever has it can be told anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user_id, device_id, platform, .. } = self;
        f.debug_struct("PushDevice")
            .field("user_id", user_id)
            .field("device_id", device_id)
            .field("platform", platform)
            .finish_non_exhaustive()
    }
}

/// Somebody who is to be notified, as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Up to where a device of theirs holds the channel, or they have read it, or it was before their time.
    pub held_seq: Seq,
    /// The log's end.
    pub last_seq: Seq,
    /// The channel's name.
    pub channel_name: String,
    /// Of what they want to hear.
    pub level: NotifyLevel,
    /// Nothing before this, Unix milliseconds.
    pub muted_until: Option<i64>,
    /// When they want quiet.
    pub quiet: Option<QuietHours>,
    /// Whether something they have not got, and were not notified of, mentions them.
    pub mentioned: bool,
    /// Their devices that were seen since the time asked for.
    pub devices: Vec<PushDevice>,
    /// Those of them for which a push up to the same place was settled before.
    pub settled: Vec<DeviceId>,
    /// Unread messages over all channels.
    pub unread: i64,
}

/// The newest message, for a push that may show it.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Newest {
    /// Whose log.
    pub channel_id: ChannelId,
    /// Where in it.
    pub seq: Seq,
    /// The sender's name.
    pub display_name: String,
    /// JSON text.
    pub content: String,
}

type Key = (UserId, ChannelId);

impl Storage {
    /// What is known about each of these; none for whoever is not in the channel (any more). `seen_since_ms` leaves
    /// out devices that were away for longer, Unix milliseconds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recipients(
        &self,
        notifications: &[Notification],
        seen_since_ms: i64,
    ) -> Result<Vec<Option<Recipient>>> {
        let mut known = Known::default();
        for some in notifications.chunks(KEYS) {
            self.learn(some, seen_since_ms, &mut known).await?;
        }
        Ok(notifications.iter().map(|notification| known.recipient(notification)).collect())
    }

    /// The messages at these places, with their senders' names.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest(&self, places: &BTreeSet<(ChannelId, Seq)>) -> Result<Vec<Newest>> {
        let places: Vec<_> = places.iter().copied().collect();
        let mut found = Vec::with_capacity(places.len());
        for some in places.chunks(KEYS) {
            found.extend(self.read_all::<Newest>(&newest(some)).await?);
        }
        Ok(found)
    }

    async fn learn(&self, some: &[Notification], seen_since_ms: i64, known: &mut Known) -> Result<()> {
        let keys: Vec<Key> = some.iter().map(|row| (row.user_id, row.channel_id)).collect();
        let users: Vec<UserId> = keys.iter().map(|key| key.0).collect::<BTreeSet<_>>().into_iter().collect();
        for member in self.read_all::<Member>(&memberships(&keys)).await? {
            known.members.insert((member.user_id, member.channel_id), member);
        }
        let channels: BTreeSet<_> = known.members.keys().map(|key| key.1).collect();
        for channel in self.read_all::<Channel>(&channels_at(channels)).await? {
            known.channels.insert(channel.id, channel);
        }
        for some in users.chunks(VALUES) {
            let devices: Vec<PushDevice> = self.read_all(&devices_of(some)).await?;
            for device in devices.into_iter().filter(|device| device.last_seen_at >= seen_since_ms) {
                known.devices.entry(device.user_id).or_default().push(device);
            }
        }
        let marks: Vec<_> = some.iter().filter_map(|row| known.mark(row)).collect();
        if !marks.is_empty() {
            let mentioned: Vec<Mentioned> = self.read_all(&mentioned(&marks)).await?;
            known.mentioned.extend(mentioned.into_iter().map(|row| (row.user_id, row.channel_id)));
        }
        // Only an icon shows the number.
        let with_icon = |user: &UserId| known.devices.get(user).is_some_and(|all| all.iter().any(has_icon));
        let with_icons: Vec<_> = users.into_iter().filter(with_icon).collect();
        if !with_icons.is_empty() {
            let unread: Vec<Unread> = self.read_all(&unread(&with_icons)).await?;
            known.unread.extend(unread.into_iter().map(|row| (row.user_id, row.unread)));
        }
        // Not only of those that were claimed before: a walk's page that is done again looks like a new one.
        let tried: Vec<_> = some.iter().map(|row| (row.channel_id, row.max_seq, row.user_id)).collect();
        if !tried.is_empty() {
            for row in self.read_all::<Settled>(&settled(&tried)).await? {
                known.settled.entry((row.user_id, row.channel_id)).or_default().push(row.device_id);
            }
        }
        Ok(())
    }
}

fn has_icon(device: &PushDevice) -> bool {
    device.platform == Platform::Ios
}

#[derive(Default)]
struct Known {
    members: HashMap<Key, Member>,
    channels: HashMap<ChannelId, Channel>,
    devices: HashMap<UserId, Vec<PushDevice>>,
    mentioned: HashSet<Key>,
    settled: HashMap<Key, Vec<DeviceId>>,
    unread: HashMap<UserId, i64>,
}

impl Known {
    /// What somebody has not got: user, channel, after which place, up to which.
    fn mark(&self, row: &Notification) -> Option<(UserId, ChannelId, Seq, Seq)> {
        let member = self.members.get(&(row.user_id, row.channel_id))?;
        Some((row.user_id, row.channel_id, max(member.held_seq(), row.sent_seq), row.max_seq))
    }

    fn recipient(&self, row: &Notification) -> Option<Recipient> {
        let key = (row.user_id, row.channel_id);
        let member = self.members.get(&key)?;
        let channel = self.channels.get(&row.channel_id)?;
        let quiet = match (member.from_minute, member.to_minute, &member.time_zone) {
            (Some(from_minute), Some(to_minute), Some(time_zone)) => {
                Some(QuietHours { from_minute, to_minute, time_zone: time_zone.clone() })
            }
            _ => None,
        };
        Some(Recipient {
            held_seq: member.held_seq(),
            last_seq: channel.last_seq,
            channel_name: channel.name.clone(),
            level: member.notify_level,
            muted_until: member.muted_until,
            quiet,
            mentioned: self.mentioned.contains(&key),
            devices: self.devices.get(&row.user_id).cloned().unwrap_or_default(),
            settled: self.settled.get(&key).cloned().unwrap_or_default(),
            unread: self.unread.get(&row.user_id).copied().unwrap_or_default(),
        })
    }
}

#[derive(FromQueryResult)]
struct Member {
    user_id: UserId,
    channel_id: ChannelId,
    joined_seq: Seq,
    read_seq: Seq,
    delivered_seq: Seq,
    notify_level: NotifyLevel,
    muted_until: Option<i64>,
    from_minute: Option<i32>,
    to_minute: Option<i32>,
    time_zone: Option<String>,
}

impl Member {
    fn held_seq(&self) -> Seq {
        max(max(self.read_seq, self.delivered_seq), Seq(self.joined_seq.0 - 1))
    }
}

pub(crate) fn memberships(keys: &[Key]) -> SelectStatement {
    use members::Column::{
        ChannelId, DeliveredSeq, JoinedSeq, LeftSeq, MutedUntil, NotifyLevel as Level, ReadSeq, UserId,
    };
    let key = |name: &'static str| Expr::col(("keys", name));
    let member = |column: members::Column| Expr::col((members::Entity, column));
    let is_member =
        member(UserId).eq(key("column1")).and(member(LeftSeq).eq(OPEN)).and(member(ChannelId).eq(key("column2")));
    let quiet = Expr::col((quiet_hours::Entity, quiet_hours::Column::UserId)).eq(key("column1"));
    let columns = [UserId, ChannelId, JoinedSeq, ReadSeq, DeliveredSeq, Level, MutedUntil];
    Query::select()
        .columns(columns.map(|column| (members::Entity, column)))
        .columns(
            [quiet_hours::Column::FromMinute, quiet_hours::Column::ToMinute, quiet_hours::Column::TimeZone]
                .map(|column| (quiet_hours::Entity, column)),
        )
        .from_values(keys.iter().copied(), "keys")
        .inner_join(members::Entity, is_member)
        .left_join(quiet_hours::Entity, quiet)
        .take()
}

#[derive(FromQueryResult)]
struct Channel {
    id: ChannelId,
    last_seq: Seq,
    name: String,
}

/// Not joined with the members: that would tempt Postgres to read every member of a channel for each of its keys.
pub(crate) fn channels_at(channels: impl IntoIterator<Item = ChannelId>) -> SelectStatement {
    use channels::Column::{Id, LastSeq, Name};
    Query::select().columns([Id, LastSeq, Name]).from(channels::Entity).and_where(Expr::col(Id).is_in(channels)).take()
}

pub(crate) fn devices_of(users: &[UserId]) -> SelectStatement {
    use devices::Column::{DeviceId, LastSeenAt, Platform, PushToken, SuspectSince, TargetKind, UserId};
    Query::select()
        .columns([UserId, DeviceId, Platform, TargetKind, PushToken, SuspectSince, LastSeenAt])
        .from(devices::Entity)
        .and_where(Expr::col(UserId).is_in(users.iter().copied()))
        .take()
}

#[derive(FromQueryResult)]
struct Mentioned {
    user_id: UserId,
    channel_id: ChannelId,
}

pub(crate) fn mentioned(marks: &[(UserId, ChannelId, Seq, Seq)]) -> SelectStatement {
    let key = |name: &'static str| Expr::col(("keys", name));
    let mention = |column: mentions::Column| Expr::col((mentions::Entity, column));
    let missed = mention(mentions::Column::UserId)
        .eq(key("column1"))
        .and(mention(mentions::Column::ChannelId).eq(key("column2")))
        .and(mention(mentions::Column::Seq).gt(key("column3")))
        .and(mention(mentions::Column::Seq).lte(key("column4")));
    Query::select()
        .columns([mentions::Column::UserId, mentions::Column::ChannelId].map(|column| (mentions::Entity, column)))
        .from_values(marks.iter().copied(), "keys")
        .inner_join(mentions::Entity, missed)
        .take()
}

#[derive(FromQueryResult)]
struct Unread {
    user_id: UserId,
    unread: i64,
}

pub(crate) fn unread(users: &[UserId]) -> SelectStatement {
    use members::Column::{ChannelId, LeftSeq, ReadSeq, UserId};
    let member = |column: members::Column| Expr::col((members::Entity, column));
    let channel = |column: channels::Column| Expr::col((channels::Entity, column));
    let sum = channel(channels::Column::LastSeq).sub(member(ReadSeq)).sum();
    Query::select()
        .column((members::Entity, UserId))
        // Postgres sums BIGINTs into a NUMERIC.
        .expr_as(sum.cast_as("BIGINT"), "unread")
        .from(members::Entity)
        .inner_join(channels::Entity, channel(channels::Column::Id).equals((members::Entity, ChannelId)))
        .and_where(member(UserId).is_in(users.iter().copied()))
        .and_where(member(LeftSeq).eq(OPEN))
        .group_by_col((members::Entity, UserId))
        .take()
}

#[derive(FromQueryResult)]
struct Settled {
    user_id: UserId,
    channel_id: ChannelId,
    device_id: DeviceId,
}

/// Devices whose pushes for these places have come to an end.
pub(crate) fn settled(tried: &[(ChannelId, Seq, UserId)]) -> SelectStatement {
    use push_outcomes::Column as C;
    let key = |name: &'static str| Expr::col(("keys", name));
    let outcome = |column: C| Expr::col((push_outcomes::Entity, column));
    let same = outcome(C::ChannelId)
        .eq(key("column1"))
        .and(outcome(C::Seq).eq(key("column2")))
        .and(outcome(C::UserId).eq(key("column3")));
    Query::select()
        .columns([C::UserId, C::ChannelId, C::DeviceId].map(|column| (push_outcomes::Entity, column)))
        .from_values(tried.iter().copied(), "keys")
        .inner_join(push_outcomes::Entity, same)
        // One that was refused is tried again when an operator wants it.
        .and_where(outcome(C::Outcome).is_not_in([PushOutcome::Delayed, PushOutcome::Refused]))
        .take()
}

pub(crate) fn newest(places: &[(ChannelId, Seq)]) -> SelectStatement {
    use messages::Column::{ChannelId, Content, SenderId, Seq};
    let key = |name: &'static str| Expr::col(("keys", name));
    let message = |column: messages::Column| Expr::col((messages::Entity, column));
    let same = message(ChannelId).eq(key("column1")).and(message(Seq).eq(key("column2")));
    let sender = Expr::col((users::Entity, users::Column::Id)).equals((messages::Entity, SenderId));
    Query::select()
        .columns([ChannelId, Seq, Content].map(|column| (messages::Entity, column)))
        .column((users::Entity, users::Column::DisplayName))
        .from_values(places.iter().copied(), "keys")
        .inner_join(messages::Entity, same)
        .inner_join(users::Entity, sender)
        .take()
}
