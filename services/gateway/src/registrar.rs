//! What has to be told to the registry, and when, without I/O: ended sessions are forgotten; after a loss every
//! session is registered again, the newest first, and once more a little later; over ten minutes everybody is
//! registered anyway; routes that pushes found stale are removed. Times, events and answers go in, work comes out,
//! one piece at a time. All in batches at a bounded rate, so that neither a mass close nor a lost Redis becomes a
//! storm.

use crate::hub::{Hub, Member};
use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::Instant;
use touchline_ids::UserId;
use touchline_registry::{Registered, Registration};

/// Routes removed at once.
const FORGOTTEN_AT_ONCE: usize = 64;
/// After a loss: sessions registered at once, and how often: 5,000 in a second. Sessions are told to sync as fast.
const AT_ONCE: usize = 250;
const EVERY: Duration = Duration::from_millis(50);
/// From a loss to registering everybody once more: a fail-over may take back what was written at first.
const ONCE_MORE: Duration = Duration::from_secs(10);
/// In so long everybody is registered anyway, this many at once.
const SWEEP: Duration = Duration::from_secs(600);
const SWEPT_AT_ONCE: usize = 64;
/// Between two attempts while the registry is away.
const RETRY: Duration = Duration::from_secs(1);
/// Stale users removed at once, and how often: 2,500 in a second.
const PRUNED_EVERY: Duration = Duration::from_millis(100);
/// In a minute so many users are taken for stale, as many as one push can name, and none of them twice: while apis
/// broadcast they ask every gateway about everybody, and nothing is stale.
const STALE: usize = 20_000;
const STALE_FOR: Duration = Duration::from_secs(60);

/// How much the registry lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Perhaps some routes: clients sync whose routes were not there.
    Possible,
    /// The lease, so that nobody was found here: every client syncs.
    Certain,
}

/// What to do next. Each piece is answered before the next is asked for.
#[derive(Debug)]
pub(crate) enum Work {
    /// Store these sessions' routes; answer with [`Registrar::registered`].
    Register(Vec<Candidate>),
    /// Remove these routes where they are unchanged; answer with [`Registrar::forgotten`].
    Forget(Vec<Registration>),
    /// Remove every route of these users at this incarnation; answer with [`Registrar::pruned`].
    Prune(Vec<UserId>),
    /// Nothing before this moment, or before the next event.
    Wait(Option<Instant>),
}

/// A session to register.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) member: Arc<Member>,
    /// Tell it to sync even when its route was there.
    tell: bool,
}

/// What follows from the answers to a batch.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// To be told to sync: their routes are visible now and were not before.
    pub(crate) ready: Vec<Arc<Member>>,
    /// The registry has another route of the device. Where that one is dead, it is to be taken over.
    pub(crate) newer: Vec<(Arc<Member>, Registration)>,
}

/// Everybody at some moment, in the order in which they are registered from the end.
#[derive(Debug)]
struct Pass {
    // Weak, so that nobody's queue outlives the session for ten minutes.
    left: Vec<(Weak<Member>, bool)>,
    next: Instant,
    every: Duration,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Registrar {
    /// After a loss.
    restoring: Option<Pass>,
    once_more: Option<Instant>,
    sweep: Option<Pass>,
    next_sweep: Instant,
    /// Single sessions whose routes were removed under them.
    undone: VecDeque<Weak<Member>>,
    ended: VecDeque<Registration>,
    ended_max: usize,
    forgetting: bool,
    stale: VecDeque<UserId>,
    /// Taken for stale since then.
    met_stale: HashSet<UserId>,
    met_since: Instant,
    next_prune: Instant,
    /// Nothing is registered before: the registry is away.
    rest: Option<Instant>,
    to_tell: VecDeque<Weak<Member>>,
    next_tell: Instant,
    #[cfg(feature = "simulation")]
    pub(crate) broken: crate::simulation::Broken,
}

impl Registrar {
    /// A registrar with room for so many ended sessions.
    pub(crate) fn new(capacity: usize, now: Instant) -> Self {
        Self {
            restoring: None,
            once_more: None,
            sweep: None,
            next_sweep: now + SWEEP,
            undone: VecDeque::new(),
            ended: VecDeque::new(),
            ended_max: capacity.max(FORGOTTEN_AT_ONCE),
            forgetting: false,
            stale: VecDeque::new(),
            met_stale: HashSet::new(),
            met_since: now,
            next_prune: now,
            rest: None,
            to_tell: VecDeque::new(),
            next_tell: now,
            #[cfg(feature = "simulation")]
            broken: crate::simulation::Broken::default(),
        }
    }

    /// The registry lost routes. Begins anew when it is busy with a loss before.
    pub(crate) fn lost(&mut self, hub: &Hub, loss: Loss, now: Instant) {
        #[cfg(feature = "simulation")]
        if self.broken.no_reregistration {
            return;
        }
        // What the pass before had to tell and did not is still to be told.
        let untold = self.restoring.take().is_some_and(|pass| pass.left.iter().any(|(_, tell)| *tell));
        self.restoring = Some(Pass::of_everybody(hub, untold || loss == Loss::Certain, EVERY, now));
        self.once_more = Some(now + ONCE_MORE);
        self.rest = None;
    }

    /// Whether a loss is still being made good.
    pub(crate) fn is_restoring(&self) -> bool {
        self.restoring.is_some()
    }

    /// A session ended. False when there is no room: its route stays, which is harmless, for its pushes are answered
    /// "gone" and the route is removed then.
    #[must_use]
    pub(crate) fn forget(&mut self, registration: Registration) -> bool {
        let room = self.ended.len() < self.ended_max;
        if room {
            self.ended.push_back(registration);
        }
        room
    }

    /// Whether every ended session is forgotten.
    pub(crate) fn has_forgotten(&self) -> bool {
        self.ended.is_empty() && !self.forgetting
    }

    /// A push that followed this user's route found no session. Too many in a minute are let go: the next push meets
    /// them again.
    pub(crate) fn stale(&mut self, user: UserId, now: Instant) {
        if now.saturating_duration_since(self.met_since) >= STALE_FOR {
            self.met_stale.clear();
            self.met_since = now;
        }
        if self.met_stale.len() < STALE && self.stale.len() < STALE && self.met_stale.insert(user) {
            self.stale.push_back(user);
        }
    }

    /// These sessions may have missed something. More than there are sessions become everybody.
    pub(crate) fn resync(&mut self, hub: &Hub, members: &[Arc<Member>]) {
        self.to_tell.extend(members.iter().map(Arc::downgrade));
        if self.to_tell.len() > (hub.sessions() as usize).max(AT_ONCE) {
            self.to_tell = hub.members().iter().map(Arc::downgrade).collect();
        }
    }

    /// Whom to tell to sync now; nobody until the moment in the other case.
    pub(crate) fn tell(&mut self, now: Instant) -> Result<Vec<Arc<Member>>, Option<Instant>> {
        if self.to_tell.is_empty() {
            return Err(None);
        }
        if now < self.next_tell {
            return Err(Some(self.next_tell));
        }
        self.next_tell = now + EVERY;
        let batch = self.to_tell.drain(..AT_ONCE.min(self.to_tell.len()));
        Ok(batch.filter_map(|member| member.upgrade()).collect())
    }

    /// What to do now.
    pub(crate) fn next(&mut self, hub: &Hub, now: Instant) -> Work {
        self.begin(hub, now);
        if self.rest.is_none_or(|rest| now >= rest) {
            let batch = self.batch(hub, now);
            if !batch.is_empty() {
                return Work::Register(batch);
            }
        }
        while !self.ended.is_empty() {
            let batch = self.ended.drain(..FORGOTTEN_AT_ONCE.min(self.ended.len()));
            // The same connection again, a client's mistake: the route is the new session's now.
            let batch: Vec<_> = batch.filter(|route| !hub.holds(route)).collect();
            if !batch.is_empty() {
                self.forgetting = true;
                return Work::Forget(batch);
            }
        }
        if !self.stale.is_empty() && now >= self.next_prune {
            self.next_prune = now + PRUNED_EVERY;
            // Whoever has come meanwhile has a route that means something.
            let batch = self.stale.drain(..AT_ONCE.min(self.stale.len()));
            let batch: Vec<_> = batch.filter(|user| !hub.has(*user)).collect();
            if !batch.is_empty() {
                return Work::Prune(batch);
            }
        }
        Work::Wait(self.wake(now))
    }

    /// Answers to a batch, one each in order; none when the registry is away.
    pub(crate) fn registered(
        &mut self,
        hub: &Hub,
        batch: Vec<Candidate>,
        answers: Option<Vec<Registered>>,
        now: Instant,
    ) -> Followed {
        let mut followed = Followed::default();
        let Some(answers) = answers else {
            // Whether they were stored is not known: next time they are told, whatever was there.
            let pass = self.restoring.get_or_insert_with(|| Pass { left: Vec::new(), next: now, every: EVERY });
            pass.left.extend(batch.iter().rev().map(|candidate| (Arc::downgrade(&candidate.member), true)));
            self.rest = Some(now + RETRY);
            return followed;
        };
        self.rest = None;
        for (candidate, answer) in batch.into_iter().zip(answers) {
            let Candidate { member, tell } = candidate;
            if !hub.holds(&member.registration) {
                // It left in between and has just been registered once too often.
                let _ = self.forget(member.registration.clone());
                continue;
            }
            match answer {
                Registered::Kept if !tell => {}
                Registered::Stored | Registered::Kept => followed.ready.push(member),
                Registered::Newer { incarnation, connection } => {
                    let newer = Registration { incarnation, connection, ..member.registration.clone() };
                    followed.newer.push((member, newer));
                }
            }
        }
        followed
    }

    /// These were removed, or the registry is away; then the routes stay, which is harmless.
    pub(crate) fn forgotten(&mut self, hub: &Hub, routes: &[Registration]) {
        self.forgetting = false;
        // The same connection again, in between: its route may be gone.
        self.undone.extend(routes.iter().filter_map(|route| hub.member(route)).map(|member| Arc::downgrade(&member)));
    }

    /// These users' routes were removed, or the registry is away. Then nothing is known of the others either.
    pub(crate) fn pruned(&mut self, hub: &Hub, users: &[UserId], done: bool) {
        if !done {
            self.stale.clear();
        }
        // Whoever came in between has lost the route.
        self.undone.extend(hub.members_of(users).iter().map(Arc::downgrade));
    }

    /// Begins what is due.
    fn begin(&mut self, hub: &Hub, now: Instant) {
        #[cfg(feature = "simulation")]
        if self.broken.no_reregistration {
            return;
        }
        if self.restoring.is_none() && self.once_more.is_some_and(|at| now >= at) {
            self.once_more = None;
            self.restoring = Some(Pass::of_everybody(hub, false, EVERY, now));
        }
        if self.sweep.is_none() && now >= self.next_sweep {
            let batches = (hub.sessions() as usize).div_ceil(SWEPT_AT_ONCE).max(1);
            self.sweep = Some(Pass::of_everybody(hub, false, SWEEP / batches as u32, now));
            self.next_sweep = now + SWEEP;
        }
    }

    /// The next sessions to register: single ones, then those of a loss, then those of the sweep.
    fn batch(&mut self, hub: &Hub, now: Instant) -> Vec<Candidate> {
        if self.undone.len() > self.ended_max {
            // So many that it is simpler to look at everybody.
            self.undone.clear();
            self.lost(hub, Loss::Possible, now);
        }
        let lives = |member: &Weak<Member>| member.upgrade().filter(|member| hub.holds(&member.registration));
        let undone = self.undone.drain(..AT_ONCE.min(self.undone.len()));
        let mut batch: Vec<_> =
            undone.filter_map(|member| lives(&member)).map(|member| Candidate { member, tell: false }).collect();
        if !batch.is_empty() {
            return batch;
        }
        for (pass, at_once) in [(self.restoring.as_mut(), AT_ONCE), (self.sweep.as_mut(), SWEPT_AT_ONCE)] {
            let Some(pass) = pass.filter(|pass| batch.is_empty() && now >= pass.next) else { continue };
            while batch.len() < at_once
                && let Some((member, tell)) = pass.left.pop()
            {
                batch.extend(lives(&member).map(|member| Candidate { member, tell }));
            }
            pass.next = now + pass.every;
        }
        self.restoring.take_if(|pass| pass.left.is_empty());
        self.sweep.take_if(|pass| pass.left.is_empty());
        batch
    }

    /// When there may be something to do next.
    fn wake(&self, now: Instant) -> Option<Instant> {
        let restoring = self.restoring.as_ref().map(|pass| pass.next);
        let sweep = self.sweep.as_ref().map_or(self.next_sweep, |pass| pass.next);
        let undone = (!self.undone.is_empty()).then_some(now);
        let prune = (!self.stale.is_empty()).then_some(self.next_prune);
        let once_more = self.once_more.filter(|_| self.restoring.is_none());
        let register = restoring.into_iter().chain(once_more).chain(undone).chain([sweep]).min();
        let register = register.map(|at| self.rest.map_or(at, |rest| rest.max(at)));
        register.into_iter().chain(prune).min()
    }
}

impl Pass {
    fn of_everybody(hub: &Hub, tell: bool, every: Duration, now: Instant) -> Self {
        let mut members = hub.members();
        // Ids of sessions grow with time: the newest is taken first, from the end.
        members.sort_unstable_by_key(|member| member.session);
        Self { left: members.iter().map(|member| (Arc::downgrade(member), tell)).collect(), next: now, every }
    }
}

#[cfg(test)]
mod tests;
