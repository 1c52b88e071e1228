//! Claiming what is due and sending it: as much at once as the provider takes, and asleep while nothing is due.

use crate::{
    clock,
    counters::Counters,
    decide::{Decision, Why, decide},
    deliver::{Delivered, deliver},
    preview,
    provider::{Provider, Push},
    rules::Rules,
    settle::Settled,
};
use std::{cmp::min, sync::Arc, time::Duration};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use touchline_mesh::Shutdown;
use touchline_storage::{Notification, Outcome, PushDevice, PushOutcome, Recipient, Storage, Then};
use uuid::Uuid;

/// Notifications under way at once.
const UNDER_WAY: usize = 1_024;
/// Most rows claimed at once.
const BATCH: usize = 256;
/// Without a wake-up: what another api's lost call, or a row that came due, waits at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After the database failed.
const RETRY: Duration = Duration::from_secs(1);

/// What every part of the work needs.
pub(crate) struct Desk {
    pub(crate) storage: Storage,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) rules: Rules,
    /// This life of the notifier, in claims.
    pub(crate) owner: Uuid,
    /// Somebody was missed.
    pub(crate) woken: Arc<Notify>,
    pub(crate) counters: Counters,
}

/// What is known about rows just before they are sent.
pub(crate) struct Checked {
    pub(crate) row: Notification,
    pub(crate) recipient: Option<Recipient>,
    pub(crate) decision: Decision,
}

impl Desk {
    /// Claims and sends until the stop. What is under way then is finished by `life`'s tasks.
    pub(crate) async fn work(self: Arc<Self>, settled: mpsc::Sender<Settled>, life: Shutdown) {
        let places = Arc::new(Semaphore::new(UNDER_WAY));
        let mut stopping = std::pin::pin!(life.stopping());
        loop {
            let turn = async {
                let room = min(self.provider.ready().await, BATCH);
                // At least one place: the next claim is made when something has ended.
                drop(places.acquire().await);
                min(room, places.available_permits())
            };
            let room = tokio::select! {
                () = &mut stopping => return,
                room = turn => room.max(1),
            };
            match self.claim(room).await {
                Ok(rows) if rows.is_empty() => tokio::select! {
                    () = &mut stopping => return,
                    () = self.idle() => {}
                },
                Ok(rows) => {
                    for checked in rows {
                        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                        self.begin(checked, place, &settled, &life).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "notifications were not claimed, trying again");
                    tokio::select! {
                        () = &mut stopping => return,
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            }
        }
    }

    /// Until something is due, or somebody says so.
    pub(crate) async fn idle(&self) {
        let next = match self.storage.next_notification_ms().await {
            Ok(Some(ms)) => Duration::from_millis(u64::try_from(ms).unwrap_or_default()).max(Duration::from_millis(20)),
            Ok(None) | Err(_) => LOOK_EVERY,
        };
        let _ = tokio::time::timeout(min(next, LOOK_EVERY), self.woken.notified()).await;
    }

    async fn claim(&self, room: usize) -> touchline_storage::Result<Vec<Checked>> {
        let limit = u32::try_from(room).unwrap_or(u32::MAX);
        let rows = self.storage.claim_notifications(self.owner, limit).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        self.check(rows).await
    }

    /// Looks at what each of them needs, just before it is sent.
    pub(crate) async fn check(&self, rows: Vec<Notification>) -> touchline_storage::Result<Vec<Checked>> {
        let now_ms = clock::now_ms();
        let recipients = self.storage.recipients(&rows, now_ms - self.rules.idle_ms).await?;
        let previews = preview::of(&self.storage, &rows, &recipients, &self.rules).await?;
        let checked = rows.into_iter().zip(recipients).map(|(row, recipient)| {
            let preview = previews.get(&(row.channel_id, row.max_seq));
            let decision = decide(&row, recipient.as_ref(), preview, &self.rules, now_ms);
            Checked { row, recipient, decision }
        });
        Ok(checked.collect())
    }

    /// Sends in a task of its own, or settles at once what needs no push.
    async fn begin(
        self: &Arc<Self>,
        checked: Checked,
        place: OwnedSemaphorePermit,
        settled: &mpsc::Sender<Settled>,
        life: &Shutdown,
    ) {
        let begun_ms = clock::now_ms();
        let Checked { row, recipient, decision } = checked;
        let (user, channel, seq) = (row.user_id, row.channel_id, row.max_seq);
        let settle = move |delivered| Settled { user, channel, seq, begun_ms, delivered, _place: Some(place) };
        match self.without_push(&row, recipient.as_ref(), decision) {
            // The settler ends after everybody who settles.
            Ok(delivered) => drop(settled.send(settle(delivered)).await),
            Err(pushes) => {
                let (this, settled) = (Arc::clone(self), settled.clone());
                life.spawn(async move {
                    let delivered = this.send(&row, recipient.as_ref(), pushes).await;
                    let _ = settled.send(settle(delivered)).await;
                });
            }
        }
    }

    /// Sends a notification to its devices.
    pub(crate) async fn send(&self, row: &Notification, recipient: Option<&Recipient>, pushes: Vec<Push>) -> Delivered {
        let after_seq = recipient.map_or(row.max_seq, |recipient| recipient.held_seq);
        let delivered = deliver(self.provider.as_ref(), row, after_seq, pushes).await;
        if delivered.then == Then::Dead {
            tracing::error!(user.id = %row.user_id, channel.id = %row.channel_id, message.seq = %row.max_seq,
                "the push service calls a push wrong, which is a bug: see `touchline notifications list --dead`");
        }
        delivered.outcomes.iter().for_each(|outcome| self.counters.pushed(outcome.outcome));
        delivered
    }

    /// What comes of a notification that needs no push, or the pushes it needs.
    pub(crate) fn without_push(
        &self,
        row: &Notification,
        recipient: Option<&Recipient>,
        decision: Decision,
    ) -> Result<Delivered, Vec<Push>> {
        let nothing_sent = |then| Delivered { then, outcomes: vec![], void: vec![], suspect: vec![] };
        match decision {
            Decision::Send(pushes) => Err(pushes),
            Decision::Wait(after_ms) => {
                self.counters.skipped("quiet_hours");
                Ok(nothing_sent(Then::Again { after_ms, put_off: false }))
            }
            Decision::Drop(Why::Settled) => Ok(nothing_sent(Then::Sent)),
            Decision::Drop(why) => {
                self.counters.skipped(why.as_str());
                if self.rules.tells_skipped {
                    tracing::info!(user.id = %row.user_id, channel.id = %row.channel_id, message.seq = %row.max_seq,
                        reason = why.as_str(), "nobody to push to");
                }
                Ok(nothing_sent(Then::Dropped))
            }
            Decision::Expire(devices) => {
                let after_seq = recipient.map_or(row.max_seq, |recipient| recipient.held_seq);
                let outcome = |device: PushDevice| Outcome {
                    user: row.user_id,
                    device: device.device_id,
                    channel: row.channel_id,
                    after_seq,
                    seq: row.max_seq,
                    outcome: PushOutcome::Expired,
                    answer: String::new(),
                    tries: row.tries,
                };
                let outcomes: Vec<_> = devices.into_iter().map(outcome).collect();
                outcomes.iter().for_each(|outcome| self.counters.pushed(outcome.outcome));
                Ok(Delivered { then: Then::Dropped, outcomes, void: vec![], suspect: vec![] })
            }
        }
    }
}
