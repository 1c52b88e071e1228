//! What the operator's commands say and ask on a terminal.

use crate::exit::Refused;
use std::io::{IsTerminal as _, Write as _};

/// Asks on a terminal; anywhere else it must be said beforehand, with `--yes`.
pub(crate) fn confirm(command: &str, question: &str) -> anyhow::Result<()> {
    let refused = |what: &str| Err(Refused::Usage(format!("{command}: {what}")).into());
    if !std::io::stdin().is_terminal() {
        return refused("nobody is here to confirm it: add --yes");
    }
    write!(std::io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { refused("nothing was dropped") }
}

/// Says one line.
pub(crate) fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
