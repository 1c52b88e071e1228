//! The names under which this api claims outbox rows.
//!
//! A commit without an answer may have left rows that nobody here works on. Renewing them with all the others would
//! keep them from every other api for as long as this one lives. So the name is changed after such a commit, and the
//! old one is renewed only for as long as the fan-outs that it began rightly can last.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// Longer than a fan-out takes: two waits for results and the second look between them.
const FAN_OUT_LIFE: Duration = Duration::from_secs(30);

/// This api's present name as an owner of outbox rows, and the former ones.
pub struct Claims {
    names: Mutex<Names>,
}

struct Names {
    present: Uuid,
    /// With the time from which each is no longer renewed.
    former: Vec<(Uuid, Instant)>,
}

impl Default for Claims {
    fn default() -> Self {
        Self { names: Mutex::new(Names { present: Uuid::now_v7(), former: Vec::new() }) }
    }
}

impl Claims {
    /// The owner of rows to be written.
    pub fn owner(&self) -> Uuid {
        self.lock().present
    }

    /// Rows may have been written that nobody works on: the next ones get another owner.
    pub fn doubt(&self) {
        let mut names = self.lock();
        let former = std::mem::replace(&mut names.present, Uuid::now_v7());
        names.former.push((former, Instant::now() + FAN_OUT_LIFE));
    }

    /// Every owner whose claims are to be renewed.
    pub fn owners(&self) -> Vec<Uuid> {
        let mut names = self.lock();
        let now = Instant::now();
        names.former.retain(|(_, until)| now < *until);
        names.former.iter().map(|(owner, _)| *owner).chain([names.present]).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
}
