//! The verdict: what senders were told and what devices showed, held against the logs.

use crate::{
    checker::Sighting,
    findings::{Findings, Kind},
    ledger::Number,
    log::{Entry, Log},
    track::{Begins, Run, Track},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use touchline_ids::{ChannelId, MessageId, Seq, UserId};

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) number: u64,
    pub(crate) channel: ChannelId,
    pub(crate) end: End,
}

/// How sending it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// 2xx: there it stands. `sent` is the first try, `answered` the first such answer.
    Accepted { seq: Seq, message: MessageId, sent: u64, answered: u64 },
    /// Not stored.
    Refused,
    /// Nobody knows.
    Unresolved,
}

/// What a device showed.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// How it is called in examples.
    pub(crate) device: String,
    pub(crate) user: UserId,
    pub(crate) tracks: HashMap<ChannelId, Track>,
    /// It was there before the first message was sent.
    pub(crate) from_start: bool,
}

/// Where a channel's log ended when the first message was sent, and when the devices should have had everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: Seq,
    pub(crate) end: Seq,
}

/// Everything there is to judge by.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    pub(crate) outcomes: &'a [Outcome],
    pub(crate) logs: &'a [Log],
    pub(crate) spans: &'a HashMap<ChannelId, Span>,
    /// What anybody said of any position.
    pub(crate) said: &'a [(Sighting, Number)],
    pub(crate) seen: &'a [Seen],
    pub(crate) resets_expected: bool,
}

impl Evidence<'_> {
    /// What broke.
    pub(crate) fn judge(&self) -> Findings {
        let mut findings = Findings::default();
        self.logs.iter().for_each(|log| dense(log, &mut findings));
        self.stored(&mut findings);
        self.agreed(&mut findings);
        self.sender_order(&mut findings);
        for seen in self.seen {
            for log in self.logs {
                self.shown(seen, log, &mut findings);
            }
        }
        findings
    }

    /// I1 and I5: every accepted message stands once, where the answer said; a refused one nowhere.
    fn stored(&self, findings: &mut Findings) {
        let mut standing: HashMap<u64, Vec<Sighting>> = HashMap::new();
        for entry in self.logs.iter().flat_map(|log| &log.entries) {
            if let Some(number) = entry.number {
                standing.entry(number).or_default().push(entry.sighting);
            }
        }
        let read: BTreeSet<ChannelId> = self.logs.iter().map(|log| log.channel).collect();
        for outcome in self.outcomes.iter().filter(|outcome| read.contains(&outcome.channel)) {
            let (number, channel) = (outcome.number, outcome.channel);
            let places = standing.get(&number).map_or(&[][..], Vec::as_slice);
            let again = places.len().saturating_sub(1) as u64;
            findings.add(Kind::TwiceInLog, again, || format!("number {number} stands at {}", list(places)));
            match outcome.end {
                End::Accepted { seq, message, .. } => {
                    let there = places.contains(&Sighting { channel, seq, message });
                    let example = || format!("number {number} was to stand at {channel}/{seq}, is at {}", list(places));
                    findings.add(Kind::NotInLog, u64::from(!there), example);
                }
                End::Refused => {
                    let stored = !places.is_empty();
                    let example = || format!("number {number} stands at {}", list(places));
                    findings.add(Kind::RefusedYetDelivered, u64::from(stored), example);
                }
                End::Unresolved => {}
            }
        }
    }

    /// I4: what was said of a position is what stands there.
    fn agreed(&self, findings: &mut Findings) {
        let logs: HashMap<_, _> = self.logs.iter().map(|log| (log.channel, places(log))).collect();
        for (sighting, number) in self.said {
            let Some(places) = logs.get(&sighting.channel) else { continue };
            let stands = places.get(&sighting.seq).map(|entry| (entry.sighting, entry.number));
            let differs = stands != Some((*sighting, *number));
            let example = || format!("{}/{}: {}", sighting.channel, sighting.seq, instead(sighting, stands));
            findings.add(Kind::Foreign, u64::from(differs), example);
        }
    }

    /// I6: who was answered before the other was sent stands before it.
    fn sender_order(&self, findings: &mut Findings) {
        let mut channels: HashMap<ChannelId, Vec<(u64, u64, Seq)>> = HashMap::new();
        for outcome in self.outcomes {
            if let End::Accepted { seq, sent, answered, .. } = outcome.end {
                channels.entry(outcome.channel).or_default().push((sent, answered, seq));
            }
        }
        for (channel, mut sends) in channels {
            let mut answers: Vec<_> = sends.iter().map(|(_, answered, seq)| (*answered, *seq)).collect();
            sends.sort_unstable();
            answers.sort_unstable();
            let (mut answers, mut newest) = (answers.into_iter().peekable(), Seq(0));
            for (sent, _, seq) in sends {
                while let Some((_, before)) = answers.next_if(|(answered, _)| *answered < sent) {
                    newest = newest.max(before);
                }
                let example = || format!("{channel}/{seq} was sent after {newest} had been answered");
                findings.add(Kind::AgainstSenderOrder, u64::from(newest > seq), example);
            }
        }
    }

    /// I3 and I9: a device showed every seq it is entitled to, and none besides. What it showed twice or late was
    /// counted when it happened.
    fn shown(&self, seen: &Seen, log: &Log, findings: &mut Findings) {
        let (channel, device) = (log.channel, &seen.device);
        let nothing = Track::default();
        let track = seen.tracks.get(&channel).unwrap_or(&nothing);
        let stays = log.stays(seen.user);
        let entitled = |seq| stays.iter().any(|stay| stay.covers(seq, seq) > 0);
        for run in track.runs() {
            let within: u64 = stays.iter().map(|stay| stay.covers(run.first, run.last)).sum();
            let outside = |seq: &Seq| (run.first..=run.last).contains(seq) && !entitled(*seq);
            let missing = track.missing().filter(outside).count() as u64;
            let outside = length(run.first, run.last).saturating_sub(within + missing);
            let example = || format!("{device} showed {} to {} of {channel}", run.first, run.last);
            findings.add(Kind::OutsideMembership, outside, example);
        }
        for missing in track.missing() {
            let lost = u64::from(entitled(missing));
            findings.add(Kind::Lost, lost, || format!("{device} never showed {channel}/{missing}"));
        }
        self.resets(seen, log, track, findings);
        self.ends(seen, log, track, findings);
    }

    /// What a reset passed over, where nothing gave a reason to reset.
    fn resets(&self, seen: &Seen, log: &Log, track: &Track, findings: &mut Findings) {
        if self.resets_expected {
            return;
        }
        for pair in track.runs().windows(2).filter(|pair| pair[1].begins == Begins::Reset) {
            let over = length(pair[0].last.next(), Seq(pair[1].first.0 - 1));
            let example = || format!("{} was reset over {over} of {}", seen.device, log.channel);
            findings.add(Kind::Lost, over, example);
        }
    }

    /// The beginning and the end of what it should have shown.
    fn ends(&self, seen: &Seen, log: &Log, track: &Track, findings: &mut Findings) {
        let (channel, device) = (log.channel, &seen.device);
        let (Some(span), Some(stay)) = (self.spans.get(&channel), log.stays(seen.user).last()) else { return };
        if stay.left.is_some() {
            return;
        }
        // What was there before the load, and before one joined, may be left out.
        let begin = span.start.next().max(stay.joined);
        let shown = track.runs().last().filter(|_| track.follows());
        let last = shown.map_or(Seq(begin.0 - 1), |run| run.last);
        let tail = length(last.next().max(begin), span.end);
        findings.add(Kind::Lost, tail, || format!("{device} has {channel} up to {last}, its head is {}", span.end));
        let first = track.runs().first().filter(|_| seen.from_start && log.stays(seen.user).len() == 1);
        if let Some(Run { first, .. }) = first {
            let head = length(begin, Seq(first.0 - 1));
            findings.add(Kind::Lost, head, || format!("{device} has {channel} from {first}, not from {begin}"));
        }
    }
}

/// I2: nothing between the first and the last entry is missing.
fn dense(log: &Log, findings: &mut Findings) {
    let mut before = Seq(0);
    for entry in &log.entries {
        let seq = entry.sighting.seq;
        let holes = length(before.next(), Seq(seq.0 - 1));
        findings.add(Kind::HolesInLog, holes, || format!("{}: {before} is followed by {seq}", log.channel));
        before = seq;
    }
}

fn places(log: &Log) -> BTreeMap<Seq, &Entry> {
    log.entries.iter().map(|entry| (entry.sighting.seq, entry)).collect()
}

/// How many seqs there are from `first` to `last`, both included.
fn length(first: Seq, last: Seq) -> u64 {
    u64::try_from(last.0 - first.0 + 1).unwrap_or(0)
}

fn list(places: &[Sighting]) -> String {
    let places: Vec<_> = places.iter().map(|place| format!("{}/{}", place.channel, place.seq)).collect();
    if places.is_empty() { "no place".into() } else { places.join(", ") }
}

fn instead(said: &Sighting, stands: Option<(Sighting, Number)>) -> String {
    match stands {
        None => format!("{} was shown, nothing stands there", said.message),
        Some((stands, _)) if stands.message == said.message => "its content differs from the log's".into(),
        Some((stands, _)) => format!("{} was shown, {} stands there", said.message, stands.message),
    }
}

#[cfg(test)]
mod tests;
