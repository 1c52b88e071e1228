//! `touchline send`: a message, by hand.

use crate::{
    account::{self, Account},
    life,
};
use anyhow::Context as _;
use std::{io::Write as _, time::Duration};
use tokio::time::{Instant, sleep};
use touchline_client::{Channel, ClientError, Delays, NewMessage};
use touchline_ids::{ChannelId, UserId};

const EXAMPLES: &str = "\
Examples:
  touchline send general \"hello\" --as alice --invite bob
  TOUCHLINE_TOKEN=… touchline send 0190b3c8-7d3e-7c61-9b1a-2f6f0a6b8e11 \"hello\" --url https://chat.example.com

Prints the channel and the seq the message got. When no answer comes, it is sent again under the same
client_message_id, so it is stored once.";

/// How long an answer is worth waiting for, over all tries.
const PATIENCE: Duration = Duration::from_secs(30);

/// `touchline send …`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A channel of mine: its id or its name
    channel: String,
    /// What to say
    text: String,
    /// Who must be in the channel: a handle, again for more; a missing channel is made
    #[arg(long, value_name = "HANDLE")]
    invite: Vec<String>,
    #[command(flatten)]
    account: account::Arguments,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    life::run(async {
        let mut account = Account::open(arguments.account).await?;
        let invited = find_users(&mut account, &arguments.invite).await?;
        let (channel, name) = find_channel(&mut account, &arguments.channel, &invited).await?;
        let message = NewMessage::new(arguments.text);
        let sent = send(&mut account, channel, &message).await?;
        writeln!(std::io::stdout(), "{name} seq={} message_id={}", sent.seq, sent.message_id)?;
        Ok(())
    })
}

async fn find_users(account: &mut Account, handles: &[String]) -> anyhow::Result<Vec<UserId>> {
    let mut users = Vec::new();
    for handle in handles {
        let found = account.call(async |client| client.find_user(handle).await).await;
        users.push(found.with_context(|| format!("--invite {handle}"))?.id);
    }
    Ok(users)
}

/// The channel that is meant, made if need be, with everybody in it who must be.
async fn find_channel(account: &mut Account, wanted: &str, invited: &[UserId]) -> anyhow::Result<(ChannelId, String)> {
    let mine = account.call(async |client| client.channels().await).await?;
    let Some(channel) = choose(&mine, wanted)? else {
        anyhow::ensure!(
            !invited.is_empty(),
            "{wanted} is no channel of {}; to make one, say who is in it: --invite HANDLE",
            account.user.handle
        );
        let made = account.call(async |client| client.create_channel(wanted, invited).await).await?;
        return Ok((made.id, made.name));
    };
    if !invited.is_empty() {
        account.call(async |client| client.add_members(channel.id, invited).await).await?;
    }
    Ok((channel.id, channel.name.clone()))
}

/// The channel with this id, or the only one with this name.
pub(crate) fn choose<'a>(channels: &'a [Channel], wanted: &str) -> anyhow::Result<Option<&'a Channel>> {
    if let Ok(id) = wanted.parse::<ChannelId>() {
        return Ok(channels.iter().find(|channel| channel.id == id));
    }
    let named: Vec<_> = channels.iter().filter(|channel| channel.name == wanted).collect();
    let ids = || named.iter().map(|channel| channel.id.to_string()).collect::<Vec<_>>().join(", ");
    anyhow::ensure!(named.len() < 2, "several channels are called {wanted}; say which by its id: {}", ids());
    Ok(named.first().copied())
}

/// Sends until it is known what became of it.
async fn send(
    account: &mut Account,
    channel: ChannelId,
    message: &NewMessage,
) -> Result<touchline_client::Sent, ClientError> {
    let deadline = Instant::now() + PATIENCE;
    let mut delays = Delays::new(Duration::from_millis(500), Duration::from_secs(5));
    loop {
        let error = match account.call(async |client| client.send(channel, message).await).await {
            Ok(sent) => return Ok(sent),
            Err(error) => error,
        };
        let temporary = error.refusal().filter(|refusal| refusal.is_temporary());
        let asked = temporary.and_then(|refusal| refusal.retry_after).unwrap_or_default();
        let delay = delays.next(&mut rand::rng()).max(asked);
        if !(error.is_unknown() || temporary.is_some()) || Instant::now() + delay > deadline {
            return Err(error);
        }
        let _ = writeln!(std::io::stderr(), "{error}; trying again");
        sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchline_ids::Seq;

    fn channel(name: &str) -> Channel {
        Channel {
            id: ChannelId::new(),
            name: name.into(),
            role: "owner".into(),
            last_seq: Seq(1),
            read_seq: Seq(0),
            unread: 1,
            created_at: "2026-01-02T03:04:05Z".into(),
        }
    }

    #[test]
    fn a_channel_is_meant_by_its_id_or_by_a_name_that_only_it_has() {
        let channels = [channel("general"), channel("twice"), channel("twice")];
        assert_eq!(choose(&channels, "general").unwrap(), Some(&channels[0]));
        assert_eq!(choose(&channels, &channels[2].id.to_string()).unwrap(), Some(&channels[2]));
        assert_eq!(choose(&channels, "other").unwrap(), None);
        assert_eq!(choose(&channels, &ChannelId::new().to_string()).unwrap(), None);
        let error = choose(&channels, "twice").unwrap_err().to_string();
        assert!(error.contains(&channels[1].id.to_string()) && error.contains(&channels[2].id.to_string()), "{error}");
    }
}
