//! SQLite with a full disk, or with somebody else who writes.

use crate::{
    Appended, CreateChannel, CreateUser, MemberCache, NewChannel, NewMessage, NewUser, Settings, Storage, StorageError,
    WhenLocked, error::Result,
};
use sea_orm::{
    ConnectionTrait,
    sea_query::{Expr, Query},
};
use std::time::Duration;
use tempfile::TempDir;
use touchline_ids::{ChannelId, MessageId, UserId};
use uuid::Uuid;

struct Scene {
    storage: Storage,
    settings: Settings,
    user: UserId,
    channel: ChannelId,
    _folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/touchline.db", folder.path().display());
        let settings = Settings { url, max_connections: 2, ..Settings::default() };
        let storage = Storage::connect(&settings).await.unwrap();
        storage.migrate_up().await.unwrap();
        let (user, channel) = (UserId::new(), ChannelId::new());
        let ada = NewUser {
            id: user,
            handle: "ada".to_owned(),
            display_name: "Ada".to_owned(),
            password_hash: None,
            external: None,
            created_at_ms: 0,
        };
        assert!(matches!(storage.create_user(ada).await.unwrap(), CreateUser::Created(_)));
        let talk = NewChannel {
            id: channel,
            name: "talk".to_owned(),
            owner: user,
            member_ids: Vec::new(),
            message_id: MessageId::new(),
            created_at_ms: 0,
        };
        assert!(matches!(storage.create_channel(talk, Uuid::nil()).await.unwrap(), CreateChannel::Created { .. }));
        Self { storage, settings, user, channel, _folder: folder }
    }

    async fn send(&self, bytes: usize) -> Result<Appended> {
        let message = NewMessage {
            channel_id: self.channel,
            sender_id: self.user,
            client_message_id: Uuid::now_v7().to_string().parse().unwrap(),
            content: format!("\"{}\"", "x".repeat(bytes)),
            body_hash: [1; 32],
            no_push: false,
            mentions: Vec::new(),
            message_id: MessageId::new(),
            created_at_ms: 0,
        };
        let cache = MemberCache::default();
        let answers = self.storage.append(vec![message], Uuid::nil(), &cache, WhenLocked::PassOver).await?;
        Ok(answers.into_iter().next().unwrap())
    }

    async fn integrity(&self) -> String {
        let check = Query::select().column("integrity_check").from("pragma_integrity_check").take();
        self.storage.reader.query_one(&check).await.unwrap().unwrap().try_get("", "integrity_check").unwrap()
    }

    /// Lets the file grow to so many pages, as a disk would.
    async fn room(&self, pages: i64) {
        self.storage.writer.execute_unprepared(&format!("PRAGMA max_page_count = {pages}")).await.unwrap();
    }

    async fn pages(&self) -> i64 {
        let count = Query::select().expr_as(Expr::col("page_count"), "pages").from("pragma_page_count").take();
        self.storage.writer.query_one(&count).await.unwrap().unwrap().try_get("", "pages").unwrap()
    }
}

#[tokio::test]
async fn a_full_disk_stores_nothing_damages_nothing_and_is_over_when_there_is_room() {
    let scene = Scene::new().await;
    let pages = scene.pages().await;
    for _ in 0..3 {
        // Every time: the connection whose transaction the full disk ended is not used again.
        scene.room(pages).await;
        let answer = scene.send(40_000).await;
        assert!(matches!(answer, Err(StorageError::Unavailable(_))), "{answer:?}");
        assert_eq!(scene.storage.channel_for(scene.user, scene.channel).await.unwrap().unwrap().last_seq.0, 1);
    }
    scene.room(1_000_000).await;
    assert!(matches!(scene.send(40_000).await, Ok(Appended::Stored { entry, .. }) if entry.seq.0 == 2));
    assert_eq!(scene.integrity().await, "ok");
}

#[tokio::test]
async fn what_is_confirmed_after_the_disk_was_full_is_in_the_file() {
    let scene = Scene::new().await;
    scene.room(scene.pages().await).await;
    assert!(scene.send(40_000).await.is_err());
    scene.room(1_000_000).await;
    // Taken back. In a transaction that the driver takes for open it would leave that open.
    drop(scene.storage.begin().await.unwrap());
    assert!(matches!(scene.send(1).await, Ok(Appended::Stored { .. })));
    let seen_by_readers = scene.storage.channel_for(scene.user, scene.channel).await.unwrap().unwrap().last_seq;
    assert_eq!(seen_by_readers.0, 2);
}

#[tokio::test]
async fn somebody_else_who_writes_is_waited_for() {
    let scene = Scene::new().await;
    let other = Storage::connect(&scene.settings).await.unwrap();
    let writes = other.begin().await.unwrap();
    let (answer, ()) = tokio::join!(scene.send(1), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        writes.rollback().await.unwrap();
    });
    assert!(matches!(answer, Ok(Appended::Stored { .. })), "{answer:?}");
}

#[tokio::test]
async fn somebody_else_who_never_ends_writing_is_given_up_on_in_5_s_and_nothing_is_stored() {
    let scene = Scene::new().await;
    let other = Storage::connect(&scene.settings).await.unwrap();
    let writes = other.begin().await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), scene.send(1)).await.expect("it ends by itself");
    assert!(matches!(answer, Err(StorageError::Unavailable(_))), "{answer:?}");
    // Reads go on meanwhile.
    assert!(scene.storage.channel_for(scene.user, scene.channel).await.unwrap().is_some());
    writes.rollback().await.unwrap();
    assert!(matches!(scene.send(1).await, Ok(Appended::Stored { entry, .. }) if entry.seq.0 == 2));
}
