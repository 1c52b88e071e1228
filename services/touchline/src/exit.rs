//! How the process ends: 0 fine, 1 failure, 64 bad usage or configuration (`EX_USAGE` of sysexits.h).

use std::{fmt, io::Write as _, process::ExitCode};
use touchline_config::Problem;
use touchline_storage::StorageError;

const USAGE: u8 = 64;

/// The user must change what they gave us.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Everything that is wrong with the configuration.
    #[error("{}", lines(.0))]
    Configuration(Vec<Problem>),
    /// The command cannot be carried out as it was given.
    #[error("{0}")]
    Usage(String),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Tells what went wrong, if anything, and gives the code to end with.
pub(crate) fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let mut stderr = std::io::stderr();
    if let Some(refused) = error.downcast_ref::<Refused>() {
        let _ = writeln!(stderr, "{refused}");
        return ExitCode::from(USAGE);
    }
    let _ = writeln!(stderr, "touchline: {}", Chain(&error));
    let settings = error.chain().any(|cause| matches!(cause.downcast_ref(), Some(StorageError::Settings(_))));
    if settings { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

/// What clap could not parse, or `--help` and `--version`, which it treats alike.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// An error and its causes in one line. Some errors repeat their cause in their own text: once is enough.
struct Chain<'a>(&'a anyhow::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = String::new();
        for cause in self.0.chain().map(ToString::to_string) {
            if said.contains(&cause) {
                continue;
            }
            if !said.is_empty() {
                f.write_str(": ")?;
            }
            f.write_str(&cause)?;
            said.push_str(&cause);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_said_is_not_repeated() {
        let error = anyhow::anyhow!("no route to host").context("connecting: no route to host").context("the database");
        assert_eq!(Chain(&error).to_string(), "the database: connecting: no route to host");
    }
}
