//! `touchline notifications`: who is to be notified, and what was given up.

use crate::{
    life, parts,
    settings::Source,
    terminal::{confirm, say},
};
use anyhow::ensure;
use clap::Subcommand;
use serde_json::json;
use std::io::Write as _;
use touchline_ids::{ChannelId, UserId};
use touchline_storage::{NotificationLetter, Storage};

const EXAMPLES: &str = "\
Examples:
  touchline notifications list                       what is due, waits, was sent and not acked, or was given up
  touchline notifications list --dead --json         only what was given up, one JSON object a line
  touchline notifications retry USER CHANNEL         now, whatever it waits for
  touchline notifications retry --all-dead           after the cause is gone
  touchline notifications drop USER CHANNEL --yes

A notification is given up when the push service calls the push itself wrong, or when ten notifiers died at it. It
is tried again when the user misses another message of the channel, or when it is retried.";

/// Rows asked for at once.
const PAGE: u64 = 500;

/// `touchline notifications …`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List notifications, never with a message's text
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
    /// Make notifications due now, with their attempts anew; a running notifier takes them within seconds
    Retry {
        /// The user's id
        #[arg(required_unless_present = "all_dead", requires = "channel")]
        user: Option<UserId>,
        /// The channel's id
        #[arg(requires = "user")]
        channel: Option<ChannelId>,
        /// Everything that was given up
        #[arg(long, conflicts_with_all = ["user", "channel"])]
        all_dead: bool,
        #[command(flatten)]
        source: Source,
    },
    /// Take a notification away: the user is not notified of what it was for
    Drop {
        /// The user's id
        user: UserId,
        /// The channel's id
        channel: ChannelId,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        source: Source,
    },
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (Action::List { source, .. } | Action::Retry { source, .. } | Action::Drop { source, .. }) = &arguments.action;
    let config = source.load(&[], |config| config.database_problems())?.config;
    if let Action::Drop { yes: false, .. } = &arguments.action {
        confirm("touchline notifications drop", "The user will not be notified of these messages. Drop it?")?;
    }
    life::run(async {
        let storage = parts::storage(&config).await?;
        match &arguments.action {
            Action::List { dead, json, .. } => list(&storage, *dead, *json).await?,
            Action::Retry { user: Some(user), channel: Some(channel), .. } => {
                let retried = storage.retry_notifications(&[(*user, *channel)]).await?;
                say(&format!("retried {retried}"))?;
                ensure!(retried == 1, "nothing is to be sent there: see `touchline notifications list`");
            }
            Action::Retry { .. } => say(&format!("retried {}", storage.retry_all_dead_notifications().await?))?,
            Action::Drop { user, channel, .. } => {
                let dropped = storage.drop_notifications(&[(*user, *channel)]).await?;
                say(&format!("dropped {dropped}"))?;
                ensure!(dropped == 1, "there is no such notification: see `touchline notifications list`");
            }
        }
        Ok(storage.close().await?)
    })
}

async fn list(storage: &Storage, only_dead: bool, as_json: bool) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    let (mut after, mut count) = (None, 0);
    loop {
        let page = storage.notification_letters(only_dead, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.user_id, last.channel_id));
        for letter in &page {
            writeln!(stdout, "{}", if as_json { object(letter) } else { line(letter) })?;
            count += 1;
        }
    }
    if !as_json && count == 0 {
        writeln!(stdout, "{}", if only_dead { "nothing was given up" } else { "no notifications" })?;
    }
    Ok(())
}

fn state(letter: &NotificationLetter) -> &'static str {
    match letter.due_ms {
        _ if letter.is_dead => "dead",
        None => "sent",
        Some(..=0) => "due",
        Some(_) => "waiting",
    }
}

fn line(letter: &NotificationLetter) -> String {
    let NotificationLetter { user_id, channel_id, max_seq, count, tries, .. } = letter;
    format!("{user_id} {channel_id}  {count} missed up to {max_seq}, put off {tries} times, {}", state(letter))
}

fn object(letter: &NotificationLetter) -> String {
    json!({
        "user_id": letter.user_id,
        "channel_id": letter.channel_id,
        "state": state(letter),
        "max_seq": letter.max_seq,
        "count": letter.count,
        "sent_seq": letter.sent_seq,
        "attempts": letter.attempts,
        "tries": letter.tries,
        "due_ms": letter.due_ms,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchline_ids::Seq;
    use uuid::Uuid;

    #[test]
    fn a_notification_says_what_it_is_and_what_becomes_of_it() {
        let dead = NotificationLetter {
            user_id: UserId(Uuid::from_u128(1)),
            channel_id: ChannelId(Uuid::from_u128(7)),
            max_seq: Seq(42),
            count: 3,
            sent_seq: Seq(0),
            attempts: 5,
            tries: 2,
            is_dead: true,
            due_ms: None,
        };
        let (user, channel) = (dead.user_id, dead.channel_id);
        assert_eq!(line(&dead), format!("{user} {channel}  3 missed up to 42, put off 2 times, dead"));
        for (due_ms, expected) in [(None, "sent"), (Some(0), "due"), (Some(5), "waiting")] {
            let letter = NotificationLetter { is_dead: false, due_ms, ..dead.clone() };
            assert_eq!(state(&letter), expected);
        }
        let json: serde_json::Value = serde_json::from_str(&object(&dead)).unwrap();
        assert_eq!((&json["state"], &json["max_seq"]), (&json!("dead"), &json!(42)));
    }
}
