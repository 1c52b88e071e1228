//! `touchline tail`: what arrives for a user, as it arrives, whatever happens to the connection.

mod log;
mod screen;
mod session;

use crate::{
    account::{self, Account},
    backoff::Backoff,
    life,
};
use log::Log;
use screen::Screen;
use session::Session;
use std::{convert::Infallible, io::Write as _, time::Duration};
use tokio::time::sleep;
use touchline_client::{ClientError, Closed, Connect, Socket};
use touchline_ids::{ConnectionNumber, DeviceId};
use uuid::Uuid;

const EXAMPLES: &str = "\
Examples:
  touchline tail --as bob                            every channel of bob's
  touchline tail general --as bob --recent 50        one channel, with more of what was before
  touchline tail --as bob --json | jq .              frames, one per line
  touchline tail --token \"$(touchline token bob --data-dir touchline-data)\"

It is a device of its own: it acks what it prints, reconnects when the connection breaks and catches up.";

/// How much of a channel that appears later is shown; the server's limit. It was made while we watched.
const RECENT_OF_NEW: u32 = 50;

/// `touchline tail …`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Only this channel of mine: its id or its name
    channel: Option<String>,
    /// Print frames as JSON, one per line
    #[arg(long)]
    json: bool,
    /// How many messages of each channel to begin with
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=50))]
    recent: u32,
    #[command(flatten)]
    account: account::Arguments,
}

struct Tail {
    account: Account,
    device: DeviceId,
    connection: ConnectionNumber,
    log: Log,
    screen: Screen,
    recent: u32,
    backoff: Backoff,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum End {
    /// The gateway asked us to move.
    #[error("the gateway is going away")]
    Moved,
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody reads what we print.
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    life::run(async {
        let mut tail = Tail {
            account: Account::open(arguments.account).await?,
            device: format!("tail-{}", Uuid::now_v7()).parse()?,
            connection: ConnectionNumber(0),
            log: Log::default(),
            screen: Screen::new(arguments.json, arguments.channel),
            recent: arguments.recent,
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
        };
        loop {
            let end = match tail.session().await {
                Ok(never) => match never {},
                Err(end) => end,
            };
            if end.needs_a_new_token() {
                let _ = tail.account.renew().await;
            }
            if end.asks_for_patience() {
                tail.backoff.lengthen();
            }
            let delay = match &end {
                End::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                _ if end.is_final() => return Err(end.into()),
                End::Moved => Duration::ZERO,
                _ => tail.backoff.next(&mut rand::rng()).max(end.retry_after()),
            };
            let _ = writeln!(std::io::stderr(), "{end}; connecting again in {:.1} s", delay.as_secs_f32());
            sleep(delay).await;
        }
    })
}

impl Tail {
    /// One socket, from the ticket to its end.
    async fn session(&mut self) -> Result<Infallible, End> {
        let socket = self.open().await?;
        // After `ready`, always: what was stored before is in the sync, what is stored after it is pushed.
        self.sync().await?;
        // Not on stdout, which is for what arrives.
        let _ = writeln!(std::io::stderr(), "listening as {}", self.account.user.handle);
        Session::new(self, socket).run().await
    }

    /// A socket at the first gateway that answers.
    async fn open(&mut self) -> Result<Socket, End> {
        let Self { account, device, .. } = self;
        let Connect { gateways, ticket, backoff, .. } =
            account.call(async |client| client.connect(device).await).await?;
        self.backoff.obey(backoff);
        let mut failed = Closed { code: 1013, reason: "no gateway was named".into() }.into();
        for gateway in gateways {
            self.connection.0 += 1;
            match Socket::open(&gateway.url, &ticket, &self.device, self.connection).await {
                Ok(socket) => return Ok(socket),
                // It has seen the ticket, which works once.
                Err(ClientError::NotReady(closed)) => return Err(closed.into()),
                Err(error) => failed = End::from(error),
            }
        }
        Err(failed)
    }

    /// Everything that was missed.
    async fn sync(&mut self) -> Result<(), End> {
        loop {
            let (cursors, recent) = (self.log.cursors(), self.recent);
            let synced = self.account.call(async |client| client.sync(&cursors, Some(recent)).await).await?;
            let more = synced.channels.iter().any(|channel| channel.more);
            for channel in synced.channels {
                for message in self.log.take_synced(channel) {
                    self.screen.show(&mut self.account, &message).await?;
                }
            }
            synced.gone.into_iter().for_each(|channel| self.log.forget(channel));
            if !more {
                self.recent = RECENT_OF_NEW;
                self.log.end_sync();
                return Ok(());
            }
        }
    }
}

impl End {
    /// Whether trying again would end the same way.
    fn is_final(&self) -> bool {
        match self {
            Self::Moved => false,
            // Forbidden; replaced by the same device; the log-in was ended.
            Self::Closed(closed) => matches!(closed.code, 4003 | 4009 | 4011),
            Self::Client(error) => {
                error.refusal().is_some_and(|refusal| refusal.status < 500 && !refusal.is_temporary())
            }
            Self::Output(_) => true,
        }
    }

    /// Whether the gateway no longer takes our word. An api may accept an access token a little longer.
    fn needs_a_new_token(&self) -> bool {
        matches!(self, Self::Closed(Closed { code: 4001, .. }))
    }

    /// Whether PROTOCOL.md's table says "longest back-off".
    fn asks_for_patience(&self) -> bool {
        matches!(self, Self::Closed(Closed { code: 1002 | 1007 | 1009 | 1013 | 4008, .. }))
    }

    fn retry_after(&self) -> Duration {
        match self {
            Self::Client(error) => error.refusal().and_then(|refusal| refusal.retry_after).unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}
