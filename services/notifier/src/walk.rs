//! Notifying the members of large channels: one walk at a time over those who have not acked, page by page.

use crate::{
    deliver::Delivered,
    settle::note_tokens,
    work::{Checked, Desk},
};
use futures_util::{StreamExt as _, stream};
use std::{sync::Arc, time::Duration};
use touchline_mesh::Shutdown;
use touchline_storage::{Later, Notification, Page, Then, Unreached, Walk};
use uuid::Uuid;

/// Members of one page: what is sent again when a notifier dies at it.
const PAGE: u64 = 200;
/// After the database failed.
const RETRY: Duration = Duration::from_secs(1);
/// Between looks for a walk that is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Walks until the stop; a page that was begun is finished.
pub(crate) async fn run(desk: Arc<Desk>, life: Shutdown) {
    let mut stopping = std::pin::pin!(life.stopping());
    while !life.is_stopping() {
        let claim = Uuid::now_v7();
        let pause = match desk.storage.claim_walk(claim).await {
            Ok(Some(walk)) => walk_on(&desk, claim, walk, &life).await.err().map(|error| {
                tracing::warn!(%error, "a walk stands still; it goes on when its claim has ended");
                RETRY
            }),
            Ok(None) => Some(LOOK_EVERY),
            Err(error) => {
                tracing::warn!(%error, "walks were not claimed, trying again");
                Some(RETRY)
            }
        };
        if let Some(pause) = pause {
            tokio::select! {
                () = &mut stopping => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Page by page to the end, or to the stop: then another notifier goes on.
async fn walk_on(desk: &Desk, claim: Uuid, mut walk: Walk, life: &Shutdown) -> touchline_storage::Result<()> {
    loop {
        let room = tokio::select! {
            biased;
            () = life.stopping() => return desk.storage.leave_walk(claim, walk.channel_id).await.map(drop),
            room = desk.provider.ready() => room,
        };
        // That may have taken long: somebody else may go on by now. Only then is looked at who is to be sent what.
        if !desk.storage.hold_walk(claim, walk.channel_id).await? {
            return Ok(());
        }
        let page = desk.storage.walk_page(&walk, PAGE.min(room as u64)).await?;
        let last = page.last;
        let later = notify(desk, &walk, page, room).await?;
        if !desk.storage.advance_walk(claim, &walk, last, &later).await? || last.is_none() {
            return Ok(());
        }
        walk.after_user_id = last;
    }
}

async fn notify(desk: &Desk, walk: &Walk, page: Page, room: usize) -> touchline_storage::Result<Vec<Later>> {
    let (waiting, now): (Vec<_>, Vec<_>) = page.unreached.into_iter().partition(|member| member.waits);
    let later_for = |user, count, after_ms, put_off| Later { user, count, after_ms, put_off };
    let mut later: Vec<_> =
        waiting.into_iter().map(|member| later_for(member.user, member.count, Some(0), false)).collect();
    let rows: Vec<_> = now.into_iter().map(|member| row(walk, member)).collect();
    let checked = desk.check(rows).await?;
    let begun_ms = checked.first().map_or(0, |checked| checked.at_ms);
    let sent: Vec<_> = stream::iter(checked).map(|checked| send(desk, checked)).buffer_unordered(room).collect().await;
    note_tokens(&desk.storage, sent.iter().map(|(_, delivered)| (delivered, begun_ms))).await?;
    let outcomes: Vec<_> = sent.iter().flat_map(|(_, delivered)| delivered.outcomes.iter().cloned()).collect();
    // Before the walk moves on: whoever does this page again sees by them who has it.
    desk.storage.settle_notifications(&[], &outcomes).await?;
    later.extend(sent.into_iter().filter_map(|(row, delivered)| match delivered.then {
        Then::Again { after_ms, put_off } => Some(later_for(row.user_id, row.count, Some(after_ms), put_off)),
        Then::Released => Some(later_for(row.user_id, row.count, Some(0), false)),
        Then::Failed { after_ms } => Some(later_for(row.user_id, row.count, Some(after_ms), false)),
        Then::Dead => Some(later_for(row.user_id, row.count, None, false)),
        Then::Sent | Then::Dropped => None,
    }));
    Ok(later)
}

fn row(walk: &Walk, member: Unreached) -> Notification {
    Notification {
        user_id: member.user,
        channel_id: walk.channel_id,
        max_seq: walk.walk_seq,
        count: member.count,
        sent_seq: walk.walked_seq,
        noted_at: walk.noted_at,
        attempts: walk.attempts,
        tries: 0,
    }
}

async fn send(desk: &Desk, checked: Checked) -> (Notification, Delivered) {
    let Checked { row, recipient, decision, .. } = checked;
    let delivered = match desk.without_push(&row, recipient.as_ref(), decision) {
        Ok(delivered) => delivered,
        Err(pushes) => desk.send(&row, recipient.as_ref(), pushes).await,
    };
    (row, delivered)
}
