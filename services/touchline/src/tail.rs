//! `touchline tail`: what arrives for a user, as it arrives, whatever happens to the connection.

mod screen;

use crate::{
    account::{self, Account},
    life,
};
use screen::Screen;
use std::io::{self, Write as _};
use touchline_client::{Device, DeviceOptions, Event, Frame, SyncCause};
use uuid::Uuid;

const EXAMPLES: &str = "\
Examples:
  touchline tail --as bob                            every channel of bob's
  touchline tail general --as bob --recent 50        one channel, with more of what was before
  touchline tail --as bob --json | jq .              frames, one per line
  touchline tail --token \"$(touchline token bob --data-dir touchline-data)\"

It is a device of its own: it acks what it prints, reconnects when the connection breaks and catches up.";

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

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    life::run(async {
        let Arguments { channel, json, recent, account } = arguments;
        let mut account = Account::open(account).await?;
        let mut screen = Screen::new(json, channel);
        let name = format!("tail-{}", Uuid::now_v7()).parse()?;
        let options = DeviceOptions { recent, raw: json, renewal: account.renewal(), ..DeviceOptions::new(name) };
        let mut device = Device::start(account.client().clone(), options);
        while let Some(event) = device.next().await {
            if let Event::Ended(why) = event {
                return Err(why.into());
            }
            match show(&mut screen, &mut account, event).await {
                // Nobody reads what we print.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                shown => shown?,
            }
        }
        Ok(())
    })
}

/// What arrives goes to stdout, what happens to the connection to stderr.
async fn show(screen: &mut Screen, account: &mut Account, event: Event) -> io::Result<()> {
    let said = match event {
        Event::Message(message) => return screen.show(account, &message).await,
        // Messages come below, once and in order; `ready` is the connection's affair.
        Event::Wire(Frame::Message(_) | Frame::Ready { .. }) => return Ok(()),
        Event::Wire(frame) => return screen.show_frame(&frame.to_string()),
        Event::CaughtUp { cause: SyncCause::Ready, .. } => format!("listening as {}", account.user.handle),
        Event::Offline { why, again_in } => format!("{why}; connecting again in {:.1} s", again_in.as_secs_f32()),
        Event::SyncFailed { why, again_in } => format!("{why}; trying again in {:.1} s", again_in.as_secs_f32()),
        Event::Online { moved: true, .. } => "the gateway is going away; moved to another one".to_owned(),
        Event::Complaint { code, message } => format!("the gateway says: {message} ({code})"),
        Event::Gone(channel) => format!("not a member of {} any more", screen.channel(channel)),
        _ => return Ok(()),
    };
    // When nobody reads that either, so be it.
    let _ = writeln!(io::stderr(), "{said}");
    Ok(())
}
