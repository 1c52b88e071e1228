use super::{append, at_once, channel, message, outbox, user, users};
use crate::{MemberCache, Storage, clock, error::Result};
use sea_orm::{ConnectionTrait, sea_query::Query};
use touchline_ids::{ChannelId, Seq, UserId};
use uuid::Uuid;

async fn database_time(storage: &Storage) -> Result<i64> {
    let now = Query::select().expr_as(clock::now_ms(storage.reader.get_database_backend()), "now").take();
    let row = storage.reader.query_one(&now).await?.expect("one row");
    Ok(row.try_get("", "now")?)
}

pub async fn an_outbox_row_is_claimed_by_the_databases_clock(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let [mine, other] = [Uuid::now_v7(), Uuid::now_v7()];
    let before = database_time(&one).await?;
    one.append(vec![message(id, ada, "x")], mine, &mut MemberCache::default()).await?;
    let after = database_time(&one).await?;
    assert!(before > 1_700_000_000_000, "Unix milliseconds: {before}");
    two.append(vec![message(id, ada, "y")], other, &mut MemberCache::default()).await?;
    let claims = outbox(&one).await?;
    assert_eq!((claims[1].owner, claims[2].owner), (mine, other));
    assert!((before + 5_000..=after + 5_000).contains(&claims[1].claim_until));

    let before = database_time(&one).await?;
    assert_eq!(two.renew_claims(mine).await?, 1);
    let renewed = outbox(&one).await?;
    assert!(renewed[1].claim_until >= before + 5_000);
    assert_eq!(renewed[2], claims[2]);
    assert_eq!(one.renew_claims(Uuid::now_v7()).await?, 0);
    Ok(())
}

pub async fn finishing_removes_outbox_rows(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let (a, b) = (channel(&one, ada, &[]).await?, channel(&one, ada, &[]).await?);
    append(&one, (0..500).map(|n| message(if n % 2 == 0 { a } else { b }, ada, "x")).collect()).await?;
    one.finish(&[]).await?;
    assert_eq!(outbox(&one).await?.len(), 502);
    let mut done: Vec<_> = (1..=251).map(|seq| (a, Seq(seq))).collect();
    done.extend([(b, Seq(7)), (a, Seq(9)), (ChannelId::new(), Seq(1)), (a, Seq(999))]);
    two.finish(&done).await?;
    two.finish(&done).await?;
    let left = outbox(&one).await?;
    assert_eq!(left.len(), 250);
    assert!(left.iter().all(|due| due.channel_id == b && due.seq != Seq(7)));
    Ok(())
}

pub async fn missed_messages_are_coalesced(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let (a, b) = (ChannelId::new(), ChannelId::new());
    one.notify(&[], 5).await?;
    one.notify(&[(bob, a, Seq(4)), (ada, a, Seq(4)), (ada, b, Seq(1)), (ada, a, Seq(3))], 10).await?;
    two.notify(&[(ada, a, Seq(9)), (bob, a, Seq(2))], 20).await?;
    assert_eq!(one.pending_notifications(a).await?, [(ada, Seq(9), 3), (bob, Seq(4), 2)]);
    assert_eq!(one.pending_notifications(b).await?, [(ada, Seq(1), 1)]);
    assert_eq!(one.pending_notifications(ChannelId::new()).await?, []);
    Ok(())
}

pub async fn two_processes_notify_the_same_users_crosswise(one: Storage, two: Storage) -> Result<()> {
    let id = ChannelId::new();
    let mut users: Vec<_> = (0..3_500).map(|_| UserId::new()).collect();
    users.sort();
    let forwards: Vec<_> = users.iter().map(|&user| (user, id, Seq(1))).collect();
    let backwards: Vec<_> = users.iter().rev().map(|&user| (user, id, Seq(2))).collect();
    let tasks =
        [(one.clone(), forwards.clone()), (two.clone(), backwards.clone()), (two, forwards), (one.clone(), backwards)];
    at_once(tasks.map(|(storage, missed)| async move { storage.notify(&missed, 1).await })).await?;
    let expected: Vec<_> = users.into_iter().map(|user| (user, Seq(2), 4)).collect();
    assert_eq!(one.pending_notifications(id).await?, expected);
    Ok(())
}
