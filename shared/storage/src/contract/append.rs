use super::{add, append, at_once, channel, log, message, outbox, remove, seqs, user, users};
use crate::{
    Action, Appended, Changed, ChannelChange, Entry, MemberCache, NewMessage, Role, Storage, StorageError, WhenLocked,
    error::Result,
};
use sea_orm::DbBackend;
use std::collections::{BTreeSet, HashMap};
use touchline_ids::{ChannelId, MessageId, Seq, UserId};
use uuid::Uuid;

fn entry(appended: &Appended) -> &Entry {
    match appended {
        Appended::Stored { entry, .. } => entry,
        other => panic!("not stored: {other:?}"),
    }
}

pub async fn seqs_are_dense_in_the_order_of_the_batch(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let (a, b) = (channel(&one, ada, &[bob]).await?, channel(&one, bob, &[ada]).await?);
    let mut batch: Vec<_> =
        [(a, ada), (b, bob), (a, bob), (a, ada), (b, ada)].map(|(id, who)| message(id, who, "Grüße \u{1f600}")).into();
    batch[1].no_push = true;
    let answers = append(&one, batch.clone()).await?;
    let places: Vec<_> = answers.iter().map(entry).map(|entry| (entry.channel_id, entry.seq.0)).collect();
    assert_eq!(places, [(a, 2), (b, 2), (a, 3), (a, 4), (b, 3)]);
    for (message, answer) in batch.iter().zip(&answers) {
        let Appended::Stored { entry, members, no_push } = answer else { panic!() };
        assert_eq!(
            (entry.message_id, entry.sender_id, entry.kind.as_str()),
            (message.message_id, message.sender_id, "text")
        );
        assert_eq!((&entry.content, entry.created_at_ms), (&message.content, message.created_at_ms));
        assert_eq!((&members.users, *no_push), (&vec![ada, bob], message.no_push));
    }
    let of_a: Vec<_> = answers.iter().map(entry).filter(|entry| entry.channel_id == a).cloned().collect();
    assert_eq!(log(&two, a).await?[1..], of_a);
    assert_eq!(two.channel_for(ada, a).await?.map(|view| view.last_seq), Some(Seq(4)));
    let quiet: Vec<_> = outbox(&two).await?.into_iter().filter(|due| due.no_push).collect();
    assert_eq!((quiet.len(), quiet[0].channel_id, quiet[0].seq), (1, b, Seq(2)));
    Ok(())
}

pub async fn every_entry_says_which_one_it_follows(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let (a, b) = (channel(&one, ada, &[]).await?, channel(&one, ada, &[]).await?);
    append(&one, vec![message(a, ada, "x"), message(b, ada, "x"), message(a, ada, "y")]).await?;
    let joined = add(&two, a, ada, bob).await?;
    // One retry, one new: the retried entry is in the middle of the log, not its end.
    let again = message(a, bob, "z");
    append(&two, vec![again.clone(), message(b, ada, "z")]).await?;
    append(&one, vec![message(a, ada, "x"), again, message(a, bob, "y")]).await?;
    assert_eq!(joined.0, 4);
    for (id, length) in [(a, 7), (b, 3)] {
        let log = log(&one, id).await?;
        let follows: Vec<_> = log.iter().map(|entry| entry.prev).collect();
        let mut checks: Vec<_> = log.iter().map(|entry| Some(entry.message_id.check())).collect();
        checks.insert(0, None);
        assert_eq!((log.len(), &follows[..]), (length, &checks[..length]));
        let page = two.history(ada, id, None, None, 10).await?.expect("she is in it");
        assert_eq!(page.entries, log);
    }
    Ok(())
}

pub async fn two_processes_give_dense_seqs_and_agree(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let ids = [channel(&one, ada, &[]).await?, channel(&one, ada, &[]).await?, channel(&one, ada, &[]).await?];
    // Each writer names the channels in another order: whoever locked in the order of the batch would dead-lock.
    let writers = [one.clone(), two.clone(), one.clone(), two.clone()].into_iter().enumerate();
    let tasks = writers.map(|(writer, storage)| async move {
        let cache = MemberCache::default();
        let mut answers = Vec::new();
        for round in 0..15 {
            let batch: Vec<_> = (0..9).map(|n| message(ids[(n + writer + round) % 3], ada, "x")).collect();
            answers.extend(storage.append(batch, Uuid::nil(), &cache, WhenLocked::Wait).await?);
        }
        Ok(answers)
    });
    let answers: Vec<Entry> =
        at_once(tasks).await?.into_iter().flatten().map(|answer| entry(&answer).clone()).collect();
    assert_eq!(answers.len(), 4 * 15 * 9);
    for id in ids {
        let stored = log(&two, id).await?;
        assert_eq!(seqs(&stored), (1..=181).collect::<Vec<_>>());
        let mut told: Vec<_> = answers.iter().filter(|entry| entry.channel_id == id).cloned().collect();
        told.sort_by_key(|entry| entry.seq);
        assert_eq!(stored[1..], told);
        assert_eq!(one.channel_for(ada, id).await?.map(|view| view.last_seq), Some(Seq(181)));
    }
    let due: BTreeSet<_> = outbox(&one).await?.into_iter().map(|due| (due.channel_id, due.seq)).collect();
    let expected: BTreeSet<_> = ids.iter().flat_map(|&id| (1..=181).map(move |seq| (id, Seq(seq)))).collect();
    assert_eq!(due, expected);
    Ok(())
}

pub async fn ten_concurrent_retries_make_one_row(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let message = message(id, ada, "once");
    let tasks = [one.clone(), two].into_iter().cycle().take(10).map(|storage| {
        // A retry is another request: the api draws a new message id and a later time.
        let retry = NewMessage { message_id: MessageId::new(), ..message.clone() };
        async move { append(&storage, vec![retry]).await }
    });
    let answers: Vec<_> = at_once(tasks).await?.into_iter().flatten().collect();
    let stored = log(&one, id).await?;
    assert_eq!(seqs(&stored), [1, 2]);
    let first = &stored[1];
    let duplicate = Appended::Duplicate { seq: first.seq, message_id: first.message_id, created_at_ms: 3 };
    assert_eq!(answers.iter().filter(|answer| **answer == duplicate).count(), 9);
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Appended::Stored { .. })).count(), 1);
    assert_eq!(outbox(&one).await?.len(), 2);
    Ok(())
}

pub async fn a_duplicate_gets_the_first_answer(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let first = message(id, ada, "once");
    let again = NewMessage { message_id: MessageId::new(), created_at_ms: 99, ..first.clone() };
    let answers = append(&one, vec![first.clone(), again.clone(), message(id, ada, "other"), again.clone()]).await?;
    let duplicate = Appended::Duplicate { seq: Seq(2), message_id: first.message_id, created_at_ms: 3 };
    assert_eq!(entry(&answers[0]).seq, Seq(2));
    assert_eq!(answers[1], duplicate);
    assert_eq!(entry(&answers[2]).seq, Seq(3));
    assert_eq!(answers[3], duplicate);
    assert_eq!(append(&two, vec![again]).await?, [duplicate]);
    assert_eq!(seqs(&log(&one, id).await?), [1, 2, 3]);
    Ok(())
}

pub async fn another_body_under_the_same_key_is_a_conflict(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let first = message(id, ada, "this");
    let other = NewMessage { client_message_id: first.client_message_id.clone(), ..message(id, ada, "that other") };
    let answers = append(&one, vec![first.clone(), other.clone()]).await?;
    assert_eq!(answers[1], Appended::Conflict);
    assert_eq!(append(&two, vec![other]).await?, [Appended::Conflict]);
    assert_eq!(seqs(&log(&one, id).await?), [1, 2]);
    Ok(())
}

pub async fn a_key_belongs_to_one_sender_in_one_channel(one: Storage, _: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let (a, b) = (channel(&one, ada, &[bob]).await?, channel(&one, ada, &[bob]).await?);
    let named = |id, who| NewMessage { client_message_id: "1".parse().expect("a name"), ..message(id, who, "x") };
    let answers = append(&one, vec![named(a, ada), named(a, bob), named(b, ada), named(b, bob)]).await?;
    assert_eq!(answers.iter().map(|answer| entry(answer).seq.0).collect::<Vec<_>>(), [2, 3, 2, 3]);
    let answers = append(&one, vec![named(a, ada), named(b, bob)]).await?;
    assert!(answers.iter().all(|answer| matches!(answer, Appended::Duplicate { .. })));
    Ok(())
}

pub async fn strangers_store_nothing(one: Storage, _: Storage) -> Result<()> {
    let [ada, eve] = users(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let batch = vec![
        message(id, eve, "x"),
        message(id, ada, "y"),
        message(ChannelId::new(), ada, "z"),
        message(id, UserId::new(), "x"),
    ];
    let answers = append(&one, batch).await?;
    assert_eq!(entry(&answers[1]).seq, Seq(2));
    for n in [0, 2, 3] {
        assert_eq!(answers[n], Appended::NotAMember);
    }
    assert_eq!(log(&one, id).await?.len(), 2);
    assert_eq!(append(&one, vec![message(id, eve, "x")]).await?, [Appended::NotAMember]);
    assert_eq!(append(&one, vec![]).await?, []);
    assert_eq!(outbox(&one).await?.len(), 2);
    Ok(())
}

pub async fn a_retry_after_leaving_still_gets_the_first_answer(one: Storage, _: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    let sent = message(id, bob, "bye");
    append(&one, vec![sent.clone()]).await?;
    remove(&one, id, bob, bob).await?;
    let answers = append(&one, vec![sent.clone(), message(id, bob, "more")]).await?;
    let duplicate = Appended::Duplicate { seq: Seq(2), message_id: sent.message_id, created_at_ms: 3 };
    assert_eq!(answers, [duplicate, Appended::NotAMember]);
    Ok(())
}

pub async fn a_cached_membership_is_never_stale(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob, eve] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    let cache = MemberCache::default();
    let members = async |sender| -> Result<Option<Vec<UserId>>> {
        let mut answers = one.append(vec![message(id, sender, "x")], Uuid::nil(), &cache, WhenLocked::Wait).await?;
        Ok(match answers.remove(0) {
            Appended::Stored { members, .. } => Some(members.users.clone()),
            _ => None,
        })
    };
    assert_eq!(members(ada).await?, Some(vec![ada, bob]));
    add(&two, id, ada, eve).await?;
    assert_eq!(members(eve).await?, Some(vec![ada, bob, eve]));
    remove(&two, id, ada, bob).await?;
    assert_eq!(members(bob).await?, None);
    assert_eq!(members(ada).await?, Some(vec![ada, eve]));
    Ok(())
}

pub async fn a_batch_may_be_larger_than_a_statement(one: Storage, _: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let mut ids = Vec::new();
    for _ in 0..230 {
        ids.push(channel(&one, ada, &[]).await?);
    }
    let batch: Vec<_> = (0..3_200).map(|n| message(ids[n % ids.len()], ada, "x")).collect();
    let answers = append(&one, batch.clone()).await?;
    let mut ends: HashMap<ChannelId, i64> = HashMap::new();
    for answer in &answers {
        let end = ends.entry(entry(answer).channel_id).or_insert(1);
        *end += 1;
        assert_eq!(entry(answer).seq.0, *end);
    }
    for view in one.channels_of(ada, None, 1_000).await? {
        assert_eq!(view.last_seq.0, ends[&view.id]);
    }
    let again = append(&one, batch).await?;
    assert!(again.iter().all(|answer| matches!(answer, Appended::Duplicate { .. })));
    Ok(())
}

pub async fn a_held_lock_makes_a_send_unavailable_not_endless(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let holder = one.begin().await?;
    crate::log::lock(&holder, &BTreeSet::from([id]), WhenLocked::Wait).await?;
    let answer = append(&two, vec![message(id, ada, "x")]).await;
    assert!(matches!(answer, Err(StorageError::Unavailable(_))), "{answer:?}");
    holder.rollback().await?;
    assert_eq!(entry(&append(&two, vec![message(id, ada, "x")]).await?[0]).seq, Seq(2));
    Ok(())
}

pub async fn a_locked_channel_is_passed_over_and_the_others_are_stored(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let (locked, free) = (channel(&one, ada, &[]).await?, channel(&one, ada, &[]).await?);
    let cache = MemberCache::default();
    let batch = || vec![message(locked, ada, "x"), message(free, ada, "y"), message(ChannelId::new(), ada, "z")];
    let holder = one.begin().await?;
    crate::log::lock(&holder, &BTreeSet::from([locked]), WhenLocked::Wait).await?;
    if two.writer.get_database_backend() == DbBackend::Postgres {
        let answers = two.append(batch(), Uuid::nil(), &cache, WhenLocked::PassOver).await?;
        assert_eq!((&answers[0], &answers[2]), (&Appended::Locked, &Appended::NotAMember));
        assert_eq!(entry(&answers[1]).seq, Seq(2));
        let add = ChannelChange {
            channel_id: locked,
            actor: ada,
            action: Action::Add { users: vec![bob], role: Role::Member },
            message_id: MessageId::new(),
            created_at_ms: 1,
        };
        let changed = two.change_channel(add, Uuid::nil(), &cache, 10, WhenLocked::PassOver).await?;
        assert_eq!(changed, Changed::Locked);
    }
    holder.rollback().await?;
    let answers = two.append(batch(), Uuid::nil(), &cache, WhenLocked::PassOver).await?;
    assert_eq!(entry(&answers[0]).seq, Seq(2));
    Ok(())
}
