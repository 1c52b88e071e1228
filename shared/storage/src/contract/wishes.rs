use super::{add, append, at_once, channel, fill, message, remove, user, users};
use crate::{Appended, NewMessage, NotifyLevel, NotifyWish, QuietHours, Storage, entity::mentions, error::Result};
use sea_orm::{EntityTrait, QueryOrder};
use touchline_ids::{ChannelId, Seq, UserId};

const WANTS_ALL: NotifyWish = NotifyWish { level: NotifyLevel::All, muted_until_ms: None };

pub async fn a_wish_is_kept_while_one_is_a_member(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob, eve] = users(&one).await?;
    let (id, other) = (channel(&one, ada, &[bob]).await?, channel(&one, ada, &[bob]).await?);
    assert_eq!(one.notify_wish(bob, id).await?, Some(WANTS_ALL));
    let wish = NotifyWish { level: NotifyLevel::Mentions, muted_until_ms: Some(77) };
    assert!(two.set_notify(bob, id, wish).await?);
    assert_eq!(one.notify_wish(bob, id).await?, Some(wish));
    assert_eq!(one.notify_wish(ada, id).await?, Some(WANTS_ALL));
    assert_eq!(one.notify_wish(bob, other).await?, Some(WANTS_ALL));
    let none = NotifyWish { level: NotifyLevel::None, muted_until_ms: None };
    assert!(one.set_notify(bob, id, none).await?);
    assert_eq!(two.notify_wish(bob, id).await?, Some(none));

    for (who, place) in [(eve, id), (bob, ChannelId::new())] {
        assert!(!one.set_notify(who, place, wish).await?);
        assert_eq!(one.notify_wish(who, place).await?, None);
    }
    remove(&one, id, ada, bob).await?;
    assert!(!one.set_notify(bob, id, wish).await?);
    assert_eq!(one.notify_wish(bob, id).await?, None);
    add(&one, id, ada, bob).await?;
    assert_eq!(one.notify_wish(bob, id).await?, Some(WANTS_ALL), "who comes back begins anew");
    Ok(())
}

pub async fn quiet_hours_are_set_changed_and_cleared(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let hours = |from_minute| QuietHours { from_minute, to_minute: 420, time_zone: "Europe/Berlin".to_owned() };
    assert_eq!(one.quiet_hours(ada).await?, None);
    for from in [1_320, 1_380] {
        assert!(one.set_quiet_hours(ada, &hours(from)).await?);
        assert_eq!(two.quiet_hours(ada).await?, Some(hours(from)));
    }
    assert_eq!(one.quiet_hours(bob).await?, None);
    assert!(!one.set_quiet_hours(UserId::new(), &hours(0)).await?);
    for _ in 0..2 {
        two.clear_quiet_hours(ada).await?;
    }
    assert_eq!(one.quiet_hours(ada).await?, None);
    Ok(())
}

/// Everybody who is mentioned, and where.
async fn mentioned(storage: &Storage) -> Result<Vec<(UserId, ChannelId, i64)>> {
    let rows = mentions::Entity::find().order_by_asc(mentions::Column::Seq).order_by_asc(mentions::Column::UserId);
    let rows = rows.all(&storage.reader).await?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.channel_id, row.seq.0)).collect())
}

pub async fn members_are_mentioned_and_nobody_else(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob, eve] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    let to = |text: &str, users: &[UserId]| NewMessage { mentions: users.to_vec(), ..message(id, ada, text) };
    let both = to("both", &[ada, bob, eve]);
    let stranger = NewMessage { sender_id: eve, ..to("from a stranger", &[bob]) };
    let answers = append(&one, vec![to("none", &[]), both.clone(), stranger, both.clone()]).await?;
    assert_eq!(answers[2], Appended::NotAMember);
    assert!(matches!(answers[3], Appended::Duplicate { seq: Seq(3), .. }), "{answers:?}");
    append(&two, vec![both]).await?;
    let mut expected = vec![(ada, id, 3), (bob, id, 3)];
    expected.sort();
    assert_eq!(mentioned(&one).await?, expected);

    remove(&one, id, ada, bob).await?;
    append(&one, vec![to("he is gone", &[bob])]).await?;
    assert_eq!(mentioned(&one).await?, expected);
    Ok(())
}

pub async fn old_mentions_are_swept(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    let at = |created_at_ms| NewMessage { mentions: vec![bob], created_at_ms, ..message(id, ada, "x") };
    append(&one, [10, 20, 30, 40].map(at).to_vec()).await?;
    assert_eq!(two.sweep_mentions(10, 100).await?, 0);
    let at_once: u64 =
        at_once([one.clone(), two.clone()].map(|storage| async move { storage.sweep_mentions(31, 2).await }))
            .await?
            .into_iter()
            .sum();
    let swept = at_once + one.sweep_mentions(31, 2).await? + one.sweep_mentions(31, 2).await?;
    assert_eq!(swept, 3);
    assert_eq!(mentioned(&one).await?, [(bob, id, 5)]);
    Ok(())
}

pub async fn what_was_read_needs_no_notification(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let (a, b) = (channel(&one, ada, &[bob]).await?, channel(&one, ada, &[bob]).await?);
    fill(&one, a, ada, 4).await?;
    one.notify(&[(bob, a, Seq(4)), (bob, b, Seq(1)), (ada, a, Seq(4))]).await?;
    two.mark_read(bob, a, Seq(3)).await?;
    assert_eq!(one.pending_notifications(a).await?.len(), 2, "not yet");
    two.mark_read(bob, a, Seq(4)).await?;
    assert_eq!(one.pending_notifications(a).await?, [(ada, Seq(4), 1)]);
    assert_eq!(one.pending_notifications(b).await?, [(bob, Seq(1), 1)]);
    Ok(())
}

pub async fn reading_acking_and_missing_never_wait_crosswise(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(channel(&one, ada, &[]).await?);
    }
    for id in &ids {
        fill(&one, *id, ada, 5).await?;
    }
    for seq in 1..=5 {
        let marks: Vec<_> = ids.iter().map(|&id| (ada, id, Seq(seq))).collect();
        let reading = async {
            for &id in ids.iter().rev() {
                one.mark_read(ada, id, Seq(seq)).await?;
            }
            Ok::<(), crate::StorageError>(())
        };
        tokio::try_join!(reading, two.notify(&marks), two.delivered(&marks))?;
        for &id in &ids {
            assert_eq!(one.pending_notifications(id).await?, []);
        }
    }
    Ok(())
}
