mod filled;

use self::filled::{Filled, fill, phone};
use crate::{
    NotifyLevel, NotifyWish, Storage, TargetKind, Walk, WhenLocked, append, change, channels, claimed, delivered,
    devices, entity,
    error::Result,
    forgotten,
    history::{self, Range},
    letters, log, members, mentions, notification_letters, notifications, outbox, quiet_hours, recipients, sweep, sync,
    take, walks, wishes,
};
use sea_orm::{ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QueryTrait, Statement};
use std::time::Duration;
use touchline_ids::Seq;
use uuid::Uuid;

/// Shows that every query of the hot path finds its rows through an index, from the statements that the code itself
/// builds. Postgres is told to avoid sequential scans, because on tables as small as a test's they would be right; it
/// still makes one where no index serves. What an index narrows down is its condition, so each scan must have one.
pub async fn every_query_of_the_hot_path_uses_its_index(one: Storage, _: Storage) -> Result<()> {
    let filled = fill(&one).await?;
    let postgres = one.writer.get_database_backend() == DbBackend::Postgres;
    let transaction = one.begin().await?;
    transaction.execute_unprepared("ANALYZE").await?;
    if postgres {
        transaction.execute_unprepared("SET LOCAL enable_seqscan = off").await?;
        // So would joining a batch with the whole of such a small index.
        transaction.execute_unprepared("SET LOCAL enable_mergejoin = off").await?;
        transaction.execute_unprepared("SET LOCAL enable_hashjoin = off").await?;
    }
    for (name, statement, indexes) in hot_path(&filled, one.writer.get_database_backend()) {
        let explain = if postgres { "EXPLAIN" } else { "EXPLAIN QUERY PLAN" };
        let statement = Statement { sql: format!("{explain} {}", statement.sql), ..statement };
        let rows = transaction.query_all_raw(statement).await?;
        let column = if postgres { "QUERY PLAN" } else { "detail" };
        let plan: Vec<String> =
            rows.iter().map(|row| row.try_get("", column)).collect::<std::result::Result<_, _>>()?;
        let lines = |part: &str| plan.iter().filter(|line| line.contains(part)).count();
        let shown = plan.join("\n");
        if postgres {
            assert_eq!(lines("Seq Scan"), 0, "{name}\n{shown}");
            let scans = lines("Index Scan") + lines("Index Only Scan");
            assert!(scans > 0 && lines("Index Cond:") == scans, "{name}\n{shown}");
            // Nothing else is read to be thrown away.
            let filters = lines("Filter:") - lines("One-Time Filter:");
            assert!(filters == 0 || FILTERS.contains(&name), "{name}\n{shown}");
            for index in indexes {
                assert!(index.split('|').any(|index| lines(index) > 0), "{name} without {index}\n{shown}");
            }
        } else {
            let not_a_table = [
                "VALUES CLAUSE",
                "SCAN keys",
                "SCAN entries",
                "SCAN due",
                "SCAN acks",
                "SCAN counted",
                "SCAN front",
                "CONSTANT ROWS",
                "SCAN (subquery",
            ]
            .map(lines);
            let scans = lines("SCAN") - not_a_table.iter().sum::<usize>();
            assert!(lines("SEARCH") > 0 && scans == 0, "{name}\n{shown}");
        }
    }
    Ok(())
}

/// Marks that stand further already, entries that have no place in an answer, members who came later, acks beyond a
/// log's end, notifications of later messages, rows that are claimed or dead, members who have acked, devices that were
/// seen just now or have another token by now.
const FILTERS: [&str; 18] = [
    "notifier: claim",
    "quiet hours: look again",
    "devices: trust",
    "notifier: settled before",
    "notifier: dead ones",
    "walk: claim",
    "walk: page",
    // At most a thousand entries.
    "walk: own messages",
    "read mark",
    "sync: entries",
    "outbox: taken members",
    "delivered: lock",
    "delivered: raise",
    "delivered: settled",
    "notifier: list",
    "devices: seen",
    "devices: void",
    "devices: not suspect",
];

type Hot = (&'static str, Statement, &'static [&'static str]);

/// One member of one channel: either index names exactly one row.
const ONE_MEMBER: &str = "ux_members_channel|ix_members_user";

/// Each query of the hot path with the indexes it is meant for, by their names on Postgres.
fn hot_path(filled: &Filled, backend: DbBackend) -> Vec<Hot> {
    let (user, channel) = (filled.users[7], filled.channels[7]);
    let batch = &filled.channels[..64];
    let named = |n: usize| n.to_string().parse().expect("a client message id");
    let in_one: Vec<_> = (0..64).map(|n| (channel, user, named(n))).collect();
    let of_one: Vec<_> = (0..64).map(|seq| (channel, Seq(seq))).collect();
    let keys: Vec<_> = batch.iter().map(|&id| (id, user, named(1))).collect();
    let places: Vec<_> = batch.iter().map(|&id| (id, Seq(3))).collect();
    let ranges: Vec<_> = filled.channels[..256]
        .iter()
        .zip(0..)
        .map(|(&channel_id, n)| Range { channel_id, seqs: n % 3 + 1..=n % 5 + 4 })
        .collect();
    let by_handle = entity::users::Entity::find().filter(entity::users::Column::Handle.eq("u7")).into_query();
    let spans: Vec<_> = batch.iter().map(|&id| (id, Seq(2), Seq(4))).collect();
    let marks: Vec<_> = batch.iter().zip(&filled.users).map(|(&id, &user)| (user, id, Seq(3))).collect();
    let pairs: Vec<_> = marks.iter().map(|&(user, id, _)| (user, id)).collect();
    let settled: Vec<_> = pairs.iter().map(|&(user, channel)| (user, channel, Seq(3), 0)).collect();
    let missing: Vec<_> = pairs.iter().map(|&(user, channel)| (user, channel, Seq(3), Seq(5))).collect();
    let tried: Vec<_> = pairs.iter().map(|&(user, channel)| (channel, Seq(3), user)).collect();
    let walk = Walk {
        channel_id: channel,
        walk_seq: Seq(9),
        walked_seq: Seq(4),
        after_user_id: Some(user),
        noted_at: 0,
        attempts: 1,
    };
    let roles = change::intervals(channel, [Some(user), None]).into_query();
    let phones: Vec<_> = filled.users[..64].iter().map(|&user| (user, phone())).collect();
    let suspects: Vec<_> = phones.iter().map(|(user, device)| (*user, device.clone(), "t7".to_owned())).collect();
    let void: Vec<_> = suspects.iter().cloned().map(|(user, device, token)| (user, device, token, 5)).collect();
    let keys_of_phones: Vec<_> =
        phones.iter().map(|(user_id, device)| devices::Key { user_id: *user_id, device_id: device.clone() }).collect();
    let mentioned: Vec<_> =
        marks.iter().map(|&(user_id, channel_id, seq)| mentions::Key { user_id, channel_id, seq }).collect();
    let wish = NotifyWish { level: NotifyLevel::None, muted_until_ms: None };
    let b = backend;
    #[rustfmt::skip]
    let hot: Vec<Hot> = vec![
        ("append: lock", b.build(&log::locking(batch, WhenLocked::Wait, b)), &["channels_pkey"]),
        ("append: lock or not", b.build(&log::locking(batch, WhenLocked::PassOver, b)), &["channels_pkey"]),
        ("append: existing", b.build(&log::existing(batch)), &["channels_pkey"]),
        ("append: members", b.build(&members::of_channels(batch)), &["ux_members_channel"]),
        ("append: before", b.build(&append::before(&keys, &places)), &["ux_messages_key", "messages_pkey"]),
        ("append: before in one channel", b.build(&append::before(&in_one, &of_one[..2])), &["ux_messages_key", "messages_pkey"]),
        ("append: ends", b.build(&log::advance(&places)), &["channels_pkey"]),
        ("change: roles", b.build(&roles), &[ONE_MEMBER]),
        ("outbox: finish", b.build(&outbox::delete(&places[..16])), &["outbox_pkey"]),
        ("outbox: finish in one channel", b.build(&outbox::delete(&of_one[..16])), &["outbox_pkey"]),
        ("outbox: renew", b.build(&outbox::renewal(Uuid::from_u128(7), b)), &["ix_outbox_owner"]),
        ("outbox: let go", b.build(&outbox::release_all(&[Uuid::from_u128(7)], b)), &["ix_outbox_owner"]),
        ("outbox: any expired", b.build(&take::any_expired(Duration::ZERO, b)), &["ix_outbox_claim"]),
        ("outbox: take", b.build(&take::claim(Uuid::from_u128(7), 256, Duration::ZERO, b)), &["ix_outbox_claim", "outbox_pkey"]),
        ("outbox: taken entries", b.build(&take::entries_at(&places)), &["messages_pkey"]),
        ("outbox: taken members", b.build(&take::in_spans(&spans)), &["ux_members_channel|members_pkey"]),
        ("outbox: count", b.build(&outbox::counted(outbox::Which::Dead, b)), &["ix_outbox_claim"]),
        ("outbox: longest wait", b.build(&outbox::longest_wait(b)), &["ix_outbox_claim"]),
        ("outbox: list", b.build(&letters::page(false, Some((channel, Seq(2))), 50, b)), &["outbox_pkey", "messages_pkey"]),
        ("outbox: dead letters", b.build(&letters::page(true, None, 50, b)), &["ix_outbox_claim", "messages_pkey"]),
        ("outbox: retry", b.build(&letters::reviving(b)), &["ix_outbox_claim"]),
        ("delivered: lock", b.build(&delivered::locking(&marks)), &[ONE_MEMBER, "channels_pkey"]),
        ("delivered: raise", b.build(&delivered::raise(&marks)), &[ONE_MEMBER]),
        ("delivered: settled", b.build(&delivered::settled(&marks, b)), &["notifications_pkey"]),
        ("delivered: drop", b.build(&delivered::dropping(&pairs)), &["notifications_pkey"]),
        ("delivered: keep memory", b.build(&delivered::keeping_memory(&pairs)), &["notifications_pkey"]),
        ("notify: lock", b.build(&notifications::locking(&pairs)), &["members_pkey|ix_members_user"]),
        ("notifier: claim", b.build(&claimed::claiming(Uuid::from_u128(7), 256, b)), &["ix_notifications_due", "notifications_pkey"]),
        ("notifier: next", b.build(&claimed::soonest(b)), &["ix_notifications_due"]),
        ("notifier: lock", b.build(&claimed::locking(&pairs)), &["notifications_pkey"]),
        ("notifier: sent", b.build(&claimed::update(claimed::Kind::Sent, &settled, b)), &["notifications_pkey"]),
        ("notifier: memberships", b.build(&recipients::memberships(&pairs)), &["members_pkey|ix_members_user", "quiet_hours_pkey"]),
        ("notifier: channels", b.build(&recipients::channels_at(batch.iter().copied())), &["channels_pkey"]),
        ("notifier: devices", b.build(&recipients::devices_of(&filled.users[..64])), &["devices_pkey"]),
        ("notifier: mentions", b.build(&recipients::mentioned(&missing)), &["mentions_pkey"]),
        ("notifier: unread", b.build(&recipients::unread(&filled.users[..64])), &["ix_members_user", "channels_pkey"]),
        ("notifier: settled before", b.build(&recipients::settled(&tried)), &["push_outcomes_pkey"]),
        ("notifier: newest", b.build(&recipients::newest(&places)), &["messages_pkey", "users_pkey"]),
        ("notifier: list", b.build(&notification_letters::page(false, Some(pairs[3]), 50, b)), &["notifications_pkey"]),
        ("notifier: dead ones", b.build(&notification_letters::page(true, None, 50, b)), &["ix_notifications_due|notifications_pkey"]),
        ("notifier: old outcomes", b.build(&sweep::old_outcomes(100, b)), &["ix_push_outcomes_at", "push_outcomes_pkey"]),
        ("notifier: old notifications", b.build(&sweep::old_notifications(100, b)), &["ix_notifications_due"]),
        ("notifier: count dead", b.build(&notification_letters::counted(notification_letters::Which::Dead, b)), &["ix_notifications_due"]),
        ("quiet hours: look again", b.build(&quiet_hours::looking_again(user, b)), &["notifications_pkey"]),
        ("devices: trust", b.build(&forgotten::is_suspect(&suspects)), &["devices_pkey|ix_devices_suspect"]),
        ("walk: claim", b.build(&walks::claiming(Uuid::from_u128(7), b)), &["ix_notification_walks_due|notification_walks_pkey"]),
        ("walk: page", b.build(&walks::page(&walk, 200)), &["ux_members_channel", "notifications_pkey"]),
        ("walk: own messages", b.build(&walks::own_messages(&walk, &filled.users[..64])), &["messages_pkey"]),
        ("channel", b.build(&channels::one(user, channel)), &[ONE_MEMBER, "channels_pkey"]),
        ("channels", b.build(&channels::page(user, Some(channel), 20)), &["ix_members_user", "channels_pkey"]),
        ("read mark", b.build(&channels::raise(user, channel, Seq(3))), &[ONE_MEMBER]),
        ("members", b.build(&members::page(user, channel, Some(user), 20)), &["ux_members_channel", "users_pkey"]),
        ("sync: heads", b.build(&sync::heads(user, b)), &["ix_members_user", "channels_pkey"]),
        ("sync: entries", b.build(&history::in_ranges(&ranges, 1024 * 1024, b)), &["messages_pkey"]),
        ("sync: checks", b.build(&history::at_places(&places, b)), &["messages_pkey"]),
        ("devices: put", b.build(&devices::around(user, TargetKind::Token, "t9".to_owned())), &["devices_pkey", "ux_devices_token"]),
        ("devices: of a user", b.build(&devices::of_user(user)), &["devices_pkey"]),
        ("devices: of a log-in", b.build(&devices::of_login(Uuid::from_u128(7))), &["ix_devices_login"]),
        ("devices: delete", b.build(&devices::deleting(&keys_of_phones)), &["devices_pkey"]),
        ("devices: seen", b.build(&devices::seen_before(&phones, 1_000)), &["devices_pkey"]),
        ("devices: void", b.build(&forgotten::with_old_token(&void)), &["devices_pkey|ux_devices_token"]),
        ("devices: not suspect", b.build(&forgotten::not_suspect(&suspects)), &["devices_pkey|ux_devices_token"]),
        ("devices: unseen", b.build(&forgotten::old(entity::devices::Column::LastSeenAt, 5, 100)), &["ix_devices_seen"]),
        ("devices: suspect", b.build(&forgotten::old(entity::devices::Column::SuspectSince, 5, 100)), &["ix_devices_suspect"]),
        ("wish", b.build(&wishes::wish(user, channel)), &[ONE_MEMBER]),
        ("wish: set", b.build(&wishes::setting(user, channel, wish)), &[ONE_MEMBER]),
        ("mentions: old", b.build(&mentions::old(5, 100)), &["ix_mentions_created"]),
        ("mentions: sweep", b.build(&mentions::deleting(&mentioned)), &["mentions_pkey"]),
        ("user by handle", b.build(&by_handle), &["users_handle_key"]),
    ];
    hot
}
