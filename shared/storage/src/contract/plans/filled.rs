//! Tables with something in them, so that a plan is one for tables.

use crate::{
    Kind, Platform, PushOutcome, Role, Storage, TargetKind,
    entity::{self, members::OPEN},
    error::Result,
};
use sea_orm::{ActiveValue::Set, EntityTrait};
use touchline_ids::{ChannelId, DeviceId, MessageId, Seq, UserId};
use uuid::Uuid;

/// So many channels, with two members who are there and one who left, and ten messages each.
const CHANNELS: usize = 400;

/// What the tables are filled with.
pub(super) struct Filled {
    pub(super) users: Vec<UserId>,
    pub(super) channels: Vec<ChannelId>,
}

pub(super) fn phone() -> DeviceId {
    "phone".parse().expect("a device id")
}

/// Fills an empty database.
pub(super) async fn fill(storage: &Storage) -> Result<Filled> {
    let users: Vec<_> = (0..CHANNELS).map(|_| UserId::new()).collect();
    let channels: Vec<_> = (0..CHANNELS).map(|_| ChannelId::new()).collect();
    let db = &storage.writer;
    let rows = users.iter().enumerate().map(|(n, &id)| entity::users::ActiveModel {
        id: Set(id),
        handle: Set(format!("u{n}")),
        display_name: Set(String::new()),
        password_hash: Set(None),
        created_at: Set(0),
    });
    entity::users::Entity::insert_many(rows).exec_without_returning(db).await?;
    let rows = channels.iter().map(|&id| entity::channels::ActiveModel {
        id: Set(id),
        name: Set(String::new()),
        last_seq: Set(Seq(10)),
        members_version: Set(1),
        created_at: Set(0),
    });
    entity::channels::Entity::insert_many(rows).exec_without_returning(db).await?;
    for (n, &channel_id) in channels.iter().enumerate() {
        let user = |offset: usize| users[(n + offset) % CHANNELS];
        let member = |offset, left_seq| entity::members::ActiveModel {
            channel_id: Set(channel_id),
            user_id: Set(user(offset)),
            joined_seq: Set(Seq(1)),
            role: Set(Role::Member),
            left_seq: Set(left_seq),
            read_seq: Set(Seq(0)),
            delivered_seq: Set(Seq(0)),
            ..Default::default()
        };
        let rows = [member(0, OPEN), member(1, OPEN), member(2, Seq(5))];
        entity::members::Entity::insert_many(rows).exec_without_returning(db).await?;
        let rows = (1..=10).map(|seq| entity::messages::ActiveModel {
            channel_id: Set(channel_id),
            seq: Set(Seq(seq)),
            id: Set(MessageId::new()),
            sender_id: Set(user(0)),
            client_message_id: Set(seq.to_string().parse().ok()),
            body_hash: Set(Some(vec![0; 32])),
            kind: Set(Kind::Text),
            content: Set("\"x\"".to_owned()),
            created_at: Set(0),
            prev: Set(None),
        });
        entity::messages::Entity::insert_many(rows).exec_without_returning(db).await?;
        let rows = (1..=3).map(|seq| entity::outbox::ActiveModel {
            channel_id: Set(channel_id),
            seq: Set(Seq(seq)),
            owner: Set(Uuid::from_u128(n as u128 % 50)),
            claim_until: Set(n as i64),
            attempts: Set(1),
            no_push: Set(false),
        });
        entity::outbox::Entity::insert_many(rows).exec_without_returning(db).await?;
    }
    let rows = users.iter().zip(&channels).map(|(&user_id, &channel_id)| entity::notifications::ActiveModel {
        user_id: Set(user_id),
        channel_id: Set(channel_id),
        max_seq: Set(Seq(3)),
        count: Set(1),
        not_before: Set(0),
        ..Default::default()
    });
    entity::notifications::Entity::insert_many(rows).exec_without_returning(db).await?;
    let rows = users.iter().zip(&channels).flat_map(|(&user_id, &channel_id)| {
        (1..=5).map(move |seq| entity::mentions::ActiveModel {
            user_id: Set(user_id),
            channel_id: Set(channel_id),
            seq: Set(Seq(seq)),
            created_at: Set(seq),
        })
    });
    let walks = channels.iter().map(|&channel_id| entity::notification_walks::ActiveModel {
        channel_id: Set(channel_id),
        max_seq: Set(Seq(9)),
        not_before: Set(1),
        noted_at: Set(1),
        ..Default::default()
    });
    entity::notification_walks::Entity::insert_many(walks).exec_without_returning(db).await?;
    entity::mentions::Entity::insert_many(rows).exec_without_returning(db).await?;
    let rows = users.iter().zip(&channels).flat_map(|(&user_id, &channel_id)| {
        (1..=5).map(move |seq| entity::push_outcomes::ActiveModel {
            user_id: Set(user_id),
            channel_id: Set(channel_id),
            seq: Set(Seq(seq)),
            device_id: Set("phone".parse().expect("a device id")),
            after_seq: Set(Seq(0)),
            outcome: Set(PushOutcome::Accepted),
            answer: Set(String::new()),
            tries: Set(1),
            at: Set(seq),
        })
    });
    entity::push_outcomes::Entity::insert_many(rows).exec_without_returning(db).await?;
    let rows = users.iter().enumerate().map(|(n, &user_id)| entity::devices::ActiveModel {
        user_id: Set(user_id),
        device_id: Set(phone()),
        platform: Set(Platform::Android),
        target_kind: Set(TargetKind::Token),
        push_token: Set(format!("t{n}")),
        last_seen_at: Set(n as i64),
        created_at: Set(0),
        updated_at: Set(0),
        login_id: Set(Some(Uuid::from_u128(n as u128))),
        suspect_since: Set((n % 50 == 0).then_some(n as i64)),
    });
    entity::devices::Entity::insert_many(rows).exec_without_returning(db).await?;
    Ok(Filled { users, channels })
}
