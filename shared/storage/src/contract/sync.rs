use super::{add, append, channel, fill, log, message, remove, seqs, user, users};
use crate::{Cursor, Storage, SyncedChannel, error::Result};
use touchline_ids::{ChannelId, Check, Seq, UserId};

fn cursor(channel_id: ChannelId, seq: i64) -> Cursor {
    Cursor { channel_id, seq: Seq(seq), check: None }
}

fn told(channel: &SyncedChannel) -> (ChannelId, i64, Vec<i64>, bool, bool) {
    (channel.channel_id, channel.head_seq.0, seqs(&channel.entries), channel.more, channel.reset)
}

pub async fn a_device_gets_exactly_what_it_missed(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let (a, b, c) =
        (channel(&one, ada, &[bob]).await?, channel(&one, ada, &[bob]).await?, channel(&one, ada, &[bob]).await?);
    let (left, hers, none) = (channel(&one, ada, &[bob]).await?, channel(&one, ada, &[]).await?, ChannelId::new());
    for id in [a, b, c, left, hers] {
        fill(&one, id, ada, 4).await?;
    }
    remove(&one, left, ada, bob).await?;
    let cursors = [cursor(b, 2), cursor(left, 3), cursor(a, 5), cursor(hers, 1), cursor(none, 1)];
    let synced = two.sync(bob, &cursors, 2).await?;
    let all: Vec<_> = synced.channels.iter().map(told).collect();
    assert_eq!(all, [(b, 5, vec![3, 4, 5], false, false), (c, 5, vec![4, 5], false, true)]);
    assert_eq!(synced.channels[0].entries, log(&one, b).await?[2..]);
    assert_eq!(synced.gone, [left, hers, none]);

    let synced = two.sync(bob, &[cursor(a, 5), cursor(b, 5), cursor(c, 5)], 20).await?;
    assert_eq!((synced.channels, synced.gone), (vec![], vec![]));
    assert_eq!(two.sync(UserId::new(), &[], 20).await?.channels, []);
    Ok(())
}

pub async fn a_right_cursor_is_an_ack_once(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let (a, b) = (channel(&one, ada, &[bob]).await?, channel(&one, ada, &[bob]).await?);
    fill(&one, a, ada, 4).await?;
    let right = log(&one, a).await?[3].message_id.check();
    let with_check = |seq, check| Cursor { check: Some(check), ..cursor(a, seq) };
    let acked = async |cursors: &[Cursor]| Ok::<_, crate::StorageError>(two.sync(bob, cursors, 1).await?.acked);
    assert_eq!(acked(&[with_check(4, right), cursor(b, 1)]).await?, [(a, Seq(4)), (b, Seq(1))]);
    assert_eq!(acked(&[with_check(4, Check(right.0 ^ 1)), cursor(b, 2), cursor(ChannelId::new(), 1)]).await?, []);
    assert_eq!(acked(&[cursor(a, 0)]).await?, []);
    one.delivered(&[(bob, a, Seq(4))]).await?;
    assert_eq!(acked(&[with_check(4, right)]).await?, []);
    assert_eq!(acked(&[cursor(a, 5)]).await?, [(a, Seq(5))]);
    Ok(())
}

pub async fn an_answer_is_limited_and_says_that_there_is_more(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let mut ids = Vec::new();
    for _ in 0..7 {
        let id = channel(&one, ada, &[]).await?;
        fill(&one, id, ada, 209).await?;
        ids.push(id);
    }
    let mut cursors: Vec<_> = ids[..6].iter().map(|&id| cursor(id, 0)).collect();
    let synced = two.sync(ada, &cursors, 50).await?;
    let counts: Vec<_> = synced.channels.iter().map(|c| (c.entries.len(), c.more, c.reset)).collect();
    let mut expected = vec![(200, true, false); 5];
    expected.extend([(0, true, false), (0, false, true)]);
    assert_eq!(counts, expected);

    // Whoever asks on until nothing is left has everything, once and in order.
    cursors.push(cursor(ids[6], 0));
    let mut held = vec![Vec::new(); 7];
    loop {
        let synced = two.sync(ada, &cursors, 0).await?;
        if synced.channels.is_empty() {
            break;
        }
        assert!(synced.channels.iter().map(|channel| channel.entries.len()).sum::<usize>() <= 1_000);
        for channel in synced.channels {
            let n = ids.iter().position(|id| *id == channel.channel_id).expect("one of mine");
            held[n].extend(channel.entries);
            let last = held[n].last();
            cursors[n].seq = last.map_or(Seq(0), |entry| entry.seq);
            cursors[n].check = last.map(|entry| entry.message_id.check());
        }
    }
    for (id, held) in ids.iter().zip(held) {
        assert_eq!(held, log(&one, *id).await?);
    }
    Ok(())
}

pub async fn an_answer_of_long_entries_ends_early_and_says_so(one: Storage, two: Storage) -> Result<()> {
    const MEBIBYTE: usize = 1024 * 1024;
    let ada = user(&one).await?;
    let (a, b) = (channel(&one, ada, &[]).await?, channel(&one, ada, &[]).await?);
    for id in [a, b] {
        append(&one, (0..40).map(|_| message(id, ada, &"x".repeat(40_000))).collect()).await?;
    }
    let (mut held, mut answers) = ([vec![], vec![]], 0);
    let mut cursors = [cursor(a, 0), cursor(b, 0)];
    loop {
        let synced = two.sync(ada, &cursors, 0).await?;
        if synced.channels.is_empty() {
            break;
        }
        answers += 1;
        let bytes: usize = synced.channels.iter().flat_map(|c| &c.entries).map(|entry| entry.content.len()).sum();
        assert!((1..=MEBIBYTE).contains(&bytes), "{bytes}");
        for channel in synced.channels {
            let n = usize::from(channel.channel_id == b);
            held[n].extend(channel.entries);
            let end = held[n].last().map_or(Seq(0), |entry: &crate::Entry| entry.seq);
            assert_eq!((channel.more, channel.reset), (end.0 < 41, false));
            cursors[n].seq = end;
        }
    }
    assert_eq!(answers, 4);
    assert_eq!(held, [log(&one, a).await?, log(&one, b).await?]);

    // Not named: the first channel begins with what there is room for and goes on, the second begins at its end.
    let synced = two.sync(ada, &[], 40).await?;
    let counts: Vec<_> = synced.channels.iter().map(|c| (c.entries.len(), c.more, c.reset)).collect();
    assert_eq!(counts, [(26, true, true), (0, false, true)]);
    assert_eq!(synced.channels[0].entries[0].seq, Seq(2));
    Ok(())
}

pub async fn a_wrong_check_resets_and_a_right_one_does_not(one: Storage, _: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    fill(&one, id, ada, 9).await?;
    let log = log(&one, id).await?;
    let right = |seq: i64| Cursor { check: Some(log[seq as usize - 1].message_id.check()), ..cursor(id, seq) };
    let wrong = |seq: i64| Cursor { check: right(seq).check.map(|check| Check(check.0 ^ 1)), ..cursor(id, seq) };
    assert_eq!(one.sync(ada, &[right(10)], 3).await?.channels, []);
    assert_eq!(told(&one.sync(ada, &[right(7)], 3).await?.channels[0]), (id, 10, vec![8, 9, 10], false, false));
    // At the end as well: a log that lost its tail may have grown back to the same length.
    for seq in [10, 7, 1] {
        assert_eq!(told(&one.sync(ada, &[wrong(seq)], 2).await?.channels[0]), (id, 10, vec![9, 10], false, true));
    }
    // Before the first entry there is nothing to check.
    let start = Cursor { check: Some(Check(7)), ..cursor(id, 0) };
    assert_eq!(one.sync(ada, &[start], 2).await?.channels[0].entries.len(), 10);
    Ok(())
}

pub async fn a_cursor_outside_the_log_resets(one: Storage, _: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    fill(&one, id, ada, 4).await?;
    let joined = add(&one, id, ada, bob).await?.0;
    append(&one, vec![message(id, ada, "hello bob")]).await?;
    assert_eq!(joined, 6);
    for seq in [i64::MIN, -1, 0, 4, 8, i64::MAX] {
        let check = Some(Check(1));
        let synced = one.sync(bob, &[Cursor { check, ..cursor(id, seq) }], 20).await?;
        assert_eq!(told(&synced.channels[0]), (id, 7, vec![6, 7], false, true), "{seq}");
    }
    let synced = one.sync(bob, &[cursor(id, 5)], 20).await?;
    assert_eq!(told(&synced.channels[0]), (id, 7, vec![6, 7], false, false));
    let synced = one.sync(bob, &[], 0).await?;
    assert_eq!(told(&synced.channels[0]), (id, 7, vec![], false, true));
    Ok(())
}

pub async fn many_cursors_fit_in_one_sync(one: Storage, _: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let mut batch = Vec::new();
    let mut cursors = Vec::new();
    for _ in 0..450 {
        let id = channel(&one, ada, &[]).await?;
        batch.extend([message(id, ada, "x"), message(id, ada, "y")]);
        cursors.push((id, 2));
    }
    let checks: Vec<_> = batch.iter().step_by(2).map(|message| message.message_id.check()).collect();
    append(&one, batch).await?;
    let cursors: Vec<_> = cursors
        .into_iter()
        .zip(checks)
        .map(|((id, seq), check)| Cursor { check: Some(check), ..cursor(id, seq) })
        .collect();
    let synced = one.sync(ada, &cursors, 20).await?;
    assert_eq!(synced.channels.len(), 450);
    for (channel, cursor) in synced.channels.iter().zip(&cursors) {
        assert_eq!(told(channel), (cursor.channel_id, 3, vec![3], false, false));
    }
    Ok(())
}
