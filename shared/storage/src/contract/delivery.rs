use super::{add, at_once, channel, fill, remove, user, users};
use crate::{
    Action, Role, Storage,
    delivered::Mark,
    entity::members::{Column, Entity, Model, OPEN},
    error::Result,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use touchline_ids::{ChannelId, Seq, UserId};

/// A user's intervals in a channel, oldest first: (joined, delivered).
async fn marks(storage: &Storage, channel: ChannelId, user: UserId) -> Result<Vec<(i64, i64)>> {
    let query = Entity::find().filter(Column::ChannelId.eq(channel)).filter(Column::UserId.eq(user));
    let rows: Vec<Model> = query.order_by_asc(Column::JoinedSeq).all(&storage.reader).await?;
    Ok(rows.into_iter().map(|row| (row.joined_seq.0, row.delivered_seq.0)).collect())
}

pub async fn missed_messages_are_coalesced(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let (a, b) = (channel(&one, ada, &[bob]).await?, channel(&one, ada, &[]).await?);
    fill(&one, a, ada, 8).await?;
    one.notify(&[]).await?;
    one.notify(&[(bob, a, Seq(4)), (ada, a, Seq(4)), (ada, b, Seq(1)), (ada, a, Seq(3))]).await?;
    two.notify(&[(ada, a, Seq(9)), (bob, a, Seq(2))]).await?;
    let mut expected = [(ada, Seq(9), 3), (bob, Seq(4), 2)];
    expected.sort();
    assert_eq!(one.pending_notifications(a).await?, expected);
    assert_eq!(one.pending_notifications(b).await?, [(ada, Seq(1), 1)]);
    assert_eq!(one.pending_notifications(ChannelId::new()).await?, []);
    Ok(())
}

pub async fn who_was_not_there_is_not_notified(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob, eve] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    fill(&one, id, ada, 2).await?;
    let left = remove(&one, id, ada, bob).await?;
    let missed: Vec<Mark> = (1..=5).flat_map(|seq| [(bob, id, Seq(seq)), (eve, id, Seq(seq))]).collect();
    two.notify(&missed).await?;
    assert_eq!(left, Seq(4));
    assert_eq!(one.pending_notifications(id).await?, [(bob, Seq(3), 3)], "what was sent while he was there");
    Ok(())
}

pub async fn what_is_beyond_the_end_of_the_log_notifies_nobody(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    fill(&one, id, ada, 2).await?;
    two.notify(&[(bob, id, Seq(4)), (bob, id, Seq(9))]).await?;
    assert_eq!(one.pending_notifications(id).await?, [], "a log that lost its tail has no such message");
    two.notify(&[(bob, id, Seq(3)), (bob, id, Seq(4))]).await?;
    assert_eq!(one.pending_notifications(id).await?, [(bob, Seq(3), 1)]);
    Ok(())
}

pub async fn two_processes_notify_the_same_users_crosswise(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let mut ids = Vec::new();
    for _ in 0..400 {
        ids.push(channel(&one, ada, &[]).await?);
    }
    ids.sort();
    let forwards: Vec<Mark> = ids.iter().map(|&id| (ada, id, Seq(1))).collect();
    let backwards: Vec<Mark> = forwards.iter().rev().copied().collect();
    let tasks =
        [(one.clone(), forwards.clone()), (two.clone(), backwards.clone()), (two, forwards), (one.clone(), backwards)];
    at_once(tasks.map(|(storage, missed)| async move { storage.notify(&missed).await })).await?;
    for id in ids {
        assert_eq!(one.pending_notifications(id).await?, [(ada, Seq(1), 4)]);
    }
    Ok(())
}

pub async fn an_ack_only_rises_and_only_for_members(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob, eve] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    fill(&one, id, ada, 3).await?;
    one.delivered(&[]).await?;
    one.delivered(&[(ada, id, Seq(2)), (ada, id, Seq(3)), (ada, id, Seq(1)), (eve, id, Seq(1))]).await?;
    two.delivered(&[(ada, id, Seq(2)), (bob, id, Seq(5)), (bob, ChannelId::new(), Seq(1))]).await?;
    assert_eq!(marks(&one, id, ada).await?, [(1, 3)]);
    assert_eq!(marks(&one, id, bob).await?, [(1, 0)], "an ack beyond the end");

    // Out and in again: what comes late for the former interval is not lost on the present one.
    remove(&one, id, ada, bob).await?;
    two.delivered(&[(bob, id, Seq(4))]).await?;
    assert_eq!(marks(&one, id, bob).await?, [(1, 0)]);
    add(&one, id, ada, bob).await?;
    two.delivered(&[(bob, id, Seq(4))]).await?;
    assert_eq!(marks(&one, id, bob).await?, [(1, 0), (6, 5)]);
    two.delivered(&[(bob, id, Seq(6))]).await?;
    assert_eq!(marks(&one, id, bob).await?, [(1, 0), (6, 6)]);
    Ok(())
}

pub async fn a_late_ack_settles_the_notification(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let (a, b) = (channel(&one, ada, &[bob]).await?, channel(&one, ada, &[bob]).await?);
    fill(&one, a, ada, 3).await?;
    one.notify(&[(bob, a, Seq(3)), (bob, b, Seq(1)), (ada, a, Seq(3))]).await?;
    two.delivered(&[(bob, a, Seq(2))]).await?;
    assert_eq!(one.pending_notifications(a).await?.len(), 2, "not yet");
    two.delivered(&[(bob, a, Seq(3))]).await?;
    assert_eq!(one.pending_notifications(a).await?, [(ada, Seq(3), 1)]);
    assert_eq!(one.pending_notifications(b).await?, [(bob, Seq(1), 1)]);
    Ok(())
}

pub async fn an_ack_before_the_miss_leaves_nothing_to_notify(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    fill(&one, id, ada, 3).await?;
    one.delivered(&[(bob, id, Seq(3))]).await?;
    two.notify(&[(bob, id, Seq(3)), (bob, id, Seq(2)), (ada, id, Seq(3))]).await?;
    assert_eq!(one.pending_notifications(id).await?, [(ada, Seq(3), 1)]);
    two.notify(&[(bob, id, Seq(4)), (bob, id, Seq(3))]).await?;
    assert_eq!(one.pending_notifications(id).await?.len(), 2);
    Ok(())
}

/// So many members of one channel, in no order.
async fn crowd(storage: &Storage, owner: UserId, count: usize) -> Result<(ChannelId, Vec<UserId>)> {
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(user(storage).await?);
    }
    let id = channel(storage, owner, &members).await?;
    members.sort_by_key(|user| user.0.as_u128().reverse_bits());
    Ok((id, members))
}

pub async fn acks_misses_and_changes_never_wait_crosswise(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let (id, members) = crowd(&one, ada, 60).await?;
    fill(&one, id, ada, 20).await?;
    let marks = |seq: i64| members.iter().map(|&user| (user, id, Seq(seq))).collect::<Vec<Mark>>();
    let acking = async {
        for seq in 1..=20 {
            one.delivered(&marks(seq)).await?;
        }
        Ok::<(), crate::StorageError>(())
    };
    let missing = async {
        for seq in 1..=20 {
            two.notify(&marks(seq).into_iter().rev().collect::<Vec<_>>()).await?;
        }
        Ok::<(), crate::StorageError>(())
    };
    // To and fro: each locks two members, and the owner is once the lesser and once the greater of them.
    let handing_over = async {
        let mut owner = ada;
        for &next in &members[..20] {
            super::change(&two, id, owner, Action::SetRole { user: next, role: Role::Owner }).await?;
            owner = next;
        }
        Ok::<(), crate::StorageError>(())
    };
    tokio::try_join!(acking, missing, handing_over)?;
    one.delivered(&marks(20)).await?;
    assert_eq!(one.pending_notifications(id).await?, []);
    let open = Entity::find().filter(Column::ChannelId.eq(id)).filter(Column::LeftSeq.eq(OPEN));
    let rows: Vec<Model> = open.filter(Column::UserId.ne(ada)).all(&one.reader).await?;
    assert!(rows.iter().all(|row| row.delivered_seq == Seq(20)));
    Ok(())
}

pub async fn of_an_ack_and_a_miss_at_once_the_ack_wins(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let (id, members) = crowd(&one, ada, 30).await?;
    fill(&one, id, ada, 30).await?;
    for seq in 1..=30 {
        let marks: Vec<Mark> = members.iter().map(|&user| (user, id, Seq(seq))).collect();
        tokio::try_join!(one.delivered(&marks), two.notify(&marks))?;
        assert_eq!(one.pending_notifications(id).await?, [], "{seq}");
    }
    Ok(())
}
