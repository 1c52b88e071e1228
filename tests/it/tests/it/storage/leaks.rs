//! Who is removed gets nothing of what comes after, by any path, however the removal races with sends.

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use rand::Rng as _;
use std::{collections::BTreeSet, ops::Range};
use touchline_client::{ClientError, Cursor, Message};
use touchline_harness::{Device, Person, Stack, eventually};
use touchline_ids::{ChannelId, Seq};

/// Members who are removed, each in a channel of their own, each so often.
const VICTIMS: usize = 20;
const ROUNDS: usize = 50;

/// Somebody who is removed again and again.
struct Victim {
    person: Person,
    /// Every second one has none, and is notified.
    device: Option<Device>,
    channel: ChannelId,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_removals_that_race_with_sends_leak_nothing() -> Result<()> {
    let stack = Stack::processes(2, 2).unlimited().start().await?;
    let owner = stack.sign_up("owner").await?;
    let mut victims = Vec::new();
    for (index, person) in stack.crowd(VICTIMS).await?.into_iter().enumerate() {
        let channel = stack.channel(&[&owner]).await?;
        let device = if index % 2 == 0 { Some(person.device("phone").await?) } else { None };
        victims.push(Victim { person, device, channel });
    }
    let told = try_join_all(victims.iter().map(|victim| victim.suffer(&owner))).await?;
    eventually("every fan-out has ended", async || Ok(stack.storage().outbox_counts().await?.waiting == 0)).await?;

    let (mut frames, mut answered, mut notified, mut leaks) = (0, 0, 0, 0);
    for (victim, told) in victims.iter().zip(told) {
        let theirs = victim.intervals(&owner).await?;
        ensure!(theirs.len() == ROUNDS, "{} removals", theirs.len());
        let may_see = |seq: Seq| theirs.iter().any(|interval| interval.contains(&seq.0));
        let pushed: Vec<_> = victim.device.iter().flat_map(Device::messages).map(|message| message.seq).collect();
        let rows = stack.storage().pending_notifications(victim.channel).await?;
        let rows: Vec<_> = rows.into_iter().filter(|row| row.0 == victim.person.id).map(|row| row.1).collect();
        frames += pushed.len();
        answered += told.len();
        notified += rows.len();
        leaks += pushed.into_iter().chain(told).chain(rows).filter(|seq| !may_see(*seq)).count();
    }
    println!(
        "{} removals racing with sends: {frames} frames, {answered} synced or read, {notified} notified, leaks {leaks}",
        VICTIMS * ROUNDS
    );
    assert_eq!(leaks, 0);
    assert!(frames > 0 && answered > 0 && notified > 0);
    stack.stop().await
}

impl Victim {
    /// Is added, removed while somebody sends, and looks what it can get; answers with what that was.
    async fn suffer(&self, owner: &Person) -> Result<BTreeSet<Seq>> {
        let mut told = BTreeSet::new();
        for _ in 0..ROUNDS {
            let (here, there, looks) = {
                let mut dice = rand::rng();
                (dice.random_range(0..2), dice.random_range(0..2), dice.random_range(0..2))
            };
            owner.client_at(here).add_members(self.channel, &[self.person.id]).await?;
            owner.send_at(there, self.channel, "for everybody").await?;
            let removal = async { Ok(owner.client_at(here).remove_member(self.channel, self.person.id).await?) };
            let sends = async {
                for _ in 0..3 {
                    owner.send_at(there, self.channel, "in between").await?;
                }
                Ok::<_, anyhow::Error>(())
            };
            let ((), (), seen) = tokio::try_join!(removal, sends, self.look(looks))?;
            told.extend(seen);
            told.extend(self.look(1 - looks).await?);
        }
        Ok(told)
    }

    /// What sync and history say now.
    async fn look(&self, api: usize) -> Result<Vec<Seq>> {
        let client = self.person.client_at(api);
        let start = Cursor { channel_id: self.channel, seq: Seq(0), check: None };
        let synced = client.sync(&[start], Some(50)).await?;
        let mut seqs: Vec<_> =
            synced.channels.iter().flat_map(|channel| &channel.messages).map(|message| message.seq).collect();
        match client.history(self.channel, None, None, Some(200)).await {
            Ok(history) => seqs.extend(history.messages.iter().map(|message| message.seq)),
            Err(error) if error.status() == Some(404) => {}
            Err(error) => return Err(ClientError::into(error)),
        }
        Ok(seqs)
    }

    /// When this member was in the channel, as the channel's log tells it.
    async fn intervals(&self, owner: &Person) -> Result<Vec<Range<i64>>> {
        let mut log: Vec<Message> = Vec::new();
        loop {
            let after = log.last().map_or(Seq(0), |message| message.seq);
            let page = owner.client().history(self.channel, Some(after), None, Some(200)).await?;
            log.extend(page.messages);
            if !page.more {
                break;
            }
        }
        let (mut intervals, mut joined) = (Vec::new(), None);
        for message in log {
            match message.kind.as_str() {
                "joined" => joined = Some(message.seq.0),
                "left" => intervals.push(joined.take().context("joined before")?..message.seq.0),
                _ => {}
            }
        }
        Ok(intervals)
    }
}
