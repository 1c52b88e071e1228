//! Claiming what is due and sending it: as much at once as the provider takes, and asleep while nothing is due.

use crate::{
    counters::Counters,
    decide::{Decision, Why, decide},
    deliver::{Delivered, deliver},
    preview,
    provider::{Provider, Push},
    rules::Rules,
    settle::Settled,
    under_way::UnderWay,
};
use futures_util::FutureExt as _;
use std::{cmp::min, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use touchline_mesh::{Shutdown, vital};
use touchline_storage::{Notification, Outcome, PushDevice, PushOutcome, Recipient, Storage, StorageError, Then};
use uuid::Uuid;

/// Notifications under way at once.
const UNDER_WAY: usize = 1_024;
/// Most rows claimed at once.
const BATCH: usize = 256;
/// Without a wake-up: what another api's lost call, or a row that came due, waits at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After the database failed.
const RETRY: Duration = Duration::from_secs(1);

/// Asking about claimed rows may take so long; later they may be somebody else's before their pushes end.
const FRESH: Duration = Duration::from_secs(8);
/// Until a row that failed here is tried again.
const AFTER_FAILURE: i64 = 10_000;

/// What every part of the work needs.
pub(crate) struct Desk {
    pub(crate) storage: Storage,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) rules: Rules,
    pub(crate) under_way: UnderWay,
    /// Somebody was missed.
    pub(crate) woken: Arc<Notify>,
    pub(crate) counters: Counters,
}

/// What is known about rows just before they are sent.
pub(crate) struct Checked {
    pub(crate) row: Notification,
    pub(crate) recipient: Option<Recipient>,
    pub(crate) decision: Decision,
    /// When it was, Unix milliseconds by the database's clock.
    pub(crate) at_ms: i64,
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
                min(room, places.available_permits()).max(1)
            };
            let room = tokio::select! {
                biased;
                () = &mut stopping => return,
                room = turn => room,
            };
            let pause = match self.claim(room).await {
                Ok(rows) if rows.is_empty() => self.idle().left_future(),
                Ok(rows) => {
                    for checked in rows {
                        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                        self.begin(checked, place, &settled, &life).await;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "notifications were not claimed, trying again");
                    tokio::time::sleep(RETRY).right_future()
                }
            };
            tokio::select! {
                () = &mut stopping => return,
                () = pause => {}
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
        let (claim, asked) = (Uuid::now_v7(), Instant::now());
        let mut rows = self.storage.claim_notifications(claim, u32::try_from(room).unwrap_or(u32::MAX)).await?;
        rows.retain(|row| self.under_way.enter((row.user_id, row.channel_id), claim));
        let mut checked = self.check_each(rows).await;
        if asked.elapsed() > FRESH {
            checked.iter_mut().for_each(|checked| checked.decision = Decision::Release);
        }
        Ok(checked)
    }

    /// Looks at what each of them needs. While the database is away they are let go; one that cannot be read keeps no
    /// other one back.
    async fn check_each(&self, rows: Vec<Notification>) -> Vec<Checked> {
        let undone = |row, decision| Checked { row, recipient: None, decision, at_ms: 0 };
        match self.check(rows.clone()).await {
            Ok(checked) => checked,
            Err(error @ (StorageError::Unavailable(_) | StorageError::InDoubt(_))) => {
                tracing::warn!(%error, rows = rows.len(), "claimed notifications are let go");
                rows.into_iter().map(|row| undone(row, Decision::Release)).collect()
            }
            Err(error) => {
                tracing::warn!(%error, rows = rows.len(), "looking at each notification by itself");
                let mut each = Vec::with_capacity(rows.len());
                for row in rows {
                    match self.check(vec![row.clone()]).await {
                        Ok(checked) => each.extend(checked),
                        Err(error) => {
                            tracing::error!(user.id = %row.user_id, channel.id = %row.channel_id, %error,
                                "a notification cannot be looked at");
                            each.push(undone(row, Decision::Fail));
                        }
                    }
                }
                each
            }
        }
    }

    /// Looks at what each of them needs, just before it is sent.
    pub(crate) async fn check(&self, rows: Vec<Notification>) -> touchline_storage::Result<Vec<Checked>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let at_ms = self.storage.now_ms().await?;
        let recipients = self.storage.recipients(&rows, at_ms - self.rules.idle_ms).await?;
        let previews = preview::of(&self.storage, &rows, &recipients, &self.rules).await?;
        let checked = rows.into_iter().zip(recipients).map(|(row, recipient)| {
            let preview = previews.get(&(row.channel_id, row.max_seq));
            let decision = decide(&row, recipient.as_ref(), preview, &self.rules, at_ms);
            Checked { row, recipient, decision, at_ms }
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
        let Checked { row, recipient, decision, at_ms: begun_ms } = checked;
        let (user, channel, seq) = (row.user_id, row.channel_id, row.max_seq);
        let settle = move |delivered| Settled { user, channel, seq, begun_ms, delivered, _place: place };
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
        let sent = AssertUnwindSafe(deliver(self.provider.as_ref(), row, after_seq, pushes)).catch_unwind();
        let mut delivered = sent.await.unwrap_or_else(|panic| {
            tracing::error!(panic = vital::what(panic.as_ref()), "a notification could not be sent");
            Delivered::nothing(Then::Failed { after_ms: AFTER_FAILURE })
        });
        let accepted = |device: &&PushDevice| {
            let is_it = |one: &Outcome| one.device == device.device_id && one.outcome == PushOutcome::Accepted;
            device.suspect_since.is_some() && delivered.outcomes.iter().any(is_it)
        };
        let suspects = recipient.map_or(&[][..], |recipient| &recipient.devices).iter().filter(accepted);
        delivered.trusted = suspects.map(|one| (one.user_id, one.device_id.clone(), one.push_token.clone())).collect();
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
        match decision {
            Decision::Send(pushes) => Err(pushes),
            Decision::Wait(after_ms) => {
                self.counters.skipped("quiet_hours");
                Ok(Delivered::nothing(Then::Again { after_ms, put_off: false }))
            }
            Decision::Drop(Why::Settled) => Ok(Delivered::nothing(Then::Sent)),
            Decision::Drop(why) => {
                self.counters.skipped(why.as_str());
                if self.rules.tells_skipped {
                    tracing::info!(user.id = %row.user_id, channel.id = %row.channel_id, message.seq = %row.max_seq,
                        reason = why.as_str(), "nobody to push to");
                }
                Ok(Delivered::nothing(Then::Dropped))
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
                Ok(Delivered { outcomes, ..Delivered::nothing(Then::Dropped) })
            }
            Decision::Release => Ok(Delivered::nothing(Then::Released)),
            Decision::Fail => Ok(Delivered::nothing(Then::Failed { after_ms: AFTER_FAILURE })),
        }
    }
}
