use super::{at_once, channel, fill, remove, user, users};
use crate::{
    MAX_CLAIMS, NotifyLevel, Outcome, Platform, PushOutcome, QuietHours, Settlement, Storage, TargetKind, Then,
    entity::{devices, members, mentions, notification_walks, notifications, push_outcomes, quiet_hours},
    error::Result,
    notifications::NEVER,
};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, sea_query::Expr};
use std::collections::BTreeSet;
use touchline_ids::{ChannelId, Seq, UserId};
use uuid::Uuid;

/// Time passes for every row: its time has come, and claims have ended.
pub(super) async fn time_passes(storage: &Storage) -> Result<()> {
    let rows = notifications::Entity::update_many()
        .col_expr(notifications::Column::NotBefore, Expr::value(1))
        .filter(notifications::Column::NotBefore.lt(NEVER));
    rows.exec(&storage.writer).await?;
    let claims = notifications::Entity::update_many()
        .col_expr(notifications::Column::ClaimUntil, Expr::value(0))
        .filter(notifications::Column::ClaimUntil.lt(NEVER));
    claims.exec(&storage.writer).await?;
    let walks = notification_walks::Entity::update_many()
        .col_expr(notification_walks::Column::NotBefore, Expr::value(1))
        .col_expr(notification_walks::Column::ClaimUntil, Expr::value(0))
        .filter(notification_walks::Column::NotBefore.lt(NEVER));
    walks.exec(&storage.writer).await?;
    Ok(())
}

fn outcome(user: UserId, channel: ChannelId, seq: Seq, outcome: PushOutcome) -> Outcome {
    let device = "phone".parse().expect("a device id");
    Outcome { user, device, channel, after_seq: Seq(0), seq, outcome, answer: "ok".to_owned(), tries: 1 }
}

fn settlement(user: UserId, channel: ChannelId, seq: Seq, claim: Uuid, then: Then) -> Settlement {
    Settlement { user, channel, seq, claim, then }
}

/// A channel of ada and bob whose log has so many messages.
async fn talk(storage: &Storage, messages: usize) -> Result<(UserId, UserId, ChannelId)> {
    let [ada, bob] = users(storage).await?;
    let id = channel(storage, ada, &[bob]).await?;
    fill(storage, id, ada, messages).await?;
    Ok((ada, bob, id))
}

pub async fn two_notifiers_claim_each_row_once(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let mut missed = Vec::new();
    for _ in 0..60 {
        missed.push((ada, channel(&one, ada, &[]).await?, Seq(1)));
    }
    one.notify(&missed).await?;
    let claims = at_once([one, two].map(|storage| async move {
        let mut claimed = Vec::new();
        loop {
            let some = storage.claim_notifications(Uuid::now_v7(), 7).await?;
            if some.is_empty() {
                return Ok(claimed);
            }
            assert!(some.len() <= 7);
            claimed.extend(some);
        }
    }));
    let claimed: Vec<_> = claims.await?.concat();
    let channels: BTreeSet<_> = claimed.iter().map(|row| row.channel_id).collect();
    assert_eq!((claimed.len(), channels.len()), (60, 60));
    assert!(claimed.iter().all(|row| (row.attempts, row.tries, row.count) == (1, 0, 1)));
    Ok(())
}

pub async fn what_is_missed_after_a_push_is_sent_three_seconds_later_with_the_whole_count(
    one: Storage,
    two: Storage,
) -> Result<()> {
    let ((_, bob, id), owner) = (talk(&one, 4).await?, Uuid::now_v7());
    one.notify(&[(bob, id, Seq(2)), (bob, id, Seq(3))]).await?;
    let rows = one.claim_notifications(owner, 10).await?;
    assert_eq!((rows[0].max_seq, rows[0].count), (Seq(3), 2));
    let accepted = outcome(bob, id, Seq(3), PushOutcome::Accepted);
    one.settle_notifications(&[settlement(bob, id, Seq(3), owner, Then::Sent)], &[accepted.clone(), accepted]).await?;
    assert_eq!(one.pending_notifications(id).await?, [], "sent");
    assert_eq!(one.next_notification_ms().await?, None);
    two.notify(&[(bob, id, Seq(4))]).await?;
    let due_ms = two.next_notification_ms().await?.expect("there is one");
    assert!((1..=3_000).contains(&due_ms), "{due_ms}");
    assert_eq!(two.claim_notifications(owner, 10).await?, [], "not yet");
    time_passes(&one).await?;
    let rows = two.claim_notifications(owner, 10).await?;
    assert_eq!((rows[0].max_seq, rows[0].count), (Seq(4), 3), "nobody acked the first two");
    assert_eq!(push_outcomes::Entity::find().count(&one.reader).await?, 1);
    Ok(())
}

pub async fn what_is_noted_after_a_push_that_reached_further_counts_and_is_not_pushed_again(
    one: Storage,
    two: Storage,
) -> Result<()> {
    let ((_, bob, id), owner) = (talk(&one, 4).await?, Uuid::now_v7());
    one.notify(&[(bob, id, Seq(3))]).await?;
    assert_eq!(one.claim_notifications(owner, 10).await?.len(), 1);
    one.settle_notifications(&[settlement(bob, id, Seq(3), owner, Then::Sent)], &[]).await?;
    // Two apis note messages of one channel in any order, and one that takes over notes them again.
    two.notify(&[(bob, id, Seq(2))]).await?;
    two.notify(&[(bob, id, Seq(3))]).await?;
    assert_eq!(one.next_notification_ms().await?, None);
    two.notify(&[(bob, id, Seq(4))]).await?;
    time_passes(&one).await?;
    let rows = one.claim_notifications(owner, 10).await?;
    assert_eq!((rows[0].max_seq, rows[0].count), (Seq(4), 4));
    // A dead one was never sent.
    one.settle_notifications(&[settlement(bob, id, Seq(4), owner, Then::Dead)], &[]).await?;
    two.notify(&[(bob, id, Seq(2))]).await?;
    assert!(one.next_notification_ms().await?.is_some());
    Ok(())
}

pub async fn what_is_missed_during_a_push_is_due_again(one: Storage, two: Storage) -> Result<()> {
    let ((ada, bob, id), owner) = (talk(&one, 4).await?, Uuid::now_v7());
    one.notify(&[(bob, id, Seq(2))]).await?;
    assert_eq!(one.claim_notifications(owner, 10).await?.len(), 1);
    two.notify(&[(bob, id, Seq(3))]).await?;
    one.settle_notifications(&[settlement(bob, id, Seq(2), owner, Then::Sent)], &[]).await?;
    assert_eq!(one.pending_notifications(id).await?, [(bob, Seq(3), 2)]);
    let due_ms = one.next_notification_ms().await?.expect("there is one");
    assert!((2_000..=3_000).contains(&due_ms), "{due_ms}");
    // The same when the first one needed no push.
    time_passes(&one).await?;
    assert_eq!(one.claim_notifications(owner, 10).await?.len(), 1);
    two.notify(&[(bob, id, Seq(4))]).await?;
    one.settle_notifications(&[settlement(bob, id, Seq(3), owner, Then::Dropped)], &[]).await?;
    assert_eq!(one.claim_notifications(owner, 10).await?[0].max_seq, Seq(4));
    // And when it was called wrong: what was wrong with it need not be wrong with the next message.
    fill(&one, id, ada, 1).await?;
    two.notify(&[(bob, id, Seq(5))]).await?;
    one.settle_notifications(&[settlement(bob, id, Seq(4), owner, Then::Dead)], &[]).await?;
    assert_eq!(one.notification_letters(true, None, 10).await?, []);
    time_passes(&one).await?;
    assert_eq!(one.claim_notifications(owner, 10).await?[0].max_seq, Seq(5));
    one.settle_notifications(&[settlement(bob, id, Seq(5), owner, Then::Dropped)], &[]).await?;
    assert_eq!(notifications::Entity::find().count(&one.reader).await?, 0);
    Ok(())
}

pub async fn what_is_put_off_waits_for_its_time_whatever_is_missed(one: Storage, two: Storage) -> Result<()> {
    let ((_, bob, id), owner) = (talk(&one, 4).await?, Uuid::now_v7());
    one.notify(&[(bob, id, Seq(2))]).await?;
    for tries in 0..7 {
        let row = &one.claim_notifications(owner, 10).await?[0];
        assert_eq!((row.attempts, row.tries), (1, tries), "being put off is no failure");
        let then = Then::Again { after_ms: 60_000, put_off: true };
        one.settle_notifications(&[settlement(bob, id, Seq(2), owner, then)], &[]).await?;
        two.notify(&[(bob, id, Seq(3))]).await?;
        assert!(one.next_notification_ms().await?.expect("there is one") > 50_000);
        assert_eq!(one.claim_notifications(owner, 10).await?, []);
        time_passes(&one).await?;
    }
    assert_eq!(one.claim_notifications(owner, 10).await?.len(), 1);
    one.settle_notifications(&[settlement(bob, id, Seq(3), owner, Then::Released)], &[]).await?;
    let row = &two.claim_notifications(owner, 10).await?[0];
    assert_eq!((row.attempts, row.tries, row.count), (1, 7, 8), "as if it had not been claimed");
    Ok(())
}

pub async fn the_tenth_claim_without_an_outcome_is_the_last(one: Storage, two: Storage) -> Result<()> {
    let ((_, bob, id), owner) = (talk(&one, 4).await?, Uuid::now_v7());
    one.notify(&[(bob, id, Seq(2))]).await?;
    for attempts in 1..=i32::try_from(MAX_CLAIMS).expect("ten") {
        assert_eq!(one.claim_notifications(owner, 10).await?[0].attempts, attempts);
        time_passes(&one).await?;
    }
    assert_eq!(one.claim_notifications(owner, 10).await?, []);
    let letters = two.notification_letters(true, None, 10).await?;
    assert_eq!((letters.len(), letters[0].is_dead, letters[0].due_ms), (1, true, None));
    assert_eq!(two.notification_counts().await?.dead, 1);
    time_passes(&one).await?;
    assert_eq!(one.claim_notifications(owner, 10).await?, [], "dead");
    // Something new.
    two.notify(&[(bob, id, Seq(3))]).await?;
    assert_eq!(one.claim_notifications(owner, 10).await?[0].attempts, 1);
    // Refused, and retried by an operator.
    one.settle_notifications(&[settlement(bob, id, Seq(3), owner, Then::Dead)], &[]).await?;
    assert_eq!(two.retry_notifications(&[(bob, id)]).await?, 1);
    assert_eq!(one.claim_notifications(owner, 10).await?.len(), 1);
    one.settle_notifications(&[settlement(bob, id, Seq(3), owner, Then::Dead)], &[]).await?;
    assert_eq!(two.retry_all_dead_notifications().await?, 1);
    assert_eq!(two.retry_all_dead_notifications().await?, 0);
    assert_eq!(two.drop_notifications(&[(bob, id)]).await?, 1);
    assert_eq!(one.notification_letters(false, None, 10).await?, []);
    Ok(())
}

pub async fn an_ack_during_a_push_takes_the_row_away(one: Storage, two: Storage) -> Result<()> {
    let ((_, bob, id), owner) = (talk(&one, 4).await?, Uuid::now_v7());
    one.notify(&[(bob, id, Seq(3))]).await?;
    assert_eq!(one.claim_notifications(owner, 10).await?.len(), 1);
    two.delivered(&[(bob, id, Seq(3))]).await?;
    one.settle_notifications(&[settlement(bob, id, Seq(3), owner, Then::Sent)], &[]).await?;
    assert_eq!(notifications::Entity::find().count(&one.reader).await?, 0);
    Ok(())
}

pub async fn who_acks_and_goes_away_again_is_not_pushed_to_before_its_time(one: Storage, two: Storage) -> Result<()> {
    let ((ada, bob, id), owner) = (talk(&one, 4).await?, Uuid::now_v7());
    for (seq, ack) in [(2, true), (3, false)] {
        one.notify(&[(bob, id, Seq(seq))]).await?;
        time_passes(&one).await?;
        assert_eq!(one.claim_notifications(owner, 10).await?[0].count, 1, "what was acked does not count");
        one.settle_notifications(&[settlement(bob, id, Seq(seq), owner, Then::Sent)], &[]).await?;
        if ack {
            two.delivered(&[(bob, id, Seq(seq))]).await?;
        } else {
            two.mark_read(bob, id, Seq(seq)).await?;
        }
        assert_eq!(one.notification_letters(false, None, 10).await?, [], "nothing is owed");
        assert_eq!(one.next_notification_ms().await?, None);
    }
    fill(&one, id, ada, 1).await?;
    one.notify(&[(bob, id, Seq(5))]).await?;
    let due_ms = one.next_notification_ms().await?.expect("there is one");
    assert!((1..=3_000).contains(&due_ms), "{due_ms}");
    notifications::Entity::update_many()
        .col_expr(notifications::Column::SentAt, Expr::value(1_i64))
        .exec(&one.writer)
        .await?;
    two.delivered(&[(bob, id, Seq(5))]).await?;
    assert_eq!(notifications::Entity::find().count(&one.reader).await?, 0, "the memory is over");
    Ok(())
}

pub async fn a_row_that_is_somebody_elses_by_now_is_left_alone(one: Storage, two: Storage) -> Result<()> {
    let ((_, bob, id), slow, quick) = (talk(&one, 4).await?, Uuid::now_v7(), Uuid::now_v7());
    one.notify(&[(bob, id, Seq(3))]).await?;
    assert_eq!(one.claim_notifications(slow, 10).await?.len(), 1);
    time_passes(&one).await?;
    assert_eq!(two.claim_notifications(quick, 10).await?[0].attempts, 2);
    for then in [Then::Sent, Then::Dropped, Then::Dead, Then::Released] {
        one.settle_notifications(&[settlement(bob, id, Seq(3), slow, then)], &[]).await?;
        assert_eq!(one.pending_notifications(id).await?, [(bob, Seq(3), 1)], "{then:?}");
        assert_eq!(one.claim_notifications(slow, 10).await?, []);
    }
    Ok(())
}

pub async fn settling_misses_and_acks_never_wait_crosswise(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(channel(&one, ada, &[]).await?);
        fill(&one, ids[ids.len() - 1], ada, 20).await?;
    }
    let all = |seq: i64| ids.iter().map(|&id| (ada, id, Seq(seq))).collect::<Vec<_>>();
    one.notify(&all(1)).await?;
    for seq in 2..12 {
        time_passes(&one).await?;
        let owner = Uuid::now_v7();
        let rows = one.claim_notifications(owner, 100).await?;
        let settled = rows.iter().rev();
        let settled: Vec<_> =
            settled.map(|row| settlement(row.user_id, row.channel_id, row.max_seq, owner, Then::Sent)).collect();
        let (missed, mut acks) = (all(seq), all(seq - 1));
        acks.reverse();
        tokio::try_join!(one.settle_notifications(&settled, &[]), two.notify(&missed), two.delivered(&acks))?;
    }
    Ok(())
}

pub async fn recipients_are_known_as_they_are_now(one: Storage, two: Storage) -> Result<()> {
    let ((ada, bob, id), owner) = (talk(&one, 5).await?, Uuid::now_v7());
    let other = channel(&one, ada, &[bob]).await?;
    fill(&one, other, ada, 2).await?;
    one.notify(&[(bob, id, Seq(5)), (bob, other, Seq(2)), (ada, id, Seq(5))]).await?;
    remove(&one, other, ada, bob).await?;
    let device = |device: &str, token: &str, seen| devices::ActiveModel {
        user_id: Set(bob),
        device_id: Set(device.parse().expect("a device id")),
        platform: Set(Platform::Ios),
        target_kind: Set(TargetKind::Token),
        push_token: Set(token.to_owned()),
        last_seen_at: Set(seen),
        ..Default::default()
    };
    let all = [device("phone", "a", 100), device("old", "b", 10)];
    devices::Entity::insert_many(all).exec_without_returning(&one.writer).await?;
    let quiet = quiet_hours::ActiveModel {
        user_id: Set(bob),
        from_minute: Set(1_320),
        to_minute: Set(420),
        time_zone: Set("Europe/Berlin".to_owned()),
    };
    quiet_hours::Entity::insert(quiet).exec_without_returning(&one.writer).await?;
    let mention =
        |seq| mentions::ActiveModel { user_id: Set(bob), channel_id: Set(id), seq: Set(Seq(seq)), created_at: Set(1) };
    mentions::Entity::insert_many([mention(2), mention(6)]).exec_without_returning(&one.writer).await?;
    two.delivered(&[(bob, id, Seq(3))]).await?;
    members::Entity::update_many()
        .col_expr(members::Column::NotifyLevel, Expr::value(NotifyLevel::Mentions))
        .col_expr(members::Column::MutedUntil, Expr::value(77_i64))
        .filter(members::Column::UserId.eq(bob))
        .exec(&one.writer)
        .await?;

    let mut rows = one.claim_notifications(owner, 10).await?;
    rows.sort_by_key(|row| (row.user_id != bob, row.channel_id != id));
    let known = two.recipients(&rows, 50).await?;
    assert_eq!((rows[1].channel_id, &known[1]), (other, &None), "no longer a member");
    let known = known[0].as_ref().expect("there is one");
    assert_eq!((known.held_seq, known.last_seq, known.channel_name.as_str()), (Seq(3), Seq(6), "talk"));
    assert_eq!((known.level, known.muted_until), (NotifyLevel::Mentions, Some(77)));
    assert_eq!(
        known.quiet,
        Some(QuietHours { from_minute: 1_320, to_minute: 420, time_zone: "Europe/Berlin".to_owned() })
    );
    assert!(!known.mentioned, "one mention is acked, the other one not missed");
    assert_eq!(known.devices.iter().map(|device| device.push_token.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!((known.unread, known.settled.len()), (6, 0));

    mentions::Entity::insert(mention(4)).exec_without_returning(&one.writer).await?;
    let accepted = outcome(bob, id, Seq(5), PushOutcome::Accepted);
    let then = Then::Again { after_ms: 0, put_off: true };
    one.settle_notifications(&[settlement(bob, id, Seq(5), owner, then)], &[accepted]).await?;
    let rows = one.claim_notifications(owner, 1).await?;
    let known = two.recipients(&rows, 50).await?;
    let known = known[0].as_ref().expect("there is one");
    assert!(known.mentioned);
    assert_eq!(known.settled[0].as_str(), "phone", "it has its push, another device was put off");
    // What was pushed is no longer a reason for the next push.
    let then = Then::Sent;
    one.settle_notifications(&[settlement(bob, id, Seq(5), owner, then)], &[]).await?;
    one.notify(&[(bob, id, Seq(6))]).await?;
    time_passes(&one).await?;
    let mut rows = one.claim_notifications(owner, 10).await?;
    rows.retain(|row| (row.user_id, row.channel_id) == (bob, id));
    assert_eq!((rows[0].max_seq, rows[0].sent_seq), (Seq(6), Seq(5)));
    assert!(two.recipients(&rows, 50).await?[0].as_ref().expect("there is one").mentioned, "the sixth mentions him");
    mentions::Entity::delete_by_id((bob, id, Seq(6))).exec(&one.writer).await?;
    assert!(!two.recipients(&rows, 50).await?[0].as_ref().expect("there is one").mentioned);
    let newest = two.newest(&BTreeSet::from([(id, Seq(2)), (id, Seq(99))])).await?;
    assert_eq!((newest.len(), newest[0].content.as_str()), (1, "\"0\""));
    Ok(())
}

pub async fn what_was_sent_a_week_ago_is_forgotten(one: Storage, two: Storage) -> Result<()> {
    let ((ada, bob, id), owner) = (talk(&one, 4).await?, Uuid::now_v7());
    one.notify(&[(bob, id, Seq(3)), (ada, id, Seq(3))]).await?;
    one.claim_notifications(owner, 10).await?;
    let settled = [settlement(bob, id, Seq(3), owner, Then::Sent), settlement(ada, id, Seq(3), owner, Then::Dead)];
    one.settle_notifications(&settled, &[outcome(bob, id, Seq(3), PushOutcome::Accepted)]).await?;
    assert_eq!((two.sweep_notifications(10).await?, two.sweep_outcomes(10).await?), (0, 0));
    let week = Expr::value(1_000_i64);
    push_outcomes::Entity::update_many().col_expr(push_outcomes::Column::At, week.clone()).exec(&one.writer).await?;
    let rows = notifications::Entity::update_many().col_expr(notifications::Column::SentAt, week);
    rows.exec(&one.writer).await?;
    assert_eq!((two.sweep_notifications(10).await?, two.sweep_outcomes(10).await?), (1, 1));
    assert_eq!(two.notification_letters(false, None, 10).await?.len(), 1, "the dead one is the operator's to drop");
    Ok(())
}
