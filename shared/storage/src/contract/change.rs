use super::{
    add, append, at_once, change, channel, fill, log, message, open_intervals, outbox, remove, seqs, stored, users,
};
use crate::{Action, Appended, Changed, Cursor, Kind, Role, Storage, error::Result};
use serde_json::json;
use tokio::task::JoinSet;
use touchline_ids::{Seq, UserId};

pub async fn a_new_member_sees_from_the_joined_entry_on(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    fill(&one, id, ada, 3).await?;
    let action = Action::Add { users: vec![bob, ada, bob], role: Role::Member };
    let Changed::Stored { entry, members } = change(&one, id, ada, action).await? else { panic!() };
    assert_eq!((entry.seq, entry.kind, entry.sender_id), (Seq(5), Kind::Joined, ada));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&entry.content).ok(), Some(json!({ "user_ids": [bob] })));
    assert_eq!(members.users, [ada, bob]);
    fill(&one, id, bob, 2).await?;

    let view = two.channel_for(bob, id).await?.expect("bob is in it");
    assert_eq!((view.joined_seq, view.read_seq, view.last_seq), (Seq(5), Seq(4), Seq(7)));
    let history = two.history(bob, id, Some(Seq(0)), None, 100).await?.expect("bob is in it");
    assert_eq!(seqs(&history.entries), [5, 6, 7]);
    let history = two.history(ada, id, Some(Seq(0)), None, 100).await?.expect("ada is in it");
    assert_eq!(seqs(&history.entries), [1, 2, 3, 4, 5, 6, 7]);
    Ok(())
}

pub async fn a_removed_member_sees_nothing_more(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    fill(&one, id, ada, 3).await?;
    let Changed::Stored { entry, members } = change(&one, id, ada, Action::Remove(bob)).await? else { panic!() };
    assert_eq!((entry.seq, entry.kind), (Seq(5), Kind::Left));
    assert_eq!(members.users, [ada]);
    fill(&one, id, ada, 3).await?;

    assert_eq!(two.history(bob, id, None, None, 100).await?, None);
    assert_eq!(two.channels_of(bob, None, 100).await?, []);
    for seq in [0, 3, 4, 5, 8] {
        let synced = two.sync(bob, &[Cursor { channel_id: id, seq: Seq(seq), check: None }], 20).await?;
        assert_eq!((synced.channels, synced.gone), (vec![], vec![id]));
    }
    Ok(())
}

pub async fn coming_back_is_a_new_interval(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    for _ in 0..2 {
        let left = remove(&one, id, bob, bob).await?;
        fill(&one, id, ada, 2).await?;
        let joined = add(&one, id, ada, bob).await?;
        assert_eq!(joined.0, left.0 + 3);
        assert_eq!(open_intervals(&one, id, bob).await?, 1);
        fill(&one, id, bob, 1).await?;

        let history = two.history(bob, id, Some(Seq(0)), None, 100).await?.expect("bob is in it");
        assert_eq!(seqs(&history.entries), [joined.0, joined.0 + 1]);
        // From where bob's device stood when he left, it may not go on: there is a hole.
        let cursor = Cursor { channel_id: id, seq: Seq(left.0 - 1), check: None };
        let synced = two.sync(bob, &[cursor], 20).await?;
        assert!(synced.channels[0].reset);
        assert_eq!(seqs(&synced.channels[0].entries), [joined.0, joined.0 + 1]);
    }
    Ok(())
}

pub async fn who_is_removed_sends_nothing_after_it(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    for _ in 0..25 {
        let other = two.clone();
        let mut kick = JoinSet::new();
        kick.spawn(async move { remove(&other, id, ada, bob).await });
        let mut sent = Vec::new();
        loop {
            match append(&one, vec![message(id, bob, "still here")]).await?.remove(0) {
                Appended::Stored { entry, .. } => sent.push(entry.seq),
                other => break assert_eq!(other, Appended::NotAMember),
            }
        }
        let left = kick.join_all().await.remove(0)?;
        assert!(sent.iter().all(|seq| *seq < left), "{sent:?} {left}");
        add(&two, id, ada, bob).await?;
    }
    let log = log(&one, id).await?;
    assert_eq!(seqs(&log), (1..=log.len() as i64).collect::<Vec<_>>());
    Ok(())
}

pub async fn two_processes_add_a_user_once(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let tasks = [one.clone(), two].into_iter().cycle().take(6).map(|storage| async move {
        change(&storage, id, ada, Action::Add { users: vec![bob], role: Role::Member }).await
    });
    let answers = at_once(tasks).await?;
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Changed::Stored { .. })).count(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == Changed::Unchanged).count(), 5);
    assert_eq!(open_intervals(&one, id, bob).await?, 1);
    assert_eq!(log(&one, id).await?.len(), 2);
    Ok(())
}

pub async fn every_refusal_leaves_the_log_alone(one: Storage, _: Storage) -> Result<()> {
    let [ada, bob, eve] = users(&one).await?;
    let many = users::<8>(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    let mut nobody = vec![UserId::new(), UserId::new()];
    nobody.sort();
    let add = |users: &[UserId], role| Action::Add { users: users.to_vec(), role };
    let set = |user, role| Action::SetRole { user, role };
    let with_nobody = [&nobody[..], &[eve]].concat();
    let cases = [
        (bob, Action::Rename("x".to_owned()), Changed::Forbidden),
        (bob, add(&[eve], Role::Member), Changed::Forbidden),
        (bob, Action::Remove(ada), Changed::Forbidden),
        (bob, set(bob, Role::Owner), Changed::Forbidden),
        (ada, add(&[eve], Role::Owner), Changed::Forbidden),
        (ada, add(&with_nobody, Role::Member), Changed::UnknownUsers(nobody)),
        (ada, add(&[[eve].as_slice(), &many].concat(), Role::Member), Changed::ChannelFull),
        (ada, add(&[ada, bob], Role::Member), Changed::Unchanged),
        (ada, add(&[], Role::Member), Changed::Unchanged),
        (ada, Action::Rename("talk".to_owned()), Changed::Unchanged),
        (ada, set(bob, Role::Member), Changed::Unchanged),
        (ada, Action::Remove(eve), Changed::NoSuchMember),
        (ada, set(eve, Role::Admin), Changed::NoSuchMember),
        (ada, Action::Remove(ada), Changed::OwnerMustHandOver),
        (ada, set(ada, Role::Member), Changed::OwnerMustHandOver),
    ];
    for (actor, action, expected) in cases {
        assert_eq!(change(&one, id, actor, action.clone()).await?, expected, "{action:?}");
    }
    assert_eq!(log(&one, id).await?.len(), 1);
    assert_eq!(outbox(&one).await?.len(), 1);
    // Eight more make ten: that is full, not too full.
    stored(change(&one, id, ada, add(&many, Role::Member)).await?);
    Ok(())
}

pub async fn ownership_is_handed_over(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    stored(change(&one, id, ada, Action::SetRole { user: bob, role: Role::Owner }).await?);
    let role = async |user| -> Result<Option<Role>> { Ok(two.channel_for(user, id).await?.map(|view| view.role)) };
    assert_eq!((role(ada).await?, role(bob).await?), (Some(Role::Admin), Some(Role::Owner)));
    assert_eq!(change(&one, id, ada, Action::Remove(bob)).await?, Changed::Forbidden);
    remove(&one, id, ada, ada).await?;
    Ok(())
}

pub async fn the_last_one_out_is_fine(one: Storage, _: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    remove(&one, id, bob, bob).await?;
    let Changed::Stored { entry, members } = change(&one, id, ada, Action::Remove(ada)).await? else { panic!() };
    assert_eq!((entry.seq, members.users.len()), (Seq(3), 0));
    assert_eq!(one.channel_for(ada, id).await?, None);
    assert_eq!(append(&one, vec![message(id, ada, "x")]).await?, [Appended::NotAMember]);
    Ok(())
}

pub async fn every_change_is_told_in_the_log(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    let add = Action::Add { users: vec![bob], role: Role::Admin };
    for action in
        [Action::Rename("Neu".to_owned()), add, Action::SetRole { user: bob, role: Role::Member }, Action::Remove(bob)]
    {
        stored(change(&one, id, ada, action).await?);
    }
    let told: Vec<_> = log(&two, id)
        .await?
        .into_iter()
        .map(|entry| (entry.kind.as_str(), serde_json::from_str(&entry.content).unwrap_or_default()))
        .collect();
    let expected: [(_, serde_json::Value); 5] = [
        ("created", json!({ "name": "talk", "user_ids": [ada] })),
        ("renamed", json!({ "name": "Neu" })),
        ("joined", json!({ "user_ids": [bob] })),
        ("role_changed", json!({ "user_id": bob, "role": "member" })),
        ("left", json!({ "user_id": bob })),
    ];
    assert_eq!(told, expected);
    assert_eq!(
        two.channel_for(ada, id).await?.map(|view| (view.name, view.last_seq)),
        Some(("Neu".to_owned(), Seq(5)))
    );
    assert_eq!(outbox(&two).await?.len(), 5);
    Ok(())
}
