//! A database of its own and what stands in it, for the unit tests.

use std::path::Path;
use touchline_ids::{ChannelId, MessageId, UserId};
use touchline_storage::{NewChannel, NewMessage, NewUser, Settings, Storage};

/// A new database in this folder, and where it is.
pub async fn database(folder: &Path) -> (Storage, Settings) {
    let url = format!("sqlite://{}", folder.join("test.db").display());
    let settings = Settings { url, ..Settings::default() };
    let storage = Storage::connect(&settings).await.unwrap();
    storage.migrate_up().await.unwrap();
    (storage, settings)
}

/// A new user.
pub async fn user(storage: &Storage) -> UserId {
    let id = UserId::new();
    let (handle, display_name) = ("ann".to_owned(), "Ann".to_owned());
    let user = NewUser { id, handle, display_name, password_hash: None, external: None, created_at_ms: 1 };
    storage.create_user(user).await.unwrap();
    id
}

/// A channel to create, of its owner alone.
pub fn channel(owner: UserId) -> NewChannel {
    let (id, message_id) = (ChannelId::new(), MessageId::new());
    NewChannel { id, name: "a channel".to_owned(), owner, member_ids: vec![], message_id, created_at_ms: 1 }
}

/// A message to store, under this name.
pub fn message(channel_id: ChannelId, sender_id: UserId, name: &str) -> NewMessage {
    NewMessage {
        channel_id,
        sender_id,
        client_message_id: name.parse().unwrap(),
        content: "\"hi\"".to_owned(),
        body_hash: [0; 32],
        no_push: false,
        mentions: Vec::new(),
        message_id: MessageId::new(),
        created_at_ms: 1,
    }
}
