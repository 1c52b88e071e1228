//! One thing that is wrong with a configuration.

use crate::print::hide_password;
use std::fmt;

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted path of the key, such as `api.http`, or the file that could not be read.
    pub path: String,
    /// What is wrong and what would be right.
    pub what: String,
}

impl Problem {
    /// A problem of the key at `path`.
    pub fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into() }
    }

    /// The same problem, seen from outside of the section that holds its key.
    #[must_use]
    pub fn within(self, section: &str) -> Self {
        Self { path: format!("{section}.{}", self.path), what: self.what }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A rule may quote the URL it refuses.
        let what: Vec<_> = self.what.split(' ').map(hide_password).collect();
        write!(f, "{}: {}", self.path, what.join(" "))
    }
}
