//! `touchline outbox`: messages whose fan-out is not finished, and those that were given up.

use crate::{
    life, parts,
    settings::Source,
    terminal::{confirm, say},
};
use anyhow::ensure;
use clap::Subcommand;
use serde_json::json;
use std::io::Write as _;
use touchline_ids::{ChannelId, Seq};
use touchline_storage::{Letter, MAX_ATTEMPTS, Storage};
use uuid::Uuid;

const EXAMPLES: &str = "\
Examples:
  touchline outbox list                              what is under way or waits, and what was given up
  touchline outbox list --dead --json                only dead letters, one JSON object a line
  touchline outbox retry 0190f3a5-8c62-7cc1-b7a8-3f2b1c9de001 42
  touchline outbox retry --all-dead                  after the cause is gone
  touchline outbox drop 0190f3a5-8c62-7cc1-b7a8-3f2b1c9de001 42 43 --yes

A message whose fan-out has begun five times without coming to its end is a dead letter: nobody pushes it or
notifies of it any more until it is retried. It stays in its channel's log, and devices get it when they sync.";

/// Rows asked for at once.
const PAGE: u64 = 500;

/// `touchline outbox …`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what is in the outbox, never with a message's text
    List {
        /// Only what was given up
        #[arg(long)]
        dead: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: Source,
    },
    /// Give dead letters their attempts anew; a running api takes them within a second
    Retry {
        /// The channel's id
        #[arg(required_unless_present = "all_dead")]
        channel: Option<ChannelId>,
        /// Positions in its log
        #[arg(required_unless_present = "all_dead", value_name = "SEQ", value_parser = seq)]
        seqs: Vec<Seq>,
        /// Every dead letter
        #[arg(long, conflicts_with_all = ["channel", "seqs"])]
        all_dead: bool,
        #[command(flatten)]
        source: Source,
    },
    /// Take rows out of the outbox: nobody pushes these messages or notifies of them any more
    Drop {
        /// The channel's id
        channel: ChannelId,
        /// Positions in its log
        #[arg(required = true, value_name = "SEQ", value_parser = seq)]
        seqs: Vec<Seq>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        source: Source,
    },
}

fn seq(text: &str) -> Result<Seq, String> {
    text.parse().ok().filter(|seq| *seq > 0).map(Seq).ok_or_else(|| "must be a number from 1".to_owned())
}

fn messages(channel: ChannelId, seqs: &[Seq]) -> Vec<(ChannelId, Seq)> {
    seqs.iter().map(|&seq| (channel, seq)).collect()
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (Action::List { source, .. } | Action::Retry { source, .. } | Action::Drop { source, .. }) = &arguments.action;
    let config = source.load(&[], |config| config.database_problems())?.config;
    if let Action::Drop { seqs, yes: false, .. } = &arguments.action {
        let count = seqs.len();
        let question = format!("Nobody will push or notify of these {count} messages any more. Drop them?");
        confirm("touchline outbox drop", &question)?;
    }
    life::run(async {
        let storage = parts::storage(&config).await?;
        match &arguments.action {
            Action::List { dead, json, .. } => list(&storage, *dead, *json).await?,
            Action::Retry { channel: Some(channel), seqs, .. } => retry(&storage, &messages(*channel, seqs)).await?,
            Action::Retry { .. } => say(&format!("retried {}", storage.retry_all_dead().await?))?,
            Action::Drop { channel, seqs, .. } => drop_rows(&storage, &messages(*channel, seqs)).await?,
        }
        Ok(storage.close().await?)
    })
}

async fn list(storage: &Storage, only_dead: bool, as_json: bool) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    let (mut after, mut count) = (None, 0);
    loop {
        let page = storage.letters(only_dead, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.channel_id, last.seq));
        for letter in &page {
            let line = if as_json { object(letter) } else { line(letter) };
            writeln!(stdout, "{line}")?;
            count += 1;
        }
    }
    if !as_json && count == 0 {
        writeln!(stdout, "{}", if only_dead { "no dead letters" } else { "the outbox is empty" })?;
    }
    Ok(())
}

async fn retry(storage: &Storage, messages: &[(ChannelId, Seq)]) -> anyhow::Result<()> {
    let retried = storage.retry(messages).await?;
    say(&format!("retried {retried}"))?;
    let missing = messages.len() as u64 - retried;
    ensure!(missing == 0, "{missing} of {} are no dead letters: see `touchline outbox list --dead`", messages.len());
    Ok(())
}

async fn drop_rows(storage: &Storage, messages: &[(ChannelId, Seq)]) -> anyhow::Result<()> {
    let dropped = storage.drop_letters(messages).await?;
    say(&format!("dropped {dropped}"))?;
    let missing = messages.len() as u64 - dropped;
    ensure!(missing == 0, "{missing} of {} are not in the outbox: see `touchline outbox list`", messages.len());
    Ok(())
}

fn state(letter: &Letter) -> &'static str {
    match letter.claim_ms {
        _ if letter.is_dead => "dead",
        Some(left) if left > 0 && letter.owner != Uuid::nil() => "claimed",
        _ => "waiting",
    }
}

fn line(letter: &Letter) -> String {
    let Letter { channel_id, seq, attempts, .. } = letter;
    let what = letter.kind.map_or("its message is not there", |kind| kind.as_str());
    format!("{channel_id} {seq}  {what}, attempt {attempts} of {MAX_ATTEMPTS}, {}", state(letter))
}

fn object(letter: &Letter) -> String {
    let owner = (letter.owner != Uuid::nil()).then_some(letter.owner);
    json!({
        "channel_id": letter.channel_id,
        "seq": letter.seq,
        "state": state(letter),
        "attempts": letter.attempts,
        "owner": owner,
        "claim_ms": letter.claim_ms,
        "kind": letter.kind,
        "sender_id": letter.sender_id,
        "created_at_ms": letter.created_at,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchline_storage::Kind;

    fn letter() -> Letter {
        Letter {
            channel_id: ChannelId(Uuid::from_u128(7)),
            seq: Seq(42),
            attempts: 5,
            is_dead: true,
            owner: Uuid::nil(),
            claim_ms: None,
            sender_id: None,
            kind: Some(Kind::Text),
            created_at: Some(9),
        }
    }

    #[test]
    fn a_letter_says_what_it_is_and_what_becomes_of_it() {
        let dead = letter();
        let id = dead.channel_id;
        assert_eq!(line(&dead), format!("{id} 42  text, attempt 5 of 5, dead"));
        let owner = Uuid::from_u128(1);
        let claimed = Letter { is_dead: false, attempts: 1, owner, claim_ms: Some(10), kind: None, ..letter() };
        let text = format!("{id} 42  its message is not there, attempt 1 of 5, claimed");
        assert_eq!(line(&claimed), text);
        let waits = Letter { claim_ms: Some(-1), ..claimed };
        assert!(line(&waits).ends_with("waiting"));
        let json: serde_json::Value = serde_json::from_str(&object(&dead)).unwrap();
        assert_eq!((&json["state"], &json["seq"], &json["owner"]), (&json!("dead"), &json!(42), &json!(null)));
    }

    #[test]
    fn a_position_is_a_number_from_one() {
        assert_eq!(seq("1"), Ok(Seq(1)));
        assert!(["0", "-1", "x", ""].into_iter().all(|text| seq(text).is_err()));
    }
}
