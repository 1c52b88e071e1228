//! The order in which a session gets in, without I/O: into the hub, into the registry, and only then `ready`, after
//! which its client syncs. What was stored before the route was visible is in the sync; what is stored after it is
//! pushed. Answers go in, the next step comes out.

use crate::close_codes::{Close, CloseCode};
use touchline_ids::{ConnectionNumber, IncarnationId};
use touchline_registry::Registered;

pub(crate) const OLDER: Close = Close::new(CloseCode::Replaced, "this device has a newer connection");

/// How often a route that changes under our hands is tried.
const ATTEMPTS: u32 = 3;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Enter the hub; then [`Entry::joined`].
    Join,
    /// Store the route; then [`Entry::registered`].
    Register,
    /// Find out whether this route of the device still means a session; then [`Entry::examined`].
    Examine(IncarnationId, ConnectionNumber),
    /// Store the route in place of this dead one; then [`Entry::taken_over`].
    TakeOver(IncarnationId, ConnectionNumber),
    /// Tell the client; then [`Entry::told`].
    Ready,
    /// It is in.
    Done,
    /// Close the socket.
    Refuse(Close),
}

/// One session on its way in.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    attempts: u32,
    newer: Option<(IncarnationId, ConnectionNumber)>,
    told: bool,
    #[cfg(feature = "simulation")]
    pub(crate) broken: crate::simulation::Broken,
}

impl Entry {
    pub(crate) fn begin(&self) -> Step {
        Step::Join
    }

    pub(crate) fn joined(&mut self) -> Step {
        #[cfg(feature = "simulation")]
        if self.broken.ready_before_register {
            return Step::Ready;
        }
        self.register()
    }

    pub(crate) fn registered(&mut self, answer: Registered) -> Step {
        match answer {
            Registered::Stored | Registered::Kept => self.visible(),
            Registered::Newer { incarnation, connection } => {
                self.newer = Some((incarnation, connection));
                Step::Examine(incarnation, connection)
            }
        }
    }

    /// Whether the route that the registry prefers means a session.
    pub(crate) fn examined(&mut self, lives: bool) -> Step {
        match self.newer.take() {
            Some((incarnation, connection)) if !lives => Step::TakeOver(incarnation, connection),
            _ => Step::Refuse(OLDER),
        }
    }

    /// False: the entry has changed since.
    pub(crate) fn taken_over(&mut self, taken: bool) -> Step {
        if taken { self.visible() } else { self.register() }
    }

    pub(crate) fn told(&mut self) -> Step {
        if std::mem::replace(&mut self.told, true) {
            return Step::Done;
        }
        #[cfg(feature = "simulation")]
        if self.broken.ready_before_register {
            return self.register();
        }
        Step::Done
    }

    fn register(&mut self) -> Step {
        self.attempts += 1;
        if self.attempts > ATTEMPTS { Step::Refuse(OLDER) } else { Step::Register }
    }

    fn visible(&self) -> Step {
        if self.told { Step::Done } else { Step::Ready }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newer() -> Registered {
        Registered::Newer { incarnation: IncarnationId::new(), connection: ConnectionNumber(9) }
    }

    #[test]
    fn ready_is_told_after_the_route_is_visible() {
        for answer in [Registered::Stored, Registered::Kept] {
            let mut entry = Entry::default();
            assert_eq!(entry.begin(), Step::Join);
            assert_eq!(entry.joined(), Step::Register);
            assert_eq!(entry.registered(answer), Step::Ready);
            assert_eq!(entry.told(), Step::Done);
        }
    }

    #[test]
    fn a_newer_session_that_lives_is_left_alone() {
        let mut entry = Entry::default();
        entry.joined();
        assert!(matches!(entry.registered(newer()), Step::Examine(_, ConnectionNumber(9))));
        assert_eq!(entry.examined(true), Step::Refuse(OLDER));
    }

    #[test]
    fn a_newer_route_without_a_session_is_taken_over() {
        let mut entry = Entry::default();
        entry.joined();
        entry.registered(newer());
        assert!(matches!(entry.examined(false), Step::TakeOver(_, ConnectionNumber(9))));
        assert_eq!(entry.taken_over(true), Step::Ready);
    }

    #[test]
    fn a_route_that_keeps_changing_is_tried_three_times() {
        let mut entry = Entry::default();
        assert_eq!(entry.joined(), Step::Register);
        for last in [false, false, true] {
            entry.registered(newer());
            entry.examined(false);
            assert_eq!(entry.taken_over(false), if last { Step::Refuse(OLDER) } else { Step::Register });
        }
    }
}
