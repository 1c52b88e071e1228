//! Who was to be notified, who was, and who was although a device of theirs was there.

use anyhow::Result;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use touchline_harness::Curtain;
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_mesh::Shutdown;

/// Between two looks at the table of notifications.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A notification is due 3 + 2 s after its message; so much more is waited for the machine.
pub(crate) const IN_TIME: Duration = Duration::from_secs(15);

/// Watches the notifications of a stack from beginning to end.
pub(crate) struct Notices {
    curtain: Curtain,
    seen: Arc<Mutex<HashSet<(UserId, ChannelId, Seq)>>>,
    life: Shutdown,
}

/// Who of those who were to be notified was.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Notified {
    pub(crate) yes: usize,
    pub(crate) no: usize,
    /// How long it took until the last one was.
    pub(crate) after: Duration,
}

impl Notices {
    pub(crate) fn watch(curtain: Curtain) -> Self {
        let (seen, life) = (Arc::default(), Shutdown::new());
        life.spawn(look(curtain.clone(), Arc::clone(&seen)));
        Self { curtain, seen, life }
    }

    /// Waits until each of `users` has a notification for what others have sent until now to the channels they are in.
    ///
    /// # Errors
    /// When the database is away.
    pub(crate) async fn reach(&self, users: &BTreeMap<UserId, Vec<ChannelId>>) -> Result<Notified> {
        let began = Instant::now();
        let due = self.due(users).await?;
        loop {
            let rows = self.curtain.notifications().await?;
            let have: BTreeMap<_, _> = rows.into_iter().map(|(user, channel, seq)| ((user, channel), seq)).collect();
            let yes = due.iter().filter(|(pair, seq)| have.get(pair).is_some_and(|have| have >= seq)).count();
            let (no, after) = (due.len() - yes, began.elapsed());
            if no == 0 || after > IN_TIME {
                return Ok(Notified { yes, no, after });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Up to where each of `users` is to be notified of what others have sent until now.
    ///
    /// # Errors
    /// When the database is away.
    pub(crate) async fn due(
        &self,
        users: &BTreeMap<UserId, Vec<ChannelId>>,
    ) -> Result<BTreeMap<(UserId, ChannelId), Seq>> {
        let newest = self.curtain.newest().await?;
        let mut due = BTreeMap::new();
        for (user, channels) in users {
            for (channel, sender, seq) in &newest {
                // Nobody is notified of what they said themselves.
                if channels.contains(channel) && sender != user {
                    let up_to = due.entry((*user, *channel)).or_insert(*seq);
                    *up_to = (*up_to).max(*seq);
                }
            }
        }
        Ok(due)
    }

    /// Notifications that were ever due for these users, each seq by itself, as far as a look met them.
    pub(crate) fn ever(&self, users: &BTreeSet<UserId>) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(user, ..)| users.contains(user)).count()
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

async fn look(curtain: Curtain, seen: Arc<Mutex<HashSet<(UserId, ChannelId, Seq)>>>) {
    loop {
        // The database may be the one that is broken.
        if let Ok(rows) = curtain.notifications().await {
            seen.lock().unwrap_or_else(PoisonError::into_inner).extend(rows);
        }
        sleep(LOOK_EVERY).await;
    }
}
