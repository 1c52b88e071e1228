//! When to send nothing at all, without I/O: time and outcomes in, decisions out.
//!
//! It opens at once when sending cannot succeed before an operator mends something, and after failures in a row when
//! the push service is down. While it is open one push at a time is a probe: its success closes it. Unlike
//! [`touchline_mesh::Breaker`] it counts failures in a row: of thousands of pushes a second some always fail.

use std::{fmt, time::Duration};
use tokio::time::Instant;
use touchline_storage::Platform;

/// So many failures in a row, with no success between them, open it…
const FAILURES: u32 = 10;
/// …if they took at least this long: a connection that breaks under many pushes is one event, not many.
const LASTING: Duration = Duration::from_millis(500);
/// When the next probe is due if the push service is down and does not say when to come back…
const PROBE_WHEN_DOWN: Duration = Duration::from_secs(10);
/// …and if an operator has to mend something.
const PROBE_WHEN_REFUSED: Duration = Duration::from_secs(60);
/// A probe that has not come back after this long is as good as lost.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);
/// Nobody can ask us to stay away for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// Why it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The push service refuses fresh access tokens.
    Credentials,
    /// The service account may not send.
    Permission,
    /// The push service's own key for this platform is wrong.
    PlatformKey(Platform),
    /// The push service does not answer, or answers that it failed.
    Failures,
}

impl Cause {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Credentials,
        Self::Permission,
        Self::PlatformKey(Platform::Android),
        Self::PlatformKey(Platform::Ios),
        Self::PlatformKey(Platform::Web),
        Self::Failures,
    ];

    /// For metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Permission => "permission",
            Self::PlatformKey(Platform::Android) => "key_android",
            Self::PlatformKey(Platform::Ios) => "key_ios",
            Self::PlatformKey(Platform::Web) => "key_web",
            Self::Failures => "failures",
        }
    }

    /// What an operator has to do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Credentials => {
                "check that notifier.fcm.service_account_file is a key of the project that the devices registered with, \
                 and that this machine's clock is right"
            }
            Self::Permission => {
                "give the service account the permission cloudmessaging.messages.create (role Firebase Cloud Messaging \
                 API Admin) and enable the Firebase Cloud Messaging API in the project"
            }
            Self::PlatformKey(_) => {
                "replace the key in the Firebase console: Project settings, Cloud Messaging (APNs key for Apple, Web \
                 Push certificate for browsers)"
            }
            Self::Failures => "nothing, if the push service is down; otherwise check the network and the endpoint",
        }
    }

    fn probe_every(self) -> Duration {
        if self == Self::Failures { PROBE_WHEN_DOWN } else { PROBE_WHEN_REFUSED }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Credentials => "the push service refuses our credentials",
            Self::Permission => "the push service does not let us send",
            Self::PlatformKey(_) => "the push service's key for this platform is wrong",
            Self::Failures => "the push service is down or cannot be reached",
        })
    }
}

/// How one push that was let through ended, as far as the circuit cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered by a service that works, whatever the answer.
    Well,
    /// It was not; the service may have said when to come back.
    Failed(Option<Duration>),
    /// No push can succeed at present.
    Shut(Cause),
}

/// What [`Circuit::look`] sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything may be sent.
    Closed,
    /// One push may be sent as a probe.
    ProbeDue,
    /// Nothing may be sent, until then at least.
    Open(Cause, Instant),
}

/// What an outcome changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is open now, for this reason. Also when it was open for another one.
    Opened(Cause),
    /// It is closed again; it was open for this reason.
    Closed(Cause),
}

/// What stands between pushes and a push service.
#[derive(Debug, Default)]
pub struct Circuit {
    /// In a row, and since when.
    failures: Option<(u32, Instant)>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    cause: Cause,
    probe_at: Instant,
}

impl Circuit {
    /// What may be sent now.
    pub fn look(&self, now: Instant) -> State {
        match &self.open {
            None => State::Closed,
            Some(open) if open.probe_at <= now => State::ProbeDue,
            Some(open) => State::Open(open.cause, open.probe_at),
        }
    }

    /// Why it is open, if it is.
    pub fn cause(&self) -> Option<Cause> {
        self.open.as_ref().map(|open| open.cause)
    }

    /// Begins a push: says whether it is a probe. A probe keeps others back until it ended or is lost.
    ///
    /// # Errors
    /// Why nothing may be sent.
    pub fn admit(&mut self, now: Instant) -> Result<bool, Cause> {
        match &mut self.open {
            None => Ok(false),
            Some(open) if open.probe_at <= now => {
                open.probe_at = now + PROBE_PATIENCE;
                Ok(true)
            }
            Some(open) => Err(open.cause),
        }
    }

    /// A probe was not sent after all: the next push may be one.
    pub fn give_back(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            open.probe_at = now;
        }
    }

    /// Ends a push. Of pushes that were under way when it opened only those count that say what an operator has to do.
    pub fn ended(&mut self, probe: bool, outcome: Outcome, now: Instant) -> Option<Turn> {
        match outcome {
            Outcome::Well => {
                self.failures = None;
                let closed = self.open.take_if(|_| probe)?;
                Some(Turn::Closed(closed.cause))
            }
            Outcome::Failed(after) => {
                let wait = after.unwrap_or_default().max(PROBE_WHEN_DOWN).min(LONGEST_WAIT);
                if let Some(open) = &mut self.open {
                    if probe {
                        open.probe_at = now + wait.max(open.cause.probe_every());
                    }
                    return None;
                }
                let (count, since) = self.failures.get_or_insert((0, now));
                *count += 1;
                if *count < FAILURES || now.saturating_duration_since(*since) < LASTING {
                    return None;
                }
                self.failures = None;
                self.open = Some(Open { cause: Cause::Failures, probe_at: now + wait });
                Some(Turn::Opened(Cause::Failures))
            }
            Outcome::Shut(cause) => {
                self.failures = None;
                let same = self.open.as_ref().is_some_and(|open| open.cause == cause);
                if !same || probe {
                    self.open = Some(Open { cause, probe_at: now + cause.probe_every() });
                }
                (!same).then_some(Turn::Opened(cause))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Ends one push that was let through at `now`.
    fn push(circuit: &mut Circuit, outcome: Outcome, now: Instant) -> Option<Turn> {
        let probe = circuit.admit(now).unwrap();
        circuit.ended(probe, outcome, now)
    }

    fn broken(after: Option<Duration>, now: Instant) -> Circuit {
        let mut circuit = Circuit::default();
        for n in (1..FAILURES).rev() {
            assert_eq!(push(&mut circuit, Outcome::Failed(after), now - n * SECOND), None);
        }
        assert_eq!(push(&mut circuit, Outcome::Failed(after), now), Some(Turn::Opened(Cause::Failures)));
        circuit
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not_let_it_come_to_that() {
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        for _ in 0..100 {
            for n in 1..FAILURES {
                assert_eq!(push(&mut circuit, Outcome::Failed(None), now + n * SECOND), None);
            }
            assert_eq!(push(&mut circuit, Outcome::Well, now), None);
        }
        assert_eq!(circuit.look(now), State::Closed);
    }

    #[test]
    fn a_connection_that_breaks_under_many_pushes_does_not_open_it() {
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(push(&mut circuit, Outcome::Failed(None), now), None);
        }
        assert_eq!(push(&mut circuit, Outcome::Failed(None), now + LASTING), Some(Turn::Opened(Cause::Failures)));
    }

    #[test]
    fn one_probe_at_a_time_goes_through_and_its_success_closes_it() {
        let now = Instant::now();
        let mut circuit = broken(None, now);
        assert_eq!(circuit.admit(now + 9 * SECOND), Err(Cause::Failures));
        let later = now + 10 * SECOND;
        assert_eq!(circuit.look(later), State::ProbeDue);
        assert_eq!(circuit.admit(later), Ok(true));
        assert_eq!(circuit.admit(later), Err(Cause::Failures), "one at a time");
        assert_eq!(circuit.ended(true, Outcome::Failed(None), later), None);
        assert_eq!(circuit.look(later + 9 * SECOND), State::Open(Cause::Failures, later + 10 * SECOND));
        assert_eq!(push(&mut circuit, Outcome::Well, later + 10 * SECOND), Some(Turn::Closed(Cause::Failures)));
        assert_eq!(circuit.look(later + 10 * SECOND), State::Closed);
    }

    #[test]
    fn what_was_under_way_when_it_opened_neither_closes_nor_prolongs_it() {
        let now = Instant::now();
        let mut circuit = broken(None, now);
        for outcome in [Outcome::Well, Outcome::Failed(Some(60 * SECOND))] {
            assert_eq!(circuit.ended(false, outcome, now + SECOND), None);
        }
        assert_eq!(circuit.look(now), State::Open(Cause::Failures, now + 10 * SECOND));
    }

    #[test]
    fn the_service_says_when_to_come_back_within_reason() {
        let now = Instant::now();
        let at = |after| match broken(Some(after), now).look(now) {
            State::Open(Cause::Failures, at) => at - now,
            other => panic!("{other:?}"),
        };
        assert_eq!(at(SECOND), 10 * SECOND);
        assert_eq!(at(30 * SECOND), 30 * SECOND);
        assert_eq!(at(Duration::MAX), LONGEST_WAIT);
    }

    #[test]
    fn what_an_operator_has_to_mend_opens_it_at_once_and_is_probed_each_minute() {
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        let shut = Outcome::Shut(Cause::Permission);
        assert_eq!(push(&mut circuit, shut, now), Some(Turn::Opened(Cause::Permission)));
        assert_eq!(circuit.ended(false, shut, now + SECOND), None, "said once");
        assert_eq!(circuit.look(now), State::Open(Cause::Permission, now + 60 * SECOND));
        assert_eq!(push(&mut circuit, shut, now + 60 * SECOND), None);
        assert_eq!(circuit.look(now), State::Open(Cause::Permission, now + 120 * SECOND));
        assert_eq!(
            push(&mut circuit, Outcome::Failed(None), now + 120 * SECOND),
            None,
            "down on top of it: the same circuit"
        );
        assert_eq!(push(&mut circuit, Outcome::Well, now + 180 * SECOND), Some(Turn::Closed(Cause::Permission)));
    }

    #[test]
    fn a_probe_that_was_not_sent_leaves_its_place_and_a_lost_one_does_so_after_a_while() {
        let now = Instant::now();
        let mut circuit = broken(None, now);
        let due = now + 10 * SECOND;
        assert_eq!(circuit.admit(due), Ok(true));
        circuit.give_back(due);
        assert_eq!(circuit.admit(due), Ok(true));
        assert_eq!(circuit.look(due + PROBE_PATIENCE - SECOND), State::Open(Cause::Failures, due + PROBE_PATIENCE));
        assert_eq!(circuit.look(due + PROBE_PATIENCE), State::ProbeDue);
    }
}
