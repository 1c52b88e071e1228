//! What this api says of the outbox rows it works on: under which names it claims them, and which it lets go.
//!
//! A commit without an answer may have left rows that nobody here works on. Renewing them with all the others would
//! keep them from every other api for as long as this one lives. So the name is changed after such a commit, and the
//! old one is renewed only for as long as the fan-outs that it began rightly can last.
//!
//! Whoever works on a message holds its [`Claim`]. One that is dropped before its message is settled (a panic, a
//! refusal of the database, a hand-over) is let go, for any api to take.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use touchline_ids::{ChannelId, Seq};
use uuid::Uuid;

/// Longer than a fan-out takes: two waits for results and the second look between them.
const FAN_OUT_LIFE: Duration = Duration::from_secs(30);

/// Former names that are still renewed. Of one that is forgotten earlier the rows are taken over, as if it had died:
/// what is shown twice for it every device drops.
const FORMER: usize = 64;

/// This api's present name as an owner of outbox rows, and the former ones; and the rows it lets go.
pub struct Claims {
    owners: Mutex<Owners>,
    /// At most as many as there are messages under way.
    let_go: Mutex<Vec<(ChannelId, Seq)>>,
    some_let_go: Notify,
}

/// The names, without I/O.
pub struct Owners {
    present: Uuid,
    /// With the time from which each is no longer renewed.
    former: Vec<(Uuid, Instant)>,
}

/// One message's outbox row, in the hands of whoever works on it.
pub struct Claim {
    claims: Arc<Claims>,
    row: (ChannelId, Seq),
    settled: bool,
}

impl Default for Claims {
    fn default() -> Self {
        Self { owners: Mutex::new(Owners::new(Uuid::now_v7())), let_go: Mutex::default(), some_let_go: Notify::new() }
    }
}

impl Owners {
    /// With this name at first.
    pub fn new(first: Uuid) -> Self {
        Self { present: first, former: Vec::new() }
    }

    /// The owner of rows to be written or taken.
    pub fn present(&self) -> Uuid {
        self.present
    }

    /// Rows may have been written or taken that nobody works on: the next ones get this owner.
    pub fn doubt(&mut self, next: Uuid, now: Instant) {
        let former = std::mem::replace(&mut self.present, next);
        if self.former.len() == FORMER {
            self.former.remove(0);
        }
        self.former.push((former, now + FAN_OUT_LIFE));
    }

    /// Every owner whose claims are to be renewed.
    pub fn all(&mut self, now: Instant) -> Vec<Uuid> {
        self.former.retain(|(_, until)| now < *until);
        self.former.iter().map(|(owner, _)| *owner).chain([self.present]).collect()
    }
}

impl Claims {
    /// The owner of rows to be written or taken.
    pub fn owner(&self) -> Uuid {
        lock(&self.owners).present()
    }

    /// Rows may have been written or taken that nobody works on: the next ones get another owner.
    pub fn doubt(&self) {
        lock(&self.owners).doubt(Uuid::now_v7(), Instant::now());
    }

    /// Every owner whose claims are to be renewed.
    pub fn owners(&self) -> Vec<Uuid> {
        lock(&self.owners).all(Instant::now())
    }

    /// The claim on a row that one of the owners has.
    pub fn hold(self: &Arc<Self>, row: (ChannelId, Seq)) -> Claim {
        Claim { claims: Arc::clone(self), row, settled: false }
    }

    /// Waits for rows to let go, and takes them.
    pub async fn let_go(&self) -> Vec<(ChannelId, Seq)> {
        loop {
            let some = std::mem::take(&mut *lock(&self.let_go));
            if !some.is_empty() {
                return some;
            }
            self.some_let_go.notified().await;
        }
    }
}

impl Claim {
    /// Which row.
    pub fn row(&self) -> (ChannelId, Seq) {
        self.row
    }

    /// The message is finished and its row gone.
    pub fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.settled {
            lock(&self.claims.let_go).push(self.row);
            self.claims.some_let_go.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rows_of_a_commit_in_doubt_are_let_go_and_the_others_are_kept_until_they_are_done() {
        let claims = Claims::default();
        let before = claims.owner();
        assert_eq!(claims.owners(), [before]);
        claims.doubt();
        let after = claims.owner();
        assert_ne!(before, after);
        assert_eq!(claims.owners(), [before, after]);
        tokio::time::advance(FAN_OUT_LIFE).await;
        assert_eq!(claims.owners(), [after]);
    }

    #[test]
    fn of_many_former_names_the_oldest_is_given_up() {
        let (names, now) = (Vec::from_iter((0..=2 * FORMER).map(|_| Uuid::now_v7())), Instant::now());
        let mut owners = Owners::new(names[0]);
        names[1..].iter().for_each(|name| owners.doubt(*name, now));
        assert_eq!(owners.all(now), names[FORMER..]);
    }

    #[tokio::test]
    async fn what_nobody_works_on_any_more_is_let_go_and_what_is_settled_is_not() {
        let claims = Arc::<Claims>::default();
        let channel = ChannelId::new();
        let [one, two, three] = [1, 2, 3].map(|seq| claims.hold((channel, Seq(seq))));
        two.settle();
        drop(one);
        let waits = claims.let_go().await;
        assert_eq!(waits, [(channel, Seq(1))]);
        let panics = std::panic::AssertUnwindSafe(move || {
            let _claim = three;
            panic!("as a bug would");
        });
        std::panic::catch_unwind(panics).unwrap_err();
        assert_eq!(claims.let_go().await, [(channel, Seq(3))]);
    }
}
