use super::{add, append, at_once, change, channel, fill, log, message, outbox, remove, user, users};
use crate::{Action, Appended, Changed, CreateChannel, Kind, MarkRead, NewChannel, Role, Storage, error::Result};
use touchline_ids::{ChannelId, MessageId, Seq, UserId};
use uuid::Uuid;

pub async fn a_new_channel_has_its_members_and_its_first_entry(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob, eve] = users(&one).await?;
    let api = Uuid::now_v7();
    let new = NewChannel {
        id: ChannelId::new(),
        name: "Ärger & \"Freude\"".to_owned(),
        owner: ada,
        member_ids: vec![bob, bob, ada],
        message_id: MessageId::new(),
        created_at_ms: 1_700_000_000_123,
    };
    let (id, message_id) = (new.id, new.message_id);
    let CreateChannel::Created { view, entry, members } = one.create_channel(new, api).await? else { panic!() };

    assert_eq!(members.users, [ada, bob]);
    assert_eq!((view.role, view.last_seq, view.read_seq, view.joined_seq), (Role::Owner, Seq(1), Seq(0), Seq(1)));
    assert_eq!(two.channel_for(ada, id).await?, Some(view.clone()));
    let of_bob = two.channel_for(bob, id).await?.expect("bob is in it");
    assert_eq!((of_bob.role, of_bob.name.as_str()), (Role::Member, "Ärger & \"Freude\""));
    assert_eq!(two.channel_for(eve, id).await?, None);

    assert_eq!((entry.kind, entry.seq, entry.message_id, entry.sender_id), (Kind::Created, Seq(1), message_id, ada));
    let content: serde_json::Value = serde_json::from_str(&entry.content).expect("JSON");
    assert_eq!(content, serde_json::json!({ "name": "Ärger & \"Freude\"", "user_ids": [ada, bob] }));
    assert_eq!(log(&two, id).await?, [entry]);
    let due = outbox(&two).await?;
    assert_eq!((due.len(), due[0].channel_id, due[0].seq, due[0].owner), (1, id, Seq(1), api));
    Ok(())
}

pub async fn nobody_cannot_be_a_member(one: Storage, _: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let mut nobody = [UserId::new(), UserId::new()];
    nobody.sort();
    let new = NewChannel {
        id: ChannelId::new(),
        name: "talk".to_owned(),
        owner: ada,
        member_ids: vec![nobody[1], bob, nobody[0]],
        message_id: MessageId::new(),
        created_at_ms: 0,
    };
    let id = new.id;
    assert_eq!(one.create_channel(new, Uuid::nil()).await?, CreateChannel::UnknownUsers(nobody.to_vec()));
    assert_eq!(one.channel_for(ada, id).await?, None);
    assert!(log(&one, id).await?.is_empty());
    Ok(())
}

pub async fn channels_are_listed_in_pages(one: Storage, _: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let mut mine = Vec::new();
    for _ in 0..5 {
        mine.push(channel(&one, ada, &[bob]).await?);
        channel(&one, bob, &[]).await?;
    }
    mine.sort();
    let page = async |after, limit| -> Result<Vec<ChannelId>> {
        Ok(one.channels_of(ada, after, limit).await?.into_iter().map(|view| view.id).collect())
    };
    assert_eq!(page(None, 2).await?, mine[..2]);
    assert_eq!(page(Some(mine[1]), 2).await?, mine[2..4]);
    assert_eq!(page(Some(mine[3]), 2).await?, mine[4..]);
    assert_eq!(page(Some(mine[4]), 2).await?, []);
    remove(&one, mine[2], ada, bob).await?;
    let of_bob = one.channels_of(bob, None, 100).await?;
    assert_eq!(of_bob.len(), 9);
    assert!(of_bob.iter().all(|view| view.id != mine[2]));
    Ok(())
}

pub async fn members_are_listed_in_pages(one: Storage, _: Storage) -> Result<()> {
    let [ada, bob, eve, dan] = users(&one).await?;
    let id = channel(&one, ada, &[bob, eve]).await?;
    let page = async |asker, after, limit| -> Result<Option<Vec<(UserId, Role)>>> {
        let members = one.members_of(asker, id, after, limit).await?;
        Ok(members.map(|members| members.into_iter().map(|member| (member.user_id, member.role)).collect()))
    };
    let mut all = vec![(ada, Role::Owner), (bob, Role::Member), (eve, Role::Member)];
    all.sort_by_key(|member| member.0);
    assert_eq!(page(bob, None, 10).await?, Some(all.clone()));
    assert_eq!(page(bob, None, 2).await?, Some(all[..2].to_vec()));
    assert_eq!(page(bob, Some(all[1].0), 2).await?, Some(all[2..].to_vec()));
    assert_eq!(page(bob, Some(all[2].0), 2).await?, Some(vec![]));
    assert_eq!(page(dan, None, 10).await?, None);
    remove(&one, id, ada, bob).await?;
    all.retain(|member| member.0 != bob);
    assert_eq!(page(ada, None, 10).await?, Some(all));
    assert_eq!(page(bob, None, 10).await?, None);
    Ok(())
}

pub async fn no_channel_and_somebody_elses_look_alike(one: Storage, _: Storage) -> Result<()> {
    let [ada, eve, gone] = users(&one).await?;
    let hers = channel(&one, ada, &[gone]).await?;
    remove(&one, hers, ada, gone).await?;
    let none = ChannelId::new();
    for (who, id) in [(eve, hers), (eve, none), (gone, hers)] {
        assert_eq!(one.channel_for(who, id).await?, None);
        assert_eq!(one.members_of(who, id, None, 10).await?, None);
        assert_eq!(one.members_of(who, id, Some(UserId(Uuid::max())), 10).await?, None);
        assert_eq!(one.history(who, id, None, None, 10).await?, None);
        assert_eq!(one.history(who, id, Some(Seq(i64::MAX)), None, 10).await?, None);
        assert_eq!(one.mark_read(who, id, Seq(1)).await?, MarkRead::NotAMember);
        assert_eq!(one.mark_read(who, id, Seq(i64::MAX)).await?, MarkRead::NotAMember);
        assert_eq!(append(&one, vec![message(id, who, "x")]).await?, [Appended::NotAMember]);
        for action in [
            Action::Rename("x".to_owned()),
            Action::Add { users: vec![who], role: Role::Member },
            Action::Remove(ada),
            Action::Remove(who),
            Action::SetRole { user: ada, role: Role::Member },
        ] {
            assert_eq!(change(&one, id, who, action).await?, Changed::NotAMember);
        }
        let synced = one.sync(who, &[crate::Cursor { channel_id: id, seq: Seq(0), check: None }], 20).await?;
        assert_eq!((synced.gone, synced.channels), (vec![id], vec![]));
    }
    assert_eq!(log(&one, hers).await?.len(), 2);
    Ok(())
}

pub async fn a_read_mark_only_rises(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[]).await?;
    fill(&one, id, ada, 9).await?;
    let read = |seq| MarkRead::Read { read_seq: Seq(seq), last_seq: Seq(10) };
    assert_eq!(one.mark_read(ada, id, Seq(4)).await?, read(4));
    assert_eq!(two.mark_read(ada, id, Seq(2)).await?, read(4));
    assert_eq!(two.mark_read(ada, id, Seq(-5)).await?, read(4));
    assert_eq!(two.mark_read(ada, id, Seq(11)).await?, MarkRead::BeyondEnd { last_seq: Seq(10) });
    let storages = [one.clone(), two].into_iter().cycle();
    let tasks = [7, 5, 10, 6, 8, 9].into_iter().zip(storages);
    let tasks = tasks.map(|(seq, storage)| async move { storage.mark_read(ada, id, Seq(seq)).await });
    at_once(tasks).await?;
    assert_eq!(one.channel_for(ada, id).await?.map(|view| view.read_seq), Some(Seq(10)));

    // A new member has read nothing of what they see.
    let joined = add(&one, id, ada, bob).await?;
    assert_eq!(one.channel_for(bob, id).await?.map(|view| view.read_seq), Some(Seq(joined.0 - 1)));
    remove(&one, id, ada, bob).await?;
    assert_eq!(one.mark_read(bob, id, joined).await?, MarkRead::NotAMember);
    user(&one).await?;
    Ok(())
}
