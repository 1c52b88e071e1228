//! What became of the pushes to devices, kept for seven days.

use crate::{PushOutcome, Storage, clock, entity::push_outcomes, error::Result, rows::VALUES};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect, sea_query::OnConflict,
};
use std::collections::BTreeMap;
use touchline_ids::{ChannelId, DeviceId, Seq, UserId};

/// Outcomes of one message that are told at once.
const MOST: u64 = 100_000;
/// A push for a message is for no more than so many messages after it.
const SPAN: i64 = 10_000;

/// What became of a push to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub device: DeviceId,
    /// Of which channel.
    pub channel: ChannelId,
    /// It was for what came after this,
    pub after_seq: Seq,
    /// up to this.
    pub seq: Seq,
    /// What became of it.
    pub outcome: PushOutcome,
    /// What the provider said, at most 255 bytes of it.
    pub answer: String,
    /// How often it was tried.
    pub tries: i32,
}

impl Storage {
    /// What became of the pushes for a message: those that were for it, or for it and others before or after it. In no
    /// order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn push_outcomes(&self, channel: ChannelId, seq: Seq) -> Result<Vec<Outcome>> {
        use push_outcomes::Column::{AfterSeq, ChannelId as Channel, Seq as UpTo};
        let of_message = push_outcomes::Entity::find()
            .filter(Channel.eq(channel))
            .filter(UpTo.between(seq, Seq(seq.0.saturating_add(SPAN))))
            .filter(AfterSeq.lt(seq))
            .limit(MOST);
        let rows = self.reach(async { Ok(of_message.all(&self.reader).await?) }).await?;
        let outcome = |row: push_outcomes::Model| Outcome {
            user: row.user_id,
            device: row.device_id,
            channel: row.channel_id,
            after_seq: row.after_seq,
            seq: row.seq,
            outcome: row.outcome,
            answer: row.answer,
            tries: row.tries,
        };
        Ok(rows.into_iter().map(outcome).collect())
    }
}

/// Writes outcomes; of one device and place the newest counts.
pub(crate) async fn note(transaction: &DatabaseTransaction, outcomes: &[Outcome]) -> Result<()> {
    use push_outcomes::Column as C;
    if outcomes.is_empty() {
        return Ok(());
    }
    // One row per device and place, since a statement may not touch a row twice; in order, against waiting crosswise.
    let by_key: BTreeMap<_, _> = outcomes.iter().map(|o| ((o.channel, o.seq, o.user, o.device.clone()), o)).collect();
    let at = clock::read(transaction).await?;
    let rows: Vec<_> = by_key
        .into_values()
        .map(|o| push_outcomes::ActiveModel {
            channel_id: Set(o.channel),
            seq: Set(o.seq),
            user_id: Set(o.user),
            device_id: Set(o.device.clone()),
            after_seq: Set(o.after_seq),
            outcome: Set(o.outcome),
            answer: Set(o.answer.clone()),
            tries: Set(o.tries),
            at: Set(at),
        })
        .collect();
    for some in rows.chunks(VALUES) {
        let newest = OnConflict::columns([C::ChannelId, C::Seq, C::UserId, C::DeviceId])
            .update_columns([C::AfterSeq, C::Outcome, C::Answer, C::Tries, C::At])
            .to_owned();
        let insert = push_outcomes::Entity::insert_many(some.to_vec()).on_conflict(newest);
        insert.exec_without_returning(transaction).await?;
    }
    Ok(())
}
