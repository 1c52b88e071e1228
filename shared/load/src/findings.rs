//! What broke: how much of it, and some of it in words.

use crate::report::Broken;
use serde::Serialize;

/// As many of each kind are told; the number says how many more there are.
const EXAMPLES: u64 = 5;

/// What was found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Findings {
    pub(crate) broken: Broken,
    pub(crate) examples: Vec<String>,
}

/// A kind of broken guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Lost,
    Duplicated,
    OutOfOrder,
    Foreign,
    Conflicting,
    RefusedYetDelivered,
    AgainstSenderOrder,
    OutsideMembership,
    Canary,
    NotInLog,
    TwiceInLog,
    HolesInLog,
    Behind,
    UnreadLogs,
}

impl Findings {
    /// Notes `count` of a kind. Nothing when it is 0.
    pub(crate) fn add(&mut self, kind: Kind, count: u64, example: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        let so_far = self.broken.count_mut(kind);
        let told = *so_far;
        *so_far += count;
        if told < EXAMPLES {
            self.examples.push(format!("{}: {}", kind.name(), example()));
        }
    }

    /// Takes what somebody else found.
    pub(crate) fn merge(&mut self, other: Self) {
        for kind in Kind::ALL {
            *self.broken.count_mut(kind) += other.broken.count(kind);
        }
        self.examples.extend(other.examples);
    }
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Lost,
        Self::Duplicated,
        Self::OutOfOrder,
        Self::Foreign,
        Self::Conflicting,
        Self::RefusedYetDelivered,
        Self::AgainstSenderOrder,
        Self::OutsideMembership,
        Self::Canary,
        Self::NotInLog,
        Self::TwiceInLog,
        Self::HolesInLog,
        Self::Behind,
        Self::UnreadLogs,
    ];

    /// As the report calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated (visible)",
            Self::OutOfOrder => "out of order (visible)",
            Self::Foreign => "foreign",
            Self::Conflicting => "conflicting",
            Self::RefusedYetDelivered => "refused, yet delivered",
            Self::AgainstSenderOrder => "against the sender's order",
            Self::OutsideMembership => "outside of membership",
            Self::Canary => "at a canary",
            Self::NotInLog => "accepted, not in the log",
            Self::TwiceInLog => "twice in the log",
            Self::HolesInLog => "holes in the log",
            Self::Behind => "devices not at head",
            Self::UnreadLogs => "logs not read back",
        }
    }
}

impl Broken {
    pub(crate) const fn count_mut(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Lost => &mut self.lost,
            Kind::Duplicated => &mut self.duplicated,
            Kind::OutOfOrder => &mut self.out_of_order,
            Kind::Foreign => &mut self.foreign,
            Kind::Conflicting => &mut self.conflicting,
            Kind::RefusedYetDelivered => &mut self.refused_yet_delivered,
            Kind::AgainstSenderOrder => &mut self.against_sender_order,
            Kind::OutsideMembership => &mut self.outside_membership,
            Kind::Canary => &mut self.canary,
            Kind::NotInLog => &mut self.not_in_log,
            Kind::TwiceInLog => &mut self.twice_in_log,
            Kind::HolesInLog => &mut self.holes_in_log,
            Kind::Behind => &mut self.behind,
            Kind::UnreadLogs => &mut self.unread_logs,
        }
    }

    pub(crate) fn count(mut self, kind: Kind) -> u64 {
        *self.count_mut(kind)
    }

    pub(crate) fn total(self) -> u64 {
        Kind::ALL.into_iter().map(|kind| self.count(kind)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_counted_in_a_field_of_its_own_and_few_are_told() {
        let mut findings = Findings::default();
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            findings.add(kind, at as u64 + 1, || "x".into());
            findings.add(kind, 0, || unreachable!("nothing was found"));
        }
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(findings.broken.count(kind), at as u64 + 1);
        }
        let mut many = Findings::default();
        (0..100).for_each(|_| many.add(Kind::Lost, 1, || "x".into()));
        assert_eq!((many.broken.lost, many.examples.len()), (100, 5));
        many.merge(findings);
        assert_eq!(many.broken.lost, 101);
    }
}
