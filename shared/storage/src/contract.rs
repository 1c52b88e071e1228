//! What every kind of database must do: each case is handed two storages on one empty, migrated database, as two
//! processes would have them. Run by the tests of this crate on SQLite and by tests/it on Postgres.
#![expect(missing_docs, reason = "a case's name says what it shows")]

pub mod append;
pub mod change;
pub mod channels;
pub mod delivery;
pub mod devices;
pub mod history;
pub mod logins;
pub mod notifying;
pub mod outbox;
pub mod plans;
pub mod recent;
pub mod schema;
pub mod sync;
pub mod users;
pub mod walks;
pub mod wishes;

use crate::{
    Action, Appended, Changed, ChannelChange, CreateChannel, CreateUser, Entry, MemberCache, NewChannel, NewMessage,
    NewUser, Role, Storage, WhenLocked, entity, error::Result,
};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder};
use std::future::Future;
use tokio::task::JoinSet;
use touchline_ids::{ChannelId, MessageId, Seq, UserId};
use uuid::Uuid;

/// Makes a test of every case; `$run` is an async function that gives a case its two storages.
#[macro_export]
macro_rules! storage_contract {
    ($run:path) => {
        $crate::storage_contract! { $run;
            users: a_user_is_found_by_id_handle_and_identity, a_handle_belongs_to_one_user,
                an_external_person_becomes_one_user;
            logins: a_refresh_token_rotates, a_reused_refresh_token_revokes_its_family,
                of_concurrent_rotations_one_wins_and_the_family_is_revoked, an_expired_refresh_token_is_unknown,
                a_revoked_login_is_over_and_others_live_on, expired_logins_are_forgotten;
            channels: a_new_channel_has_its_members_and_its_first_entry, nobody_cannot_be_a_member,
                channels_are_listed_in_pages, members_are_listed_in_pages,
                no_channel_and_somebody_elses_look_alike, a_read_mark_only_rises;
            append: seqs_are_dense_in_the_order_of_the_batch, every_entry_says_which_one_it_follows,
                two_processes_give_dense_seqs_and_agree,
                ten_concurrent_retries_make_one_row, a_duplicate_gets_the_first_answer,
                another_body_under_the_same_key_is_a_conflict, a_key_belongs_to_one_sender_in_one_channel,
                strangers_store_nothing, a_retry_after_leaving_still_gets_the_first_answer,
                a_cached_membership_is_never_stale, a_batch_may_be_larger_than_a_statement,
                a_held_lock_makes_a_send_unavailable_not_endless,
                a_locked_channel_is_passed_over_and_the_others_are_stored;
            change: a_new_member_sees_from_the_joined_entry_on, a_removed_member_sees_nothing_more,
                coming_back_is_a_new_interval, who_is_removed_sends_nothing_after_it,
                two_processes_add_a_user_once, every_refusal_leaves_the_log_alone, ownership_is_handed_over,
                the_last_one_out_is_fine, every_change_is_told_in_the_log;
            history: a_log_is_read_in_pages_both_ways;
            sync: a_device_gets_exactly_what_it_missed, a_right_cursor_is_an_ack_once,
                an_answer_is_limited_and_says_that_there_is_more,
                an_answer_of_long_entries_ends_early_and_says_so,
                a_wrong_check_resets_and_a_right_one_does_not, a_cursor_outside_the_log_resets,
                many_cursors_fit_in_one_sync;
            recent: what_is_remembered_answers_as_the_database_does,
                a_storm_of_devices_reads_twice_each_and_once_when_it_is_remembered,
                nobody_is_served_from_memory_what_is_not_theirs;
            outbox: an_outbox_row_is_claimed_by_the_databases_clock, finishing_removes_outbox_rows,
                an_expired_claim_is_taken_once_with_its_message, a_message_is_taken_with_the_members_at_its_seq,
                the_fifth_attempt_is_the_last, what_is_let_go_is_taken_at_once_and_nobody_elses,
                two_processes_take_each_row_once, a_row_without_its_message_holds_nobody_up,
                an_operator_lists_retries_and_drops,
                renewing_and_finishing_never_wait_crosswise, the_outbox_is_counted;
            delivery: missed_messages_are_coalesced, who_was_not_there_is_not_notified,
                what_is_beyond_the_end_of_the_log_notifies_nobody,
                two_processes_notify_the_same_users_crosswise, an_ack_only_rises_and_only_for_members,
                a_late_ack_settles_the_notification, an_ack_before_the_miss_leaves_nothing_to_notify,
                acks_misses_and_changes_never_wait_crosswise, of_an_ack_and_a_miss_at_once_the_ack_wins;
            notifying: two_notifiers_claim_each_row_once,
                what_is_missed_after_a_push_is_sent_three_seconds_later_with_the_whole_count,
                what_is_noted_after_a_push_that_reached_further_counts_and_is_not_pushed_again,
                what_is_missed_during_a_push_is_due_again, what_is_put_off_waits_for_its_time_whatever_is_missed,
                the_tenth_claim_without_an_outcome_is_the_last, an_ack_during_a_push_takes_the_row_away,
                who_acks_and_goes_away_again_is_not_pushed_to_before_its_time,
                a_row_that_is_somebody_elses_by_now_is_left_alone,
                settling_misses_and_acks_never_wait_crosswise, recipients_are_known_as_they_are_now,
                what_was_sent_a_week_ago_is_forgotten;
            devices: a_device_is_registered_once_and_keeps_its_beginning, a_token_moves_to_who_registers_it,
                of_two_who_register_one_token_at_once_one_has_it, tokens_that_change_places_never_wait_crosswise,
                the_device_unseen_for_longest_makes_room, a_log_in_takes_its_devices_along,
                a_log_out_and_a_registration_at_once_leave_nothing, being_seen_is_noted_once_an_hour,
                a_void_token_is_forgotten_once_and_only_if_unchanged,
                a_suspect_is_noted_once_and_cleared_by_registering, devices_that_stay_away_are_swept;
            wishes: a_wish_is_kept_while_one_is_a_member, quiet_hours_are_set_changed_and_cleared,
                members_are_mentioned_and_nobody_else, old_mentions_are_swept, what_was_read_needs_no_notification,
                reading_acking_and_missing_never_wait_crosswise;
            walks: a_walk_finds_who_has_not_acked_and_goes_on_where_another_left_it;
            schema: migrations_go_up_and_down_and_up_again, an_older_schema_is_refused_and_a_newer_one_is_not,
                two_processes_migrate_at_once;
            plans: every_query_of_the_hot_path_uses_its_index;
        }
    };
    ($run:path; $($subject:ident: $($case:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $run($crate::contract::$subject::$case).await;
            }
        )+)+
    };
}

/// A new user with a handle nobody has.
async fn user(storage: &Storage) -> Result<UserId> {
    let id = UserId::new();
    let new = NewUser {
        id,
        handle: format!("u-{}", id.0.simple()),
        display_name: "Somebody".to_owned(),
        password_hash: None,
        external: None,
        created_at_ms: 1,
    };
    assert!(matches!(storage.create_user(new).await?, CreateUser::Created(_)));
    Ok(id)
}

async fn users<const N: usize>(storage: &Storage) -> Result<[UserId; N]> {
    let mut users = [UserId(Uuid::nil()); N];
    for id in &mut users {
        *id = user(storage).await?;
    }
    Ok(users)
}

/// A new channel; its log has one entry.
async fn channel(storage: &Storage, owner: UserId, members: &[UserId]) -> Result<ChannelId> {
    let id = ChannelId::new();
    let new = NewChannel {
        id,
        name: "talk".to_owned(),
        owner,
        member_ids: members.to_vec(),
        message_id: MessageId::new(),
        created_at_ms: 2,
    };
    assert!(matches!(storage.create_channel(new, Uuid::nil()).await?, CreateChannel::Created { .. }));
    Ok(id)
}

/// A message under a key of its own.
fn message(channel_id: ChannelId, sender_id: UserId, text: &str) -> NewMessage {
    let message_id = MessageId::new();
    NewMessage {
        channel_id,
        sender_id,
        client_message_id: message_id.to_string().parse().expect("a UUID is a client message id"),
        content: serde_json::json!(text).to_string(),
        body_hash: [text.len() as u8; 32],
        no_push: false,
        mentions: Vec::new(),
        message_id,
        created_at_ms: 3,
    }
}

async fn append(storage: &Storage, batch: Vec<NewMessage>) -> Result<Vec<Appended>> {
    storage.append(batch, Uuid::nil(), &MemberCache::default(), WhenLocked::Wait).await
}

/// Sends so many messages, in batches.
async fn fill(storage: &Storage, channel: ChannelId, sender: UserId, count: usize) -> Result<()> {
    let batch: Vec<_> = (0..count).map(|n| message(channel, sender, &n.to_string())).collect();
    for some in batch.chunks(64) {
        append(storage, some.to_vec()).await?;
    }
    Ok(())
}

async fn change(storage: &Storage, channel_id: ChannelId, actor: UserId, action: Action) -> Result<Changed> {
    let change = ChannelChange { channel_id, actor, action, message_id: MessageId::new(), created_at_ms: 4 };
    storage.change_channel(change, Uuid::nil(), &MemberCache::default(), 10, WhenLocked::Wait).await
}

/// Adds a plain member; answers the seq of the joined entry.
async fn add(storage: &Storage, channel: ChannelId, actor: UserId, user: UserId) -> Result<Seq> {
    let action = Action::Add { users: vec![user], role: Role::Member };
    Ok(stored(change(storage, channel, actor, action).await?).seq)
}

/// Removes a member; answers the seq of the left entry.
async fn remove(storage: &Storage, channel: ChannelId, actor: UserId, user: UserId) -> Result<Seq> {
    Ok(stored(change(storage, channel, actor, Action::Remove(user)).await?).seq)
}

fn stored(changed: Changed) -> Entry {
    match changed {
        Changed::Stored { entry, .. } => entry,
        other => panic!("not stored: {other:?}"),
    }
}

/// The whole log, as no member sees it.
async fn log(storage: &Storage, channel: ChannelId) -> Result<Vec<Entry>> {
    let rows = entity::messages::Entity::find()
        .filter(entity::messages::Column::ChannelId.eq(channel))
        .order_by_asc(entity::messages::Column::Seq)
        .all(&storage.reader)
        .await?;
    Ok(rows.into_iter().map(Entry::from).collect())
}

async fn outbox(storage: &Storage) -> Result<Vec<entity::outbox::Model>> {
    Ok(entity::outbox::Entity::find().order_by_asc(entity::outbox::Column::Seq).all(&storage.reader).await?)
}

async fn open_intervals(storage: &Storage, channel: ChannelId, user: UserId) -> Result<u64> {
    let open = entity::members::Entity::find().filter(crate::members::open(channel, user));
    Ok(open.count(&storage.reader).await?)
}

fn seqs(entries: &[Entry]) -> Vec<i64> {
    entries.iter().map(|entry| entry.seq.0).collect()
}

/// What each of the tasks answered, run at the same time.
fn at_once<T, F>(tasks: impl IntoIterator<Item = F>) -> impl Future<Output = Result<Vec<T>>>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let running: JoinSet<_> = tasks.into_iter().collect();
    async move { running.join_all().await.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use crate::{Settings, Storage, error::Result};
    use std::future::Future;

    crate::storage_contract!(on_sqlite);

    async fn on_sqlite<F: Future<Output = Result<()>>>(case: impl FnOnce(Storage, Storage) -> F) {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            url: format!("sqlite://{}/touchline.db", folder.path().display()),
            max_connections: 3,
            ..Settings::default()
        };
        let one = Storage::connect(&settings).await.unwrap();
        one.migrate_up().await.unwrap();
        let two = Storage::connect(&settings).await.unwrap();
        case(one.clone(), two.clone()).await.unwrap();
        one.close().await.unwrap();
        two.close().await.unwrap();
    }

    #[test]
    fn every_case_is_run() {
        let list = include_str!("contract.rs");
        for subject in [
            include_str!("contract/append.rs"),
            include_str!("contract/change.rs"),
            include_str!("contract/channels.rs"),
            include_str!("contract/delivery.rs"),
            include_str!("contract/devices.rs"),
            include_str!("contract/history.rs"),
            include_str!("contract/logins.rs"),
            include_str!("contract/notifying.rs"),
            include_str!("contract/outbox.rs"),
            include_str!("contract/plans.rs"),
            include_str!("contract/recent.rs"),
            include_str!("contract/schema.rs"),
            include_str!("contract/sync.rs"),
            include_str!("contract/users.rs"),
            include_str!("contract/walks.rs"),
            include_str!("contract/wishes.rs"),
        ] {
            for case in subject.split("pub async fn ").skip(1) {
                let name = case.split('(').next().unwrap();
                assert!(list.contains(&format!(" {name},")) || list.contains(&format!(" {name};")), "{name}");
            }
        }
    }
}
