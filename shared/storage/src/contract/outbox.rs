use super::{add, append, at_once, channel, fill, message, outbox, remove, user, users};
use crate::{
    Appended, Kind, MAX_ATTEMPTS, MemberCache, OutboxCounts, Storage, Taken, WhenLocked, clock,
    entity::{self, outbox::Column},
    error::Result,
    outbox::{DEAD, NOBODY},
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter,
    sea_query::{Expr, Query},
};
use std::{collections::BTreeSet, sync::Arc};
use touchline_ids::{ChannelId, Seq};
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
    one.append(vec![message(id, ada, "x")], mine, &MemberCache::default(), WhenLocked::Wait).await?;
    let after = database_time(&one).await?;
    assert!(before > 1_700_000_000_000, "Unix milliseconds: {before}");
    two.append(vec![message(id, ada, "y")], other, &MemberCache::default(), WhenLocked::Wait).await?;
    let claims = outbox(&one).await?;
    assert_eq!((claims[1].owner, claims[2].owner), (mine, other));
    assert_eq!(claims[1].attempts, 1);
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

/// Ends every claim, as time does.
async fn expire(storage: &Storage) -> Result<()> {
    let all = entity::outbox::Entity::update_many().col_expr(Column::ClaimUntil, Expr::value(1));
    all.filter(Column::ClaimUntil.lt(DEAD)).exec(&storage.writer).await?;
    Ok(())
}

fn places(taken: &[Taken]) -> Vec<(ChannelId, i64)> {
    taken.iter().map(|taken| (taken.entry.channel_id, taken.entry.seq.0)).collect()
}

pub async fn an_expired_claim_is_taken_once_with_its_message(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let mut ids = [channel(&one, ada, &[bob]).await?, channel(&one, ada, &[bob]).await?];
    ids.sort();
    let [a, b] = ids;
    let mut quiet = message(b, ada, "quiet");
    quiet.no_push = true;
    let sent = append(&one, vec![quiet, message(a, ada, "one"), message(a, ada, "two")]).await?;
    let me = Uuid::now_v7();
    assert_eq!(two.take_expired(me, 100).await?, [], "every claim lives");
    expire(&one).await?;
    let before = database_time(&one).await?;
    let taken = two.take_expired(me, 100).await?;
    assert_eq!(places(&taken), [(a, 1), (a, 2), (a, 3), (b, 1), (b, 2)], "in order");
    assert_eq!(two.take_expired(Uuid::now_v7(), 100).await?, [], "once");
    assert_eq!(taken[0].entry.kind, Kind::Created);
    let entries: Vec<_> = sent
        .into_iter()
        .map(|sent| match sent {
            Appended::Stored { entry, .. } => entry,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!([&taken[4].entry, &taken[1].entry, &taken[2].entry], [&entries[0], &entries[1], &entries[2]]);
    assert_eq!(taken.iter().map(|taken| taken.no_push).collect::<Vec<_>>(), [false, false, false, false, true]);
    assert!(taken.iter().all(|taken| taken.attempts == 2));
    for row in outbox(&one).await? {
        assert_eq!((row.owner, row.attempts), (me, 2));
        assert!((before + 5_000..before + 15_000).contains(&row.claim_until));
    }

    // Those that have waited longest come first, and the rest next time.
    expire(&one).await?;
    let (first, rest) = (two.take_expired(me, 3).await?, two.take_expired(me, 3).await?);
    assert_eq!((places(&first), places(&rest)), (vec![(a, 1), (a, 2), (a, 3)], vec![(b, 1), (b, 2)]));
    Ok(())
}

pub async fn a_message_is_taken_with_the_members_at_its_seq(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob, eve] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    fill(&one, id, ada, 2).await?;
    assert_eq!(remove(&one, id, ada, bob).await?, Seq(4));
    fill(&one, id, ada, 1).await?;
    assert_eq!(add(&one, id, ada, eve).await?, Seq(6));
    fill(&one, id, ada, 1).await?;
    expire(&one).await?;
    let taken = two.take_expired(Uuid::now_v7(), 100).await?;
    let there: Vec<_> = taken.iter().map(|taken| [ada, bob, eve].map(|user| taken.members.contains(user))).collect();
    let (with_bob, alone, with_eve) = ([true, true, false], [true, false, false], [true, false, true]);
    assert_eq!(there, [with_bob, with_bob, with_bob, alone, alone, with_eve, with_eve]);
    assert!(Arc::ptr_eq(&taken[0].members, &taken[2].members) && Arc::ptr_eq(&taken[5].members, &taken[6].members));
    Ok(())
}

pub async fn the_fifth_attempt_is_the_last(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let me = Uuid::now_v7();
    for attempt in 2..=MAX_ATTEMPTS {
        expire(&one).await?;
        let attempts: Vec<_> = two.take_expired(me, 10).await?.iter().map(|taken| taken.attempts).collect();
        assert_eq!(attempts, [attempt]);
    }
    expire(&one).await?;
    fill(&one, id, ada, 1).await?;
    expire(&one).await?;
    assert_eq!(places(&two.take_expired(me, 10).await?), [(id, 2)], "the dead letter blocks nobody");
    let dead = &outbox(&one).await?[0];
    assert_eq!((dead.claim_until, dead.attempts, dead.owner), (DEAD, 5, NOBODY));
    assert_eq!(two.renew_claims(me).await?, 1, "nobody brings it back");
    assert_eq!(two.release_all(&[me]).await?, 1);
    assert_eq!(places(&two.take_expired(me, 10).await?), [(id, 2)]);
    assert_eq!(one.outbox_counts().await?, OutboxCounts { waiting: 1, expired: 0, dead: 1, oldest_expired_ms: 0 });
    Ok(())
}

pub async fn what_is_let_go_is_taken_at_once_and_nobody_elses(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let [mine, other, taker] = [(); 3].map(|()| Uuid::now_v7());
    let send = |owner| {
        let batch = vec![message(id, ada, "x"), message(id, ada, "y")];
        let one = one.clone();
        async move { one.append(batch, owner, &MemberCache::default(), WhenLocked::Wait).await }
    };
    send(mine).await?;
    send(other).await?;
    one.release(&[(id, Seq(2)), (id, Seq(4)), (id, Seq(99))], mine).await?;
    assert_eq!(one.renew_claims(mine).await?, 1, "a renewal does not bring it back");
    assert_eq!(places(&two.take_expired(taker, 10).await?), [(id, 2)]);
    one.release(&[(id, Seq(2))], mine).await?;
    assert_eq!(places(&two.take_expired(taker, 10).await?), [], "it is not mine any more");
    assert_eq!(one.release_all(&[]).await?, 0);
    assert_eq!(one.release_all(&[mine, other, Uuid::now_v7()]).await?, 3);
    assert_eq!(places(&two.take_expired(taker, 10).await?), [(id, 3), (id, 4), (id, 5)]);
    Ok(())
}

pub async fn two_processes_take_each_row_once(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let (a, b) = (channel(&one, ada, &[]).await?, channel(&one, ada, &[]).await?);
    for id in [a, b] {
        fill(&one, id, ada, 299).await?;
    }
    expire(&one).await?;
    let takers = (0..8).map(|n| if n % 2 == 0 { one.clone() } else { two.clone() });
    let taken = at_once(takers.map(|storage| async move {
        let (me, mut mine) = (Uuid::now_v7(), Vec::new());
        // A taker may find every row locked by another one: whoever leaves, the locker has them.
        loop {
            let some = storage.take_expired(me, 50).await?;
            if some.is_empty() {
                return Ok(mine);
            }
            mine.extend(places(&some));
        }
    }));
    let taken: Vec<_> = taken.await?.into_iter().flatten().collect();
    assert_eq!((taken.len(), taken.iter().collect::<BTreeSet<_>>().len()), (600, 600));
    Ok(())
}

pub async fn a_row_without_its_message_holds_nobody_up(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let ghost = |channel_id, seq| entity::outbox::ActiveModel {
        channel_id: Set(channel_id),
        seq: Set(Seq(seq)),
        owner: Set(NOBODY),
        claim_until: Set(1),
        attempts: Set(1),
        no_push: Set(false),
    };
    let ghosts = [ghost(id, 77), ghost(ChannelId::new(), 1)];
    entity::outbox::Entity::insert_many(ghosts).exec_without_returning(&one.writer).await?;
    let me = Uuid::now_v7();
    for _ in 2..=MAX_ATTEMPTS {
        expire(&one).await?;
        assert_eq!(places(&two.take_expired(me, 10).await?), [(id, 1)]);
        assert_eq!(two.renew_claims(me).await?, 1, "what cannot be worked on is not kept");
        two.release_all(&[me]).await?;
        one.finish(&[(id, Seq(1))]).await?;
        one.append(vec![message(id, ada, "x")], me, &MemberCache::default(), WhenLocked::Wait).await?;
        let sent =
            Query::update().table(entity::outbox::Entity).value(Column::Seq, 1).and_where(Column::Owner.eq(me)).take();
        one.writer.execute(&sent).await?;
    }
    expire(&one).await?;
    two.take_expired(me, 10).await?;
    assert_eq!(one.outbox_counts().await?.dead, 2);
    Ok(())
}

pub async fn renewing_and_finishing_never_wait_crosswise(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let me = Uuid::now_v7();
    let batch: Vec<_> = (0..1_000).map(|_| message(id, ada, "x")).collect();
    one.append(batch, me, &MemberCache::default(), WhenLocked::Wait).await?;
    let finishing = async {
        for high in (1..=1_001).rev().step_by(100) {
            let some: Vec<_> = (high - 99..=high).rev().map(|seq| (id, Seq(seq))).collect();
            one.finish(&some).await?;
        }
        Ok::<(), crate::StorageError>(())
    };
    let renewing = async {
        for _ in 0..20 {
            two.renew_claims(me).await?;
        }
        Ok::<(), crate::StorageError>(())
    };
    tokio::try_join!(finishing, renewing)?;
    Ok(())
}

pub async fn the_outbox_is_counted(one: Storage, two: Storage) -> Result<()> {
    assert_eq!(two.outbox_counts().await?, OutboxCounts::default());
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    fill(&one, id, ada, 4).await?;
    assert_eq!(two.outbox_counts().await?, OutboxCounts { waiting: 5, ..OutboxCounts::default() });
    let row = |seq: i64, claim_until: i64| {
        let update = entity::outbox::Entity::update_many().col_expr(Column::ClaimUntil, Expr::value(claim_until));
        update.filter(Column::Seq.eq(Seq(seq))).exec(&one.writer)
    };
    row(1, DEAD).await?;
    row(2, database_time(&one).await? - 60_000).await?;
    row(3, database_time(&one).await? - 1_000).await?;
    let counts = two.outbox_counts().await?;
    assert_eq!((counts.waiting, counts.expired, counts.dead), (4, 2, 1));
    assert!((60_000..120_000).contains(&counts.oldest_expired_ms), "{counts:?}");
    Ok(())
}

pub async fn an_operator_lists_retries_and_drops(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let mut ids = [channel(&one, ada, &[bob]).await?, channel(&one, ada, &[bob]).await?];
    ids.sort();
    let [a, b] = ids;
    fill(&one, a, ada, 2).await?;
    let die = entity::outbox::Entity::update_many().col_expr(Column::ClaimUntil, Expr::value(DEAD));
    let die = die.col_expr(Column::Attempts, Expr::value(5)).filter(Column::ChannelId.eq(a));
    die.filter(Column::Seq.ne(Seq(3))).exec(&one.writer).await?;
    let listed = |letters: Vec<crate::Letter>| -> Vec<_> {
        letters.iter().map(|letter| (letter.channel_id, letter.seq.0, letter.is_dead)).collect()
    };
    let all = two.letters(false, None, 50).await?;
    assert_eq!((all[2].sender_id, all[2].kind, all[2].attempts), (Some(ada), Some(Kind::Text), 1));
    assert!(all[0].claim_ms.is_none() && all[2].claim_ms.is_some_and(|ms| (0..=5_000).contains(&ms)));
    assert_eq!(listed(all), [(a, 1, true), (a, 2, true), (a, 3, false), (b, 1, false)]);
    assert_eq!(listed(two.letters(true, None, 50).await?), [(a, 1, true), (a, 2, true)]);
    assert_eq!(listed(two.letters(false, Some((a, Seq(2))), 1).await?), [(a, 3, false)]);
    assert_eq!(listed(two.letters(true, Some((a, Seq(1))), 9).await?), [(a, 2, true)]);

    assert_eq!(two.retry(&[(a, Seq(2)), (a, Seq(3)), (b, Seq(9))]).await?, 1, "only what is dead");
    let taken = one.take_expired(Uuid::now_v7(), 10).await?;
    assert_eq!((places(&taken), taken[0].attempts), (vec![(a, 2)], 1));
    assert_eq!(two.retry_all_dead().await?, 1);
    assert_eq!(places(&one.take_expired(Uuid::now_v7(), 10).await?), [(a, 1)]);
    assert_eq!(two.drop_letters(&[(a, Seq(1)), (a, Seq(3)), (b, Seq(9))]).await?, 2);
    assert_eq!(listed(two.letters(false, None, 50).await?), [(a, 2, false), (b, 1, false)]);
    Ok(())
}
