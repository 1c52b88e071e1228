//! Leaving in order: every session is told when to go, evenly over a window, so that the other gateways are not
//! stormed. Each session keeps its own time and closes itself (1012) when its client does not obey.

use crate::{
    close_codes::{Close, CloseCode},
    config::{Times, ms},
    gateway::Gateway,
    queue::Order,
};
use rand::seq::SliceRandom as _;
use std::time::Duration;
use tokio::time::timeout;

/// How long the sessions of a fenced gateway have to leave: pushes go to the incarnation that holds the lease now, so
/// until they are gone they hear nothing.
const FENCED: Duration = Duration::from_secs(3);

/// Tells every session to leave and waits until they have.
pub(crate) async fn drain(gateway: &Gateway) {
    gateway.readiness.drain();
    let fenced = gateway.readiness.fenced.is_cancelled();
    if !fenced {
        // Who is asked to leave asks an api where to go: by then none must name this gateway.
        let head_start = ms(gateway.config.times.drain_head_start_ms);
        let _ = timeout(head_start, gateway.hub.empty()).await;
    }
    let mut members = gateway.hub.members();
    // Users who came together do not go together.
    members.shuffle(&mut rand::rng());
    let window = window(members.len(), &gateway.config.times, fenced);
    tracing::info!(sessions = members.len(), window_ms = window.as_secs_f64() * 1_000.0, "draining");
    for (member, after) in members.iter().zip(spread(members.len(), window)) {
        member.queue.order(Order::Leave(after));
    }
    drop(members);
    // A session closes itself at its own time; these are for those that stand in a blocked write, and newcomers that
    // slipped in.
    let closed = ms(gateway.config.times.close_ms);
    if timeout(window + gateway.rules.leave_grace + closed, gateway.hub.empty()).await.is_err() {
        for member in gateway.hub.members() {
            member.queue.order(Order::Close(Close::new(CloseCode::Restart, "this gateway is going away")));
        }
        if timeout(closed, gateway.hub.empty()).await.is_err() {
            tracing::warn!(sessions = gateway.hub.sessions(), "sessions are left behind");
        }
    }
}

/// How long `sessions` have to leave.
fn window(sessions: usize, times: &Times, fenced: bool) -> Duration {
    let needed = Duration::from_secs(sessions as u64) / times.drain_sessions_per_second;
    let most = ms(times.drain_ms);
    needed.min(if fenced { most.min(FENCED) } else { most })
}

/// When each of `sessions` leaves: evenly, the last at the end of the window.
fn spread(sessions: usize, window: Duration) -> impl Iterator<Item = Duration> {
    (1..=sessions).map(move |turn| window.mul_f64(turn as f64 / sessions as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_number_of_sessions_up_to_its_limit() {
        let times = Times::default();
        assert_eq!(window(0, &times, false), Duration::ZERO);
        assert_eq!(window(1_000, &times, false), Duration::from_secs(5));
        assert_eq!(window(18_000, &times, false), Duration::from_secs(60));
    }

    #[test]
    fn sessions_that_hear_nothing_leave_within_the_six_seconds_of_the_contract() {
        let grace = Duration::from_secs(2);
        assert!(window(18_000, &Times::default(), true) + grace < Duration::from_secs(6));
        assert_eq!(window(1, &Times::default(), true), Duration::from_millis(5));
    }

    #[test]
    fn sessions_leave_evenly_over_the_window() {
        let window = Duration::from_secs(10);
        let times: Vec<_> = spread(1_000, window).collect();
        assert!(times.is_sorted());
        assert_eq!(times.last(), Some(&window));
        for second in 0..10 {
            let (from, to) = (Duration::from_secs(second), Duration::from_secs(second + 1));
            let leaving = times.iter().filter(|time| (from..to).contains(*time)).count();
            assert!((99..=101).contains(&leaving), "{leaving} in second {second}");
        }
        assert_eq!(spread(0, window).count(), 0);
    }
}
