//! What a scenario is: a row of the table of failure modes, acted out once.

use crate::outcome::Outcome;
use anyhow::Result;
use std::{path::PathBuf, pin::Pin, time::Duration};

/// One way to act out a row.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// Its row in the table of failure modes.
    pub(crate) row: u32,
    /// A statement that is to hold.
    pub(crate) name: &'static str,
    /// What must be so besides the zeros.
    pub(crate) target: &'static str,
    /// Whether it belongs to the short list.
    pub(crate) short: bool,
    /// Acts it out.
    pub(crate) run: fn(Context) -> Acting,
}

/// A scenario under way.
pub(crate) type Acting = Pin<Box<dyn Future<Output = Result<Outcome>>>>;

/// How it is to be acted out.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Of every choice.
    pub(crate) seed: u64,
    /// Less of everything.
    pub(crate) short: bool,
    /// Where the processes' logs are kept.
    pub(crate) logs: PathBuf,
}

impl Context {
    /// One for the short list, the other for the whole.
    pub(crate) fn pick<T>(&self, short: T, whole: T) -> T {
        if self.short { short } else { whole }
    }

    /// The same in seconds.
    pub(crate) fn seconds(&self, short: u64, whole: u64) -> Duration {
        Duration::from_secs(self.pick(short, whole))
    }
}

/// A [`Scenario`] from an async function.
macro_rules! scenario {
    ($row:literal, $name:ident, $target:literal, $short:expr) => {
        $crate::scenario::Scenario {
            row: $row,
            name: stringify!($name),
            target: $target,
            short: $short,
            run: |context| Box::pin($name(context)),
        }
    };
}
pub(crate) use scenario;
