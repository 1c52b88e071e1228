//! The failed tries of one token's channel, and what they forbid.

use super::Rules;
use crate::log::{Entry, Outcome};

/// Tries that are remembered. A sender that keeps to the rules has one at a time.
const REMEMBERED: usize = 32;

/// One try, as far as later ones are held against it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    number: u64,
    seq: u64,
    bearer: u32,
    begun_us: u64,
    ended_us: Option<u64>,
    outcome: Outcome,
    retry_after: Option<u32>,
    /// It came at once after a 401, with another access token.
    second_of_401: bool,
}

/// The last tries.
#[derive(Debug, Default)]
pub(super) struct History(Vec<Attempt>);

impl Attempt {
    pub(super) fn of(entry: &Entry, seq: u64) -> Self {
        Self {
            number: entry.number,
            seq,
            bearer: entry.bearer,
            begun_us: entry.begun_us,
            ended_us: entry.ended_us,
            outcome: entry.outcome,
            retry_after: entry.retry_after,
            second_of_401: false,
        }
    }

    /// How long after its end nothing of the channel may be sent, in milliseconds. `u64::MAX`: this seq never again.
    fn wait_ms(&self, rules: &Rules) -> u64 {
        let asked = self.retry_after.map(|seconds| u64::from(seconds) * 1_000);
        match self.outcome {
            Outcome::Accepted | Outcome::Validated | Outcome::Pending | Outcome::Refused => 0,
            // Counted by token.
            Outcome::Unregistered => 0,
            Outcome::Invalid | Outcome::BadToken | Outcome::WrongSender | Outcome::PlatformKey => u64::MAX,
            Outcome::Quota => asked.unwrap_or(rules.quota_ms),
            Outcome::Gone => rules.gone_ms,
            Outcome::ServerError | Outcome::Reset | Outcome::Other | Outcome::Forbidden | Outcome::Unauthenticated => {
                asked.unwrap_or(0).max(rules.retry_ms)
            }
        }
    }
}

impl History {
    /// Holds a try against those that ended before it began. True when it is the one that a 401 allows at once.
    pub(super) fn judge(
        &self,
        attempt: &Attempt,
        rules: &Rules,
        mut breach: impl FnMut(&'static str, Option<(u64, u64)>),
    ) -> bool {
        let mut second_of_401 = false;
        let mut early: Option<(u64, u64)> = None;
        for before in &self.0 {
            let Some(ended) = before.ended_us.filter(|ended| *ended <= attempt.begun_us) else { continue };
            let wait = before.wait_ms(rules);
            if wait == u64::MAX {
                if before.seq == attempt.seq {
                    breach("futile_retries", Some((before.number, ended)));
                }
                continue;
            }
            if before.seq > attempt.seq || attempt.begun_us >= ended + wait * 1_000 {
                continue;
            }
            if before.outcome == Outcome::Unauthenticated && before.bearer != attempt.bearer && !before.second_of_401 {
                second_of_401 = true;
                continue;
            }
            early = Some((before.number, ended));
        }
        if early.is_some() {
            breach("early_retries", early);
        }
        second_of_401
    }

    pub(super) fn add(&mut self, attempt: Attempt, second_of_401: bool) {
        if self.0.len() == REMEMBERED {
            self.0.remove(0);
        }
        if attempt.outcome != Outcome::Accepted {
            self.0.push(Attempt { second_of_401, ..attempt });
        }
    }
}
