use super::{add, append, at_once, change, channel, fill, log, message, remove, seqs, user, users};
use crate::{Action, Cursor, Storage, Synced, error::Result, recent::Recent};
use std::sync::Arc;
use touchline_ids::{ChannelId, Check, Seq, UserId};

/// The same database through a storage that remembers at most so many bytes.
fn remembering(storage: &Storage, bytes: usize) -> Storage {
    Storage { recent: Arc::new(Recent::new(bytes)), ..storage.clone() }
}

/// Pseudo-random numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// Some channels and people, and what happened to them so far.
struct Scene {
    people: Vec<UserId>,
    channels: Vec<ChannelId>,
    /// What each of two processes remembers; the second one remembers little.
    remembering: [Storage; 2],
    forgetful: Storage,
    dice: Dice,
}

impl Scene {
    async fn step(&mut self) -> Result<()> {
        let storage = self.remembering[self.dice.below(2) as usize].clone();
        let (owner, id) = (self.people[0], self.dice.of(&self.channels));
        let somebody = self.dice.of(&self.people[1..]);
        match self.dice.below(10) {
            0 => drop(change(&storage, id, owner, Action::Remove(somebody)).await?),
            1 | 2 => {
                let users = vec![somebody];
                drop(change(&storage, id, owner, Action::Add { users, role: crate::Role::Member }).await?);
            }
            3 => drop(storage.history(owner, id, None, None, 1 + self.dice.below(50) as u32).await?),
            _ => {
                let count = 1 + self.dice.below(40);
                let length = self.dice.of(&[1, 1, 1, 5_000, 40_000]);
                let batch = (0..count).map(|_| message(id, owner, &"x".repeat(length))).collect();
                append(&storage, batch).await?;
            }
        }
        Ok(())
    }

    /// Somebody's cursors: right ones, wrong ones, some without a check, some of channels they are not in.
    async fn cursors(&mut self) -> Result<Vec<Cursor>> {
        let mut cursors = Vec::new();
        for &channel_id in &self.channels {
            let log = log(&self.forgetful, channel_id).await?;
            let back = self.dice.of(&[0, 0, 1, 5, 30, 300]);
            let seq = Seq((log.len() as i64 - self.dice.below(back + 1) as i64 - 1).max(0) + self.dice.below(2) as i64);
            let check =
                usize::try_from(seq.0 - 1).ok().and_then(|at| log.get(at)).map(|entry| entry.message_id.check());
            let check = match self.dice.below(8) {
                0 => None,
                1 => check.map(|check| Check(check.0 ^ 1)),
                _ => check,
            };
            if self.dice.below(6) > 0 {
                cursors.push(Cursor { channel_id, seq, check });
            }
        }
        Ok(cursors)
    }
}

pub async fn what_is_remembered_answers_as_the_database_does(one: Storage, two: Storage) -> Result<()> {
    for seed in 0..12 {
        let mut scene = Scene {
            people: users::<3>(&one).await?.to_vec(),
            channels: Vec::new(),
            remembering: [remembering(&one, 64_000_000), remembering(&two, 300_000)],
            forgetful: remembering(&one, 0),
            dice: Dice(seed),
        };
        for _ in 0..3 {
            scene.channels.push(channel(&one, scene.people[0], &scene.people[1..]).await?);
        }
        for step in 0..40 {
            scene.step().await?;
            let (user, recent) = (scene.dice.of(&scene.people), scene.dice.below(51) as u32);
            let cursors = scene.cursors().await?;
            let expected = scene.forgetful.sync(user, &cursors, recent).await?;
            for storage in &scene.remembering {
                let answer = storage.sync(user, &cursors, recent).await?;
                assert_eq!(shape(&answer), shape(&expected), "seed {seed}, step {step}: {cursors:?}");
                assert!(answer == expected, "seed {seed}, step {step}");
            }
        }
    }
    Ok(())
}

/// An answer's channels as one can read them: head, entries, more, reset.
fn shape(synced: &Synced) -> Vec<(i64, Vec<i64>, bool, bool)> {
    synced.channels.iter().map(|c| (c.head_seq.0, seqs(&c.entries), c.more, c.reset)).collect()
}

pub async fn a_storm_of_devices_reads_twice_each_and_once_when_it_is_remembered(
    one: Storage,
    _: Storage,
) -> Result<()> {
    const DEVICES: usize = 500;
    let owner = user(&one).await?;
    let mut people = Vec::new();
    for _ in 0..DEVICES {
        people.push(user(&one).await?);
    }
    let mut ids = Vec::new();
    for _ in 0..4 {
        let id = channel(&one, owner, &people).await?;
        fill(&one, id, owner, 60).await?;
        ids.push(id);
    }
    let mut cursors = Vec::new();
    for &channel_id in &ids {
        let log = log(&one, channel_id).await?;
        cursors.push(Cursor { channel_id, seq: Seq(41), check: Some(log[40].message_id.check()) });
    }
    let storm = async |storage: &Storage| -> Result<u64> {
        let before = storage.reads();
        let devices = people.iter().map(|&user| {
            let (storage, cursors) = (storage.clone(), cursors.clone());
            async move { storage.sync(user, &cursors, 20).await }
        });
        for synced in at_once(devices).await? {
            assert!(synced.channels.iter().all(|channel| seqs(&channel.entries) == (42..=61).collect::<Vec<_>>()));
            assert_eq!(synced.channels.len(), 4);
        }
        Ok(storage.reads() - before)
    };
    let none = storm(&remembering(&one, 0)).await?;
    let starting = remembering(&one, 64_000_000);
    let cold = storm(&starting).await?;
    let warm = storm(&starting).await?;
    println!(
        "{DEVICES} devices, database reads each: {} without memory, {} at first, {} then",
        per(none),
        per(cold),
        per(warm)
    );
    assert!(none <= 2 * DEVICES as u64 && cold <= none);
    assert_eq!(warm, DEVICES as u64);
    // What this process committed itself is remembered from the start.
    append(&starting, ids.iter().map(|&id| message(id, owner, "new")).collect()).await?;
    let before = starting.reads();
    let synced = starting.sync(people[0], &cursors, 20).await?;
    assert!(synced.channels.iter().all(|channel| channel.entries.len() == 21));
    assert_eq!(starting.reads() - before, 1);
    Ok(())
}

fn per(reads: u64) -> f64 {
    reads as f64 / 500.0
}

pub async fn nobody_is_served_from_memory_what_is_not_theirs(one: Storage, _: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    let id = channel(&one, ada, &[bob]).await?;
    fill(&one, id, ada, 5).await?;
    assert_eq!(one.sync(ada, &[], 50).await?.channels[0].entries.len(), 6);
    let left = remove(&one, id, ada, bob).await?;
    fill(&one, id, ada, 5).await?;
    let cursor = |seq: i64| Cursor { channel_id: id, seq: Seq(seq), check: None };
    let synced = one.sync(bob, &[cursor(2)], 50).await?;
    assert_eq!((synced.channels.len(), synced.gone), (0, vec![id]));
    let joined = add(&one, id, ada, bob).await?;
    assert_eq!((left, joined), (Seq(7), Seq(13)));
    for cursors in [vec![], vec![cursor(2)], vec![cursor(12)], vec![cursor(i64::MAX)]] {
        let synced = one.sync(bob, &cursors, 50).await?;
        assert_eq!(seqs(&synced.channels[0].entries), [13]);
    }
    Ok(())
}
