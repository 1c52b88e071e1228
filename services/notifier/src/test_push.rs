//! A push to nobody in particular, for tests.

use crate::Push;
use std::time::{Duration, SystemTime};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_storage::{Platform, TargetKind};

/// To the device with this token, another user's each time.
pub(crate) fn push(platform: Platform, token: &str) -> Push {
    Push {
        user: UserId::new(),
        device: "phone".parse().unwrap(),
        platform,
        target_kind: TargetKind::Token,
        token: token.into(),
        channel: ChannelId::new(),
        seq: Seq(4_711),
        count: 3,
        mentioned: false,
        badge: Some(7),
        preview: None,
        expires: SystemTime::now() + Duration::from_secs(86_400),
    }
}
