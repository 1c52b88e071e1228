//! The close codes: what each means and what a client does after it. PROTOCOL.md prints this table.

use std::{ops::RangeInclusive, time::Duration};
use tokio_tungstenite::tungstenite::{
    Utf8Bytes,
    protocol::{CloseFrame, frame::coding},
};

/// When those who find a gateway with too much to do are to come back: each is told another time in it.
const COME_BACK: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);

/// Why a socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The client broke the WebSocket protocol: unmasked frames, reserved bits, bad fragments.
    ProtocolError,
    /// A text frame was not UTF-8.
    InvalidText,
    /// A frame or message above the size limit.
    TooBig,
    /// This gateway is going away.
    Restart,
    /// This gateway is full, or cannot check tickets now.
    Overloaded,
    /// No hello in time, a ticket that is not valid (any more), or the session's time is up.
    Unauthenticated,
    /// Not allowed, and no new ticket will change it.
    Forbidden,
    /// Too many frames, or too many bad ones.
    RateLimited,
    /// A newer socket took this one's place.
    Replaced,
    /// The client reads too slowly; what did not fit is in the history.
    Slow,
    /// The log-in behind this session was ended.
    Revoked,
}

/// How long a client waits before it connects again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It does not connect again by itself.
    ForEver,
    /// Its usual back-off with full jitter, from the shortest step.
    BackOff,
    /// The longest step of its back-off, with full jitter.
    LongestBackOff,
    /// For as long as the reason says, and then its usual back-off.
    AsTold,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The number on the wire.
    pub code: u16,
    /// The stable name; the reason text of the close frame begins with it.
    pub name: &'static str,
    /// Whether the client connects again by itself (with a new ticket, as always).
    pub reconnect: bool,
    /// Whether messages may have been missed, so that the client must sync after `ready`. A client syncs after every
    /// `ready`; here it says whether skipping that would lose anything.
    pub sync: bool,
    /// How long it waits first.
    pub wait: Wait,
}

impl CloseCode {
    /// Every code.
    pub const ALL: [Self; 11] = [
        Self::ProtocolError,
        Self::InvalidText,
        Self::TooBig,
        Self::Restart,
        Self::Overloaded,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::RateLimited,
        Self::Replaced,
        Self::Slow,
        Self::Revoked,
    ];

    /// The table.
    pub const fn rule(self) -> Rule {
        use Wait::{AsTold, BackOff, ForEver, LongestBackOff};
        let (code, name, reconnect, sync, wait) = match self {
            Self::ProtocolError => (1002, "protocol_error", true, true, LongestBackOff),
            Self::InvalidText => (1007, "invalid_text", true, true, LongestBackOff),
            Self::TooBig => (1009, "too_big", true, true, LongestBackOff),
            Self::Restart => (1012, "restart", true, true, BackOff),
            Self::Overloaded => (1013, "overloaded", true, true, AsTold),
            Self::Unauthenticated => (4001, "unauthenticated", true, true, BackOff),
            Self::Forbidden => (4003, "forbidden", false, false, ForEver),
            Self::RateLimited => (4008, "rate_limited", true, true, LongestBackOff),
            Self::Replaced => (4009, "replaced", false, false, ForEver),
            Self::Slow => (4010, "slow", true, true, BackOff),
            Self::Revoked => (4011, "revoked", false, false, ForEver),
        };
        Rule { code, name, reconnect, sync, wait }
    }
}

/// A decision to close a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Close {
    /// Why.
    pub(crate) code: CloseCode,
    /// Why exactly, for the person who reads the client's log. With the name, and the time to come back where one is
    /// told, at most 123 bytes.
    pub(crate) detail: &'static str,
}

impl Close {
    pub(crate) const fn new(code: CloseCode, detail: &'static str) -> Self {
        Self { code, detail }
    }

    /// The close frame: the code, its name and the detail; and when to come back, if that is told.
    pub(crate) fn frame(self) -> CloseFrame {
        let rule = self.code.rule();
        let mut reason = format!("{}: {}", rule.name, self.detail);
        if rule.wait == Wait::AsTold {
            reason += &format!("; retry_after_ms={}", rand::random_range(COME_BACK).as_millis());
        }
        CloseFrame { code: coding::CloseCode::from(rule.code), reason: Utf8Bytes::from(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_one_number_and_one_name_and_may_be_sent() {
        let rules = CloseCode::ALL.map(CloseCode::rule);
        assert_eq!(rules.iter().map(|r| r.code).collect::<HashSet<_>>().len(), rules.len());
        assert_eq!(rules.iter().map(|r| r.name).collect::<HashSet<_>>().len(), rules.len());
        for rule in rules {
            assert!(coding::CloseCode::from(rule.code).is_allowed(), "{}", rule.code);
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_design() {
        let number = |code: CloseCode| code.rule().code;
        assert_eq!(number(CloseCode::Restart), 1012);
        assert_eq!(number(CloseCode::Overloaded), 1013);
        assert_eq!(number(CloseCode::TooBig), 1009);
        assert_eq!(number(CloseCode::Unauthenticated), 4001);
        assert_eq!(number(CloseCode::Forbidden), 4003);
        assert_eq!(number(CloseCode::RateLimited), 4008);
        assert_eq!(number(CloseCode::Replaced), 4009);
        assert_eq!(number(CloseCode::Slow), 4010);
        assert_eq!(number(CloseCode::Revoked), 4011);
    }

    #[test]
    fn the_protocol_page_prints_this_table() {
        let page = include_str!("../../../PROTOCOL.md");
        let yes = |yes| if yes { "yes" } else { "no" };
        for rule in CloseCode::ALL.map(CloseCode::rule) {
            let begin = format!("| {} | `{}` |", rule.code, rule.name);
            let row = page.lines().find(|line| line.starts_with(&begin)).unwrap_or_else(|| panic!("{begin}"));
            let wait = match rule.wait {
                Wait::ForEver => "–",
                Wait::BackOff => "back-off",
                Wait::LongestBackOff => "longest back-off",
                Wait::AsTold => "as told, else longest back-off",
            };
            let end = format!("| {} | {} | {wait} |", yes(rule.reconnect), yes(rule.sync));
            assert!(row.ends_with(&end), "{row}: {end}");
        }
    }

    #[test]
    fn whoever_finds_too_much_to_do_is_told_a_time_of_their_own() {
        let close = Close::new(CloseCode::Overloaded, "tickets and routes cannot be checked now");
        let waits = (0..1_000).map(|_| {
            let reason = close.frame().reason;
            assert!(reason.len() <= 123 && reason.starts_with("overloaded: tickets"), "{reason}");
            let (_, wait) = reason.split_once("; retry_after_ms=").expect("a time");
            Duration::from_millis(wait.parse().expect("a number"))
        });
        let mut waits: Vec<_> = waits.collect();
        waits.sort();
        assert!(waits.iter().all(|wait| COME_BACK.contains(wait)));
        assert!(waits[900] - waits[100] > Duration::from_secs(5), "spread");
        for code in CloseCode::ALL.into_iter().filter(|code| code.rule().wait != Wait::AsTold) {
            assert!(!Close::new(code, "why").frame().reason.contains("retry_after_ms"));
        }
    }

    #[test]
    fn who_does_not_reconnect_does_not_wait_either() {
        for rule in CloseCode::ALL.map(CloseCode::rule) {
            assert_eq!(rule.reconnect, rule.wait != Wait::ForEver, "{}", rule.name);
        }
    }
}
