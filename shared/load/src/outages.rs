//! Times in which steady devices had lost their sockets, as the load notices them by itself: nobody tells it what is
//! done to the servers.

use crate::{board::Board, report::Outages, running::LOOK_EVERY};
use std::sync::{Mutex, PoisonError};
use tokio::time::sleep;

/// What was noticed so far.
#[derive(Debug, Default)]
pub(crate) struct Noticed(Mutex<Outages>);

impl Noticed {
    pub(crate) fn so_far(&self) -> Outages {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, seconds: f64) {
        let mut outages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outages.count += 1;
        outages.longest_s = outages.longest_s.max(seconds);
    }
}

/// Watches until it is no longer polled. An outage lasts from the first lost socket until every steady device is
/// connected again and has what had been accepted by then.
pub(crate) async fn watch(board: &Board) {
    loop {
        sleep(LOOK_EVERY).await;
        if board.steady().all(|seat| seat.is_online()) {
            continue;
        }
        let (began, mut heads) = (board.clock.now(), board.heads());
        while board.lagging(&heads) > 0 {
            sleep(LOOK_EVERY).await;
            if board.steady().any(|seat| !seat.is_online()) {
                heads = board.heads();
            }
        }
        board.outages.add(board.clock.now().saturating_sub(began) as f64 / 1e6);
    }
}
