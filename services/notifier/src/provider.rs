//! What brings a push to a device: one small trait for FCM, a webhook, or a line in the log.

use async_trait::async_trait;
use std::{
    fmt,
    time::{Duration, SystemTime},
};
use touchline_ids::{ChannelId, DeviceId, Seq, UserId};
use touchline_storage::{Platform, TargetKind};

/// One push to one device: wakes the app, which then syncs. What it shows is the app's to say.
#[derive(Clone, PartialEq, Eq)]
pub struct Push {
    /// Whose device.
    pub user: UserId,
    /// Which.
    pub device: DeviceId,
    /// What it runs.
    pub platform: Platform,
    /// What kind of name `token` is.
    pub target_kind: TargetKind,
    /// Its name at the push service. Never in a log.
    pub token: String,
    /// Where messages were missed.
    pub channel: ChannelId,
    /// The newest of them.
    pub seq: Seq,
    /// How many.
    pub count: u64,
    /// Whether one of them mentions the user.
    pub mentioned: bool,
    /// The user's unread messages over all channels; for platforms that show a number on the app's icon.
    pub badge: Option<u64>,
    /// What to show, if the operator lets message text leave the house.
    pub preview: Option<Preview>,
    /// When it is worth nothing any more.
    pub expires: SystemTime,
}

impl fmt::Debug for Push {
    /// Without the token, and without the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, device, platform, channel, seq, count, mentioned, badge, .. } = self;
        f.debug_struct("Push")
            .field("user", user)
            .field("device", device)
            .field("platform", platform)
            .field("channel", channel)
            .field("seq", seq)
            .field("count", count)
            .field("mentioned", mentioned)
            .field("badge", badge)
            .finish_non_exhaustive()
    }
}

/// Text of a message, for a push.
#[derive(Clone, PartialEq, Eq)]
pub struct Preview {
    /// Such as the channel's name.
    pub title: String,
    /// Such as the sender and the message's text; a provider cuts it to what fits.
    pub body: String,
}

/// What a provider says to a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Taken; the provider's own name for it.
    Accepted {
        /// Opaque.
        id: String,
    },
    /// The token is void: the device is to be forgotten, if it still has this token.
    TokenVoid {
        /// What the provider said.
        why: String,
    },
    /// The token is another sender's. With wrong credentials every token is: forget none at once.
    WrongSender {
        /// What the provider said.
        why: String,
    },
    /// The provider was asked and cannot reach this device, because its key for the platform is wrong or not the one that
    /// the device registered under: sending again is no use.
    PlatformRefused {
        /// What the provider said.
        why: String,
    },
    /// The push itself is wrong, which is a bug of ours: sending again is no use.
    Refused {
        /// What the provider said.
        why: String,
    },
    /// Not taken, or nobody knows: send again, at the earliest after this time if it is given.
    Later {
        /// What the provider asked for.
        after: Option<Duration>,
        /// What happened.
        why: String,
    },
    /// Nothing was sent, for the provider takes nothing at present ([`Provider::ready`] waits for it).
    Stopped {
        /// Why.
        why: String,
    },
}

/// No provider takes longer over one push, waiting included: a claim that lasts longer is not lost under way.
pub const LONGEST_SEND: Duration = Duration::from_secs(20);

/// A push service.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Its name in the configuration, in logs and metrics.
    fn name(&self) -> &'static str;

    /// Waits until it takes pushes, and says how many may be sent at once now; at least 1. While it takes nothing but a
    /// probe now and then that is 1 for each probe. Cancel-safe.
    async fn ready(&self) -> usize;

    /// Sends one push, within [`LONGEST_SEND`]. Dropped before its end, it may have been sent.
    async fn send(&self, push: &Push) -> Answer;
}
