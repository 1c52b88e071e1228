//! The rules by which one committed message reaches its recipients, without I/O: who is looked up when, what each
//! gateway is asked, when the message is done, and when another api should take it.
//!
//! 1. Everybody is looked up (by the caller, for many messages at once) and pushed to: SHOW.
//! 2. A push that is lost because its stream broke: its recipients are looked up again at once and pushed to wherever
//!    else they are. A gateway is shown a message once for each recipient while the first answers are awaited.
//! 3. When every answer is in, whoever has no acking device (gone, slow, unacked, stale, lost, offline) is looked up
//!    once more after `second_look`. A gateway that was handed the message for a recipient before is only asked for
//!    the ack (ASK); any other one is told to SHOW.
//! 4. Then it is done, and whoever still has no acking device is *missed*.
//!
//! A gateway that gives no answer in time on a stream that did not break, or that cannot even be dialled, may be well
//! for others. On the first attempt the message is therefore handed over to another api. On any later one such a push
//! counts as lost, and the second look leaves that gateway alone: it has the message in its socket or it never will.

use crate::reached::Reached;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::Instant;
use touchline_ids::{IncarnationId, UserId};
use touchline_proto::push::PushResult;
use touchline_storage::Members;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How long a gateway waits for acks of what it shows.
    pub ack_wait: Duration,
    /// How much longer an answer may be on its way; more is silence.
    pub patience: Duration,
    /// How long after the last answer the missed are looked up once more.
    pub second_look: Duration,
}

/// Some of the members, by their positions among them, ascending.
pub type Users = Arc<[u32]>;

/// Names a push of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PushId(usize);

/// What a gateway is to do with a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Hand the message to the recipients' sessions and wait for acks.
    Show,
    /// It has been handed out before: say at once who has not acked.
    Acked,
}

/// A gateway that holds some of the recipients.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Which life of it.
    pub gateway: IncarnationId,
    /// Whom.
    pub users: Users,
}

/// A push to make.
#[derive(Debug, Clone)]
pub struct Push {
    /// Its name in [`Delivery::answered`] and [`Delivery::lost`].
    pub id: PushId,
    /// To which gateway.
    pub gateway: IncarnationId,
    /// For whom.
    pub users: Users,
    /// What to do.
    pub ask: Ask,
}

/// Why a push has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its stream broke, refused it or was full: nobody is known to have it.
    Broken,
    /// The gateway cannot be reached from here, though it may be from elsewhere.
    Unreachable,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before an answer comes, or this time.
    Wait(Instant),
    /// Look up who holds these members (positions, ascending) and call [`Delivery::routed`].
    LookUp(Vec<u32>),
    /// The end: nobody else is looked for, and these are missed.
    Finish {
        /// In order.
        missed: Vec<UserId>,
    },
    /// The end here: another api is to take the message.
    HandOver,
}

/// One message on its way.
pub struct Delivery {
    times: Times,
    /// How often a fan-out of this message has begun, this one included.
    attempt: u32,
    reached: Reached,
    pushes: Vec<UnderWay>,
    /// Recipients of lost pushes, to be looked up at once.
    lost: BTreeSet<u32>,
    /// A look-up was ordered and is not answered.
    looking: bool,
    stage: Stage,
    unreachable: bool,
}

struct UnderWay {
    gateway: IncarnationId,
    users: Users,
    due: Instant,
    outcome: Outcome,
}

enum Outcome {
    Awaited,
    /// These positions were handed the message and have not acked; ascending.
    Answered {
        unacked: Vec<u32>,
    },
    Broken,
    Silent,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Until every answer of the first look is in.
    First,
    /// Until it is time for the second.
    Between(Instant),
    /// Until every answer of the second look is in.
    Second,
}

impl Delivery {
    /// A message to `members`, of whom the sender needs no notification. `attempt` counts from 1. The look-up of all
    /// members has been made: give it to [`routed`](Self::routed).
    pub fn new(members: Arc<Members>, sender: &UserId, attempt: u32, times: Times) -> Self {
        let mut reached = Reached::nobody(members);
        reached.mark_user(sender);
        Self {
            times,
            attempt,
            reached,
            pushes: Vec::new(),
            lost: BTreeSet::new(),
            looking: true,
            stage: Stage::First,
            unreachable: false,
        }
    }

    /// The members at these positions.
    pub fn users(&self, positions: &[u32]) -> Vec<UserId> {
        self.reached.users(positions)
    }

    /// What the look-up found, each gateway once; answers with what to push.
    pub fn routed(&mut self, holders: &[Holder], now: Instant) -> Vec<Push> {
        self.looking = false;
        let mut orders = Vec::with_capacity(holders.len());
        for holder in holders {
            let (shown, asked) = match self.stage {
                // The whole message's first look-up: as it is, without a copy.
                Stage::First if self.pushes.is_empty() => (Some(Arc::clone(&holder.users)), None),
                Stage::First | Stage::Between(_) => (self.not_pushed(holder), None),
                Stage::Second => self.not_acked(holder),
            };
            orders.extend(shown.map(|users| (holder.gateway, users, Ask::Show)));
            orders.extend(asked.map(|users| (holder.gateway, users, Ask::Acked)));
        }
        orders.into_iter().map(|(gateway, users, ask)| self.push(gateway, users, ask, now)).collect()
    }

    /// A gateway's result. One that comes late is as good.
    pub fn answered(&mut self, push: PushId, result: &PushResult) {
        let Some(under_way) = self.pushes.get_mut(push.0) else { return };
        let mut unacked = Vec::new();
        if !result.stale_incarnation {
            unacked = self.reached.positions(&result.unacked);
            let mut excepted = unacked.clone();
            excepted.extend(self.reached.positions(&result.gone));
            excepted.extend(self.reached.positions(&result.slow));
            excepted.sort_unstable();
            for position in under_way.users.iter() {
                if excepted.binary_search(position).is_err() {
                    self.reached.mark(*position);
                }
            }
        }
        under_way.outcome = Outcome::Answered { unacked };
    }

    /// There will be no result.
    pub fn lost(&mut self, push: PushId, loss: Loss) {
        let Some(under_way) = self.pushes.get_mut(push.0) else { return };
        if !matches!(under_way.outcome, Outcome::Awaited) {
            return;
        }
        under_way.outcome = match loss {
            Loss::Broken => Outcome::Broken,
            Loss::Unreachable => Outcome::Silent,
        };
        self.unreachable |= loss == Loss::Unreachable;
        if matches!(self.stage, Stage::First) {
            self.lost.extend(under_way.users.iter());
        }
    }

    /// What to do at this time. After an end nothing more is to be asked.
    pub fn next(&mut self, now: Instant) -> Step {
        let overdue = |under_way: &UnderWay| matches!(under_way.outcome, Outcome::Awaited) && under_way.due <= now;
        let silent: Vec<_> = (0..self.pushes.len()).filter(|index| overdue(&self.pushes[*index])).collect();
        for index in silent {
            self.lost(PushId(index), Loss::Unreachable);
        }
        if self.unreachable && self.attempt == 1 {
            return Step::HandOver;
        }
        if !self.looking && !self.lost.is_empty() {
            self.looking = true;
            return Step::LookUp(std::mem::take(&mut self.lost).into_iter().collect());
        }
        let awaited = self.pushes.iter().filter(|push| matches!(push.outcome, Outcome::Awaited));
        match (awaited.map(|push| push.due).min(), self.stage) {
            (Some(due), _) => Step::Wait(due),
            // Whoever looks up has a time limit of his own.
            (None, _) if self.looking => Step::Wait(now + self.times.patience),
            (None, Stage::First) => {
                let missed = self.reached.missed();
                if missed.is_empty() {
                    return Step::Finish { missed: Vec::new() };
                }
                self.stage = Stage::Between(now + self.times.second_look);
                Step::Wait(now + self.times.second_look)
            }
            (None, Stage::Between(until)) if now < until => Step::Wait(until),
            (None, Stage::Between(_)) => {
                self.stage = Stage::Second;
                // A late answer may have come meanwhile.
                let missed = self.reached.missed();
                self.looking = !missed.is_empty();
                if self.looking { Step::LookUp(missed) } else { Step::Finish { missed: Vec::new() } }
            }
            (None, Stage::Second) => Step::Finish { missed: self.users(&self.reached.missed()) },
        }
    }

    fn push(&mut self, gateway: IncarnationId, users: Users, ask: Ask, now: Instant) -> Push {
        let wait = match ask {
            Ask::Show => self.times.ack_wait,
            Ask::Acked => Duration::ZERO,
        };
        let (id, due) = (PushId(self.pushes.len()), now + wait + self.times.patience);
        self.pushes.push(UnderWay { gateway, users: Arc::clone(&users), due, outcome: Outcome::Awaited });
        Push { id, gateway, users, ask }
    }

    /// Those of a holder's users for whom it has not been given the message.
    fn not_pushed(&self, holder: &Holder) -> Option<Users> {
        let fresh = |position: &u32| !self.at(holder.gateway).any(|push| has(&push.users, *position));
        some(holder.users.iter().copied().filter(fresh).collect())
    }

    /// For the second look: to whom of a holder's users it shows the message, and of whom it says whether they acked.
    fn not_acked(&self, holder: &Holder) -> (Option<Users>, Option<Users>) {
        let (mut shown, mut asked) = (Vec::new(), Vec::new());
        for position in holder.users.iter().copied() {
            let mut silent = false;
            let mut handed = false;
            for push in self.at(holder.gateway) {
                match &push.outcome {
                    Outcome::Answered { unacked } => handed |= has(unacked, position),
                    Outcome::Silent => silent |= has(&push.users, position),
                    Outcome::Awaited | Outcome::Broken => {}
                }
            }
            match (handed, silent) {
                (true, _) => asked.push(position),
                (false, true) => {}
                (false, false) => shown.push(position),
            }
        }
        (some(shown), some(asked))
    }

    fn at(&self, gateway: IncarnationId) -> impl Iterator<Item = &UnderWay> {
        self.pushes.iter().filter(move |push| push.gateway == gateway)
    }
}

fn has(ascending: &[u32], position: u32) -> bool {
    ascending.binary_search(&position).is_ok()
}

fn some(positions: Vec<u32>) -> Option<Users> {
    (!positions.is_empty()).then(|| positions.into())
}

#[cfg(test)]
mod tests;
