//! The rules of delivery in virtual time: the state machines of api, gateway and client in one seeded world of faults.
//!
//! A seed is a whole world: who is in it, who sends what when, what goes wrong, how long everything is on its way. The
//! processes in it run the real rules: `touchline_client::rules`, the gateway's sessions, hub, queues and registrar,
//! the api's `Delivery` and claims. Around them the transport, the database and the registry are models that keep to the
//! contracts of the real ones (`shared/storage/src/contract`, `shared/registry/src/contract`) and fail as those may fail. When
//! all faults are healed and some time has passed, [`run`] judges whether the delivery contract held.
//!
//! A seed runs one way only. When one fails, its number brings it back, with every step it took:
//!
//! ```text
//! SEED=123 cargo test --workspace --all-targets -- one_seed --nocapture
//! ```
//!
//! `FAULTS=one`, `none` or `tail` beside it for the seeds with one fault, none, or a database that loses its tail.
//!
//! [`Sabotage`] breaks one rule on purpose, to show that the worlds find what they are to find.
//!
//! Never depends on I/O: no socket, no file, no clock.

mod api;
mod database;
mod device;
mod faults;
mod gateway;
mod names;
mod record;
mod registry;
mod sabotage;
mod sender;
mod shape;
mod simulation;
mod verdict;
mod world;

pub use faults::Faults;
pub use sabotage::Sabotage;

use simulation::Simulation;
use std::{
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// What kind of worlds.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// What goes wrong in them.
    pub faults: Faults,
    /// Which rule is broken on purpose.
    pub sabotage: Sabotage,
}

/// What a world came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Things that happened.
    pub events: u64,
    /// Messages accepted.
    pub accepted: u64,
    /// Messages shown, over all devices.
    pub shown: u64,
    /// Notification rows written.
    pub notified: u64,
}

/// A world in which the contract did not hold.
pub struct Failure {
    /// Its number.
    pub seed: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
    /// Every step, oldest first.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    /// With the faults and the last steps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}:", self.seed)?;
        self.wrong.iter().take(10).try_for_each(|wrong| writeln!(f, "  {wrong}"))?;
        let faults = self.trace.iter().filter(|line| line.contains("FAULT") || line.contains("HEALED"));
        faults.into_iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "  … the last of {} steps:", self.trace.len())?;
        self.trace.iter().rev().take(30).rev().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Runs one world.
///
/// # Errors
/// [`Failure`] when the contract did not hold in it, or a machine panicked.
pub fn run(seed: u64, setting: Setting) -> Result<Figures, Box<Failure>> {
    // Without a trace: writing it takes longer than everything else.
    let (figures, wrong, _) = attempt(seed, setting, false);
    if wrong.is_empty() {
        return Ok(figures);
    }
    let (_, wrong_again, trace) = attempt(seed, setting, true);
    let wrong = if wrong_again.is_empty() { [wrong, vec!["and not again".to_owned()]].concat() } else { wrong_again };
    Err(Box::new(Failure { seed, wrong, trace }))
}

/// Runs one world and tells every step of it.
pub fn trace(seed: u64, setting: Setting) -> (Vec<String>, Vec<String>) {
    let (_, wrong, trace) = attempt(seed, setting, true);
    (wrong, trace)
}

fn attempt(seed: u64, setting: Setting, traced: bool) -> (Figures, Vec<String>, Vec<String>) {
    let mut simulation = Simulation::new(seed, setting, traced);
    let ran = catch_unwind(AssertUnwindSafe(|| simulation.run()));
    let mut wrong = verdict::judge(&simulation, setting.faults);
    if ran.is_err() {
        wrong.insert(0, "a machine panicked".to_owned());
    }
    let figures = simulation.figures();
    (figures, wrong, simulation.world.record.take_trace())
}

/// Runs worlds one after the other on every core; answers with the sums, or with the failure of the lowest number.
///
/// # Errors
/// [`Failure`] of the first seed in which the contract did not hold.
pub fn run_all(seeds: Range<u64>, setting: Setting) -> Result<Figures, Box<Failure>> {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Figures::default());
    let failed: Mutex<Option<Box<Failure>>> = Mutex::new(None);
    let lock = |failed: &Mutex<Option<Box<Failure>>>| failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Numbers are given out in order, so whoever is under way may still find a lower one.
                    if seed >= seeds.end || lock(&failed) {
                        return;
                    }
                    match run(seed, setting) {
                        Ok(figures) => sum.lock().unwrap_or_else(PoisonError::into_inner).add(figures),
                        Err(failure) => {
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            if failed.as_ref().is_none_or(|other| failure.seed < other.seed) {
                                *failed = Some(failure);
                            }
                        }
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(sum.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

impl Figures {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.accepted += other.accepted;
        self.shown += other.shown;
        self.notified += other.notified;
    }
}
