//! What is to be done about a notification, by what is known just before it would be sent. No I/O.

use crate::{
    provider::{Preview, Push},
    quiet::quiet_until,
    rules::Rules,
};
use std::{
    cmp::{max, min},
    time::{Duration, SystemTime},
};
use touchline_storage::{Notification, NotifyLevel, PushDevice, Recipient};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing, and why.
    Drop(Why),
    /// Too old to be worth a push; these devices would have got one.
    Expire(Vec<PushDevice>),
    /// Again in so many milliseconds: it is quiet until then.
    Wait(i64),
    /// Send to each of these devices.
    Send(Vec<Push>),
    /// Nothing now: the database is away, or it took too long to ask it.
    Release,
    /// What is known about this one cannot be read.
    Fail,
}

/// Why somebody is not notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    NotAMember,
    Held,
    BeyondEnd,
    Level,
    Muted,
    NoDevice,
    /// Every device has its answer already.
    Settled,
}

impl Why {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NotAMember => "not_a_member",
            Self::Held => "held",
            Self::BeyondEnd => "beyond_end",
            Self::Level => "level",
            Self::Muted => "muted",
            Self::NoDevice => "no_device",
            Self::Settled => "settled",
        }
    }
}

/// Decides. `now_ms` is Unix milliseconds.
pub(crate) fn decide(
    row: &Notification,
    recipient: Option<&Recipient>,
    preview: Option<&Preview>,
    rules: &Rules,
    now_ms: i64,
) -> Decision {
    let Some(recipient) = recipient else { return Decision::Drop(Why::NotAMember) };
    if row.max_seq <= recipient.held_seq {
        return Decision::Drop(Why::Held);
    }
    if row.max_seq > recipient.last_seq {
        return Decision::Drop(Why::BeyondEnd);
    }
    let wanted = match recipient.level {
        NotifyLevel::All => true,
        NotifyLevel::Mentions => recipient.mentioned,
        NotifyLevel::None => false,
    };
    if !wanted {
        return Decision::Drop(Why::Level);
    }
    if recipient.muted_until.is_some_and(|until| until > now_ms) {
        return Decision::Drop(Why::Muted);
    }
    if recipient.devices.is_empty() {
        return Decision::Drop(Why::NoDevice);
    }
    let devices: Vec<_> =
        recipient.devices.iter().filter(|device| !recipient.settled.contains(&device.device_id)).cloned().collect();
    if devices.is_empty() {
        return Decision::Drop(Why::Settled);
    }
    // An api of an older version does not say when.
    let noted_ms = if row.noted_at == 0 { now_ms } else { row.noted_at };
    let expires_ms = noted_ms.saturating_add(i64::try_from(rules.ttl.as_millis()).unwrap_or(i64::MAX));
    if let Some(end_ms) = recipient.quiet.as_ref().and_then(|hours| quiet_until(hours, now_ms)) {
        return if end_ms < expires_ms {
            Decision::Wait(end_ms.saturating_sub(now_ms))
        } else {
            Decision::Expire(devices)
        };
    }
    if expires_ms <= now_ms {
        return Decision::Expire(devices);
    }
    let push = |device: PushDevice| push(row, recipient, device, preview, expires_ms);
    Decision::Send(devices.into_iter().map(push).collect())
}

fn push(
    row: &Notification,
    recipient: &Recipient,
    device: PushDevice,
    preview: Option<&Preview>,
    expires_ms: i64,
) -> Push {
    // Some of what was missed may have been acked since.
    let behind = row.max_seq.0.saturating_sub(recipient.held_seq.0);
    let positive = |number: i64| u64::try_from(number).unwrap_or_default();
    Push {
        user: device.user_id,
        device: device.device_id,
        platform: device.platform,
        target_kind: device.target_kind,
        token: device.push_token,
        channel: row.channel_id,
        seq: row.max_seq,
        count: positive(max(1, min(row.count, behind))),
        mentioned: recipient.mentioned,
        badge: (device.platform == touchline_storage::Platform::Ios).then(|| positive(recipient.unread)),
        preview: preview.cloned(),
        expires: SystemTime::UNIX_EPOCH + Duration::from_millis(positive(expires_ms)),
    }
}

#[cfg(test)]
mod tests;
