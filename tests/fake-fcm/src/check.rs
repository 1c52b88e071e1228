//! Whether a sender kept to FCM's contract, judged from the log of a run.

mod history;
#[cfg(test)]
mod tests;

use crate::log::{Entry, Outcome};
use history::{Attempt, History};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// Findings that are told one by one; of more only the number is.
const TOLD: usize = 20;
const MINUTE_US: u64 = 60_000_000;
const SECOND_US: u64 = 1_000_000;

/// What is asked of a sender. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// From a failure (5xx, 401, 403, a reset, a send given up) to the next try.
    pub retry_ms: u64,
    /// The same after a sender went away without an answer. Lower when senders are killed: their heirs cannot know.
    pub gone_ms: u64,
    /// From a 429 without a Retry-After to the next try.
    pub quota_ms: u64,
    /// For so long after a 404 was answered, sends to that token are taken for ones that were under way.
    pub under_way_ms: u64,
    /// Between two deliveries to one token about one channel. A little less than the 3 s that are promised: what is
    /// measured here is arrival.
    pub apart_ms: u64,
    /// Pushes to one token in any 60 s.
    pub per_minute: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            retry_ms: 10_000,
            gone_ms: 10_000,
            quota_ms: 60_000,
            under_way_ms: 1_000,
            apart_ms: 2_900,
            per_minute: 240,
        }
    }
}

/// What the log says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Requests in the log.
    pub requests: u64,
    /// Older ones that the log has forgotten: the judgement is not about them.
    pub forgotten: u64,
    /// How often each outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Messages that count as delivered.
    pub delivered: u64,
    /// Different (token, channel, seq) among them.
    pub different: u64,
    /// Delivered more than once: every time but the first.
    pub duplicates: u64,
    /// Delivered after a newer one of the same token and channel.
    pub out_of_order: u64,
    /// Sent again too early after a failure. Must be 0.
    pub early_retries: u64,
    /// Sent again after an answer that another try cannot change. Must be 0.
    pub futile_retries: u64,
    /// Sent to a token after its 404. Must be 0.
    pub to_dead_tokens: u64,
    /// Bodies with a needle in them. Must be 0 in privacy mode.
    pub leaks: u64,
    /// Delivered less than `apart_ms` after another one of the same token and channel.
    pub too_close: u64,
    /// Pushes above `per_minute` to one token.
    pub above_device_rate: u64,
    /// Most requests in one second.
    pub peak_per_s: u64,
    /// Most deliveries in one second.
    pub peak_delivered_per_s: u64,
    /// From the first request to the last, in milliseconds.
    pub span_ms: u64,
    /// The first findings, one by one.
    pub findings: Vec<Finding>,
}

/// One breach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The report's field that counts it.
    pub what: String,
    /// The entry that broke the rule.
    pub number: u64,
    /// The earlier entry it collides with, if there is one.
    pub earlier: Option<u64>,
    /// Milliseconds between the two: from the end of the earlier one, or its arrival for `too_close`.
    pub after_ms: Option<u64>,
}

impl Report {
    /// Whether nothing was done that must never be: `early_retries`, `futile_retries`, `to_dead_tokens`, `leaks`,
    /// `above_device_rate` and `forgotten` are 0. Duplicates, order and distance are the caller's to judge.
    pub fn is_clean(&self) -> bool {
        let never = [
            self.early_retries,
            self.futile_retries,
            self.to_dead_tokens,
            self.leaks,
            self.above_device_rate,
            self.forgotten,
        ];
        never == [0; 6]
    }
}

/// The newest seq that was delivered for each token and channel: what "was everybody notified" is asked of.
pub fn newest_accepted(entries: &[Entry]) -> HashMap<(Arc<str>, Arc<str>), u64> {
    let mut newest = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.processed) {
        if let (Some(channel), Some(seq)) = (&entry.channel, entry.seq) {
            let held = newest.entry((Arc::clone(&entry.token), Arc::clone(channel))).or_insert(seq);
            *held = seq.max(*held);
        }
    }
    newest
}

/// Judges the entries of a log (in its order), of which `forgotten` older ones are missing. A message without channel or
/// seq is held against the rules of tokens only.
pub fn check(entries: &[Entry], forgotten: u64, rules: &Rules) -> Report {
    let mut report = Report { requests: entries.len() as u64, forgotten, ..Report::default() };
    let mut tokens: HashMap<&str, Token> = HashMap::new();
    let mut channels: HashMap<(&str, &str), Channel> = HashMap::new();
    let mut rates = Rates::default();
    for entry in entries {
        *report.outcomes.entry(entry.outcome).or_default() += 1;
        rates.add(entry);
        if entry.leaked {
            report.breach("leaks", entry, None);
        }
        // Nobody looked at it: as if it had not been sent.
        if entry.outcome == Outcome::Refused {
            continue;
        }
        tokens.entry(&entry.token).or_default().hold(entry, rules, &mut report);
        if let (Some(channel), Some(seq)) = (&entry.channel, entry.seq) {
            channels.entry((&entry.token, channel)).or_default().hold(entry, seq, rules, &mut report);
        } else {
            report.delivered += u64::from(entry.processed);
        }
    }
    report.peak_per_s = rates.all.values().copied().max().unwrap_or(0);
    report.peak_delivered_per_s = rates.delivered.values().copied().max().unwrap_or(0);
    if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
        report.span_ms = (last.begun_us - first.begun_us) / 1_000;
    }
    report
}

impl Report {
    fn breach(&mut self, what: &'static str, entry: &Entry, earlier: Option<(u64, u64)>) {
        let count = match what {
            "duplicates" => &mut self.duplicates,
            "out_of_order" => &mut self.out_of_order,
            "early_retries" => &mut self.early_retries,
            "futile_retries" => &mut self.futile_retries,
            "to_dead_tokens" => &mut self.to_dead_tokens,
            "leaks" => &mut self.leaks,
            "too_close" => &mut self.too_close,
            _ => &mut self.above_device_rate,
        };
        *count += 1;
        if self.findings.len() < TOLD {
            self.findings.push(Finding {
                what: what.to_owned(),
                number: entry.number,
                earlier: earlier.map(|(number, _)| number),
                after_ms: earlier.map(|(_, at_us)| entry.begun_us.saturating_sub(at_us) / 1_000),
            });
        }
    }
}

/// What is remembered of a token.
#[derive(Default)]
struct Token {
    /// The first 404: entry and time of the answer.
    dead: Option<(u64, u64)>,
    /// Arrivals of the last 60 s.
    recent: VecDeque<u64>,
}

impl Token {
    fn hold(&mut self, entry: &Entry, rules: &Rules, report: &mut Report) {
        if let Some(dead) = self.dead
            && entry.begun_us > dead.1 + rules.under_way_ms * 1_000
        {
            report.breach("to_dead_tokens", entry, Some(dead));
        }
        if entry.outcome == Outcome::Unregistered && self.dead.is_none() {
            self.dead = entry.ended_us.map(|ended| (entry.number, ended));
        }
        while self.recent.front().is_some_and(|begun| begun + MINUTE_US <= entry.begun_us) {
            self.recent.pop_front();
        }
        self.recent.push_back(entry.begun_us);
        if self.recent.len() > rules.per_minute {
            report.breach("above_device_rate", entry, None);
        }
    }
}

/// What is remembered of a token's channel.
#[derive(Default)]
struct Channel {
    history: History,
    delivered: HashSet<u64>,
    newest: u64,
    /// The last one delivered: entry and arrival.
    last: Option<(u64, u64)>,
}

impl Channel {
    fn hold(&mut self, entry: &Entry, seq: u64, rules: &Rules, report: &mut Report) {
        let attempt = Attempt::of(entry, seq);
        let second_of_401 = self.history.judge(&attempt, rules, |what, earlier| report.breach(what, entry, earlier));
        self.history.add(attempt, second_of_401);
        if !entry.processed {
            return;
        }
        report.delivered += 1;
        if let Some(last) = self.last
            && entry.begun_us < last.1 + rules.apart_ms * 1_000
        {
            report.breach("too_close", entry, Some(last));
        }
        self.last = Some((entry.number, entry.begun_us));
        if !self.delivered.insert(seq) {
            report.breach("duplicates", entry, None);
        } else {
            report.different += 1;
            if seq < self.newest {
                report.breach("out_of_order", entry, None);
            }
        }
        self.newest = self.newest.max(seq);
    }
}

/// Requests and deliveries in each second.
#[derive(Default)]
struct Rates {
    all: HashMap<u64, u64>,
    delivered: HashMap<u64, u64>,
}

impl Rates {
    fn add(&mut self, entry: &Entry) {
        let second = entry.begun_us / SECOND_US;
        *self.all.entry(second).or_default() += 1;
        if entry.processed {
            *self.delivered.entry(second).or_default() += 1;
        }
    }
}
