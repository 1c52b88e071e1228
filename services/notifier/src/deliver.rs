//! One notification: sent to each of the user's devices, and what comes of it.

use crate::{
    backoff,
    provider::{Answer, Provider, Push},
};
use futures_util::future::join_all;
use std::{cmp::max, time::Duration};
use touchline_ids::Seq;
use touchline_storage::{KnownToken, Notification, Outcome, PushOutcome, Then};

/// Bytes of a provider's answer that are kept.
const ANSWER_BYTES: usize = 255;
/// When some devices have their push and the provider takes no more: not before those may have another one.
const SOON: Duration = Duration::from_secs(3);

/// What came of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Its row.
    pub(crate) then: Then,
    /// One for each device that something came of.
    pub(crate) outcomes: Vec<Outcome>,
    /// Pushes whose token is void.
    pub(crate) void: Vec<Push>,
    /// Pushes whose token is another sender's.
    pub(crate) suspect: Vec<Push>,
    /// Tokens that were suspect, and are ours after all.
    pub(crate) trusted: Vec<KnownToken>,
}

impl Delivered {
    /// Nothing was sent.
    pub(crate) fn nothing(then: Then) -> Self {
        Self { then, outcomes: vec![], void: vec![], suspect: vec![], trusted: vec![] }
    }
}

/// Sends to all devices at once.
pub(crate) async fn deliver(
    provider: &dyn Provider,
    row: &Notification,
    after_seq: Seq,
    pushes: Vec<Push>,
) -> Delivered {
    let answers = join_all(pushes.iter().map(|push| provider.send(push))).await;
    let answered = pushes.into_iter().zip(answers).collect();
    let wait = |asked| backoff::wait(u32::try_from(row.tries).unwrap_or_default(), asked, &mut rand::rng());
    sum_up(row, after_seq, answered, wait)
}

/// The row's fate, of all devices' answers: while one is put off the row stays, and the others are not tried again.
fn sum_up(
    row: &Notification,
    after_seq: Seq,
    answered: Vec<(Push, Answer)>,
    mut wait: impl FnMut(Option<Duration>) -> Duration,
) -> Delivered {
    let mut delivered = Delivered::nothing(Then::Dropped);
    let (mut accepted, mut refused, mut stopped) = (false, false, false);
    let mut again: Option<Duration> = None;
    for (push, answer) in answered {
        let (outcome, said) = match answer {
            Answer::Accepted { id } => {
                accepted = true;
                (PushOutcome::Accepted, id)
            }
            Answer::TokenVoid { why } => {
                delivered.void.push(push.clone());
                (PushOutcome::TokenVoid, why)
            }
            Answer::WrongSender { why } => {
                delivered.suspect.push(push.clone());
                (PushOutcome::WrongSender, why)
            }
            Answer::PlatformRefused { why } => (PushOutcome::PlatformRefused, why),
            Answer::Refused { why } => {
                refused = true;
                (PushOutcome::Refused, why)
            }
            Answer::Later { after, why } => {
                again = max(again, Some(wait(after)));
                (PushOutcome::Delayed, why)
            }
            Answer::Stopped { .. } => {
                stopped = true;
                continue;
            }
        };
        delivered.outcomes.push(Outcome {
            user: push.user,
            device: push.device,
            channel: push.channel,
            after_seq,
            seq: push.seq,
            outcome,
            answer: cut(said),
            tries: row.tries + 1,
        });
    }
    if stopped && !delivered.outcomes.is_empty() {
        again = max(again, Some(SOON));
    }
    delivered.then = match again {
        Some(after) => Then::Again { after_ms: i64::try_from(after.as_millis()).unwrap_or(i64::MAX), put_off: true },
        None if stopped => Then::Released,
        None if refused => Then::Dead,
        None if accepted => Then::Sent,
        // Every token is void or cannot be reached: there is nobody to tell.
        None => Then::Dropped,
    };
    delivered
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(ANSWER_BYTES));
    text
}

#[cfg(test)]
mod tests;
