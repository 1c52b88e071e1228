//! Text for a push, if the operator lets message text leave the house.

use crate::{provider::Preview, rules::Rules};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use touchline_ids::{ChannelId, Seq};
use touchline_storage::{Newest, Notification, Recipient, Storage};

/// The previews of these notifications' newest messages; none at all unless `show_text` is on.
pub(crate) async fn of(
    storage: &Storage,
    rows: &[Notification],
    recipients: &[Option<Recipient>],
    rules: &Rules,
) -> touchline_storage::Result<HashMap<(ChannelId, Seq), Preview>> {
    if !rules.show_text {
        return Ok(HashMap::new());
    }
    let names: HashMap<ChannelId, &str> = rows
        .iter()
        .zip(recipients)
        .filter_map(|(row, recipient)| Some((row.channel_id, recipient.as_ref()?.channel_name.as_str())))
        .collect();
    let places: BTreeSet<_> = rows.iter().map(|row| (row.channel_id, row.max_seq)).collect();
    let newest = storage.newest(&places).await?;
    let preview = |newest: Newest| {
        let title = names.get(&newest.channel_id)?.to_string();
        Some(((newest.channel_id, newest.seq), Preview { title, body: body(&newest)? }))
    };
    Ok(newest.into_iter().filter_map(preview).collect())
}

/// Only a text can be shown; what an application's own object means, only the application knows.
fn body(newest: &Newest) -> Option<String> {
    match serde_json::from_str(&newest.content) {
        Ok(Value::String(text)) => Some(format!("{}: {text}", newest.display_name)),
        _ => None,
    }
}
