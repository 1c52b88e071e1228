//! `touchline outbox` as an operator meets it.

use anyhow::{Context as _, Result, ensure};
use sea_orm::{ConnectionTrait as _, Database};
use serde_json::Value;
use std::{fs, path::Path, process::Stdio};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};
use touchline_harness::{DEADLINE, TestDatabase, binary};
use touchline_ids::{ChannelId, MessageId, UserId};
use touchline_storage::{CreateChannel, CreateUser, NewChannel, NewUser, Settings, Storage};
use uuid::Uuid;

/// Its exit code, and what it said on stdout and stderr.
async fn outbox(folder: &Path, arguments: &str) -> Result<(i32, String, String)> {
    let mut command = Command::new(binary()?);
    command.arg("outbox").args(arguments.split_whitespace()).current_dir(folder).env_clear().stdin(Stdio::null());
    let output = timeout(DEADLINE, command.kill_on_drop(true).output()).await.context("it does not end")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok((output.status.code().context("a code")?, text(&output.stdout), text(&output.stderr)))
}

async fn new_channel(storage: &Storage, owner: UserId) -> Result<ChannelId> {
    let id = ChannelId::new();
    let (name, member_ids, message_id) = ("talk".to_owned(), Vec::new(), MessageId::new());
    let channel = NewChannel { id, name, owner, member_ids, message_id, created_at_ms: 0 };
    let created = storage.create_channel(channel, Uuid::now_v7()).await?;
    ensure!(matches!(created, CreateChannel::Created { .. }));
    Ok(id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_what_was_given_up_and_retries_or_drops_it() -> Result<()> {
    let (database, folder) = (TestDatabase::create().await?, TempDir::with_prefix("touchline-outbox.")?);
    let storage = Storage::connect(&Settings { url: database.url(), ..Settings::default() }).await?;
    fs::write(folder.path().join("touchline.toml"), format!("[database]\nurl = \"{}\"\n", database.url()))?;
    let (code, _, told) = outbox(folder.path(), "list").await?;
    assert!(code == 1 && told.contains("touchline migrate up"), "{told}");
    storage.migrate_up().await?;
    assert_eq!(outbox(folder.path(), "list").await?.1, "the outbox is empty");
    assert_eq!(outbox(folder.path(), "list --dead").await?.1, "no dead letters");

    let owner = NewUser {
        id: UserId::new(),
        handle: "ada".to_owned(),
        display_name: "Ada".to_owned(),
        password_hash: None,
        external: None,
        created_at_ms: 0,
    };
    let ada = owner.id;
    ensure!(matches!(storage.create_user(owner).await?, CreateUser::Created(_)));
    let (dead, alive) = (new_channel(&storage, ada).await?, new_channel(&storage, ada).await?);
    let operator = Database::connect(database.url()).await?;
    let die = format!("UPDATE outbox SET attempts = 5, claim_until = 9223372036854775807 WHERE channel_id = '{dead}'");
    operator.execute_unprepared(&die).await?;

    let (code, all, _) = outbox(folder.path(), "list").await?;
    assert_eq!((code, all.lines().count()), (0, 2), "{all}");
    let listed = outbox(folder.path(), "list --dead --json").await?.1;
    let row: Value = serde_json::from_str(&listed)?;
    assert_eq!((&row["channel_id"], &row["state"]), (&dead.to_string().into(), &"dead".into()), "{listed}");
    assert!(!listed.contains("talk"), "never with a message's text");

    let (code, _, told) = outbox(folder.path(), &format!("retry {alive} 1")).await?;
    assert!(code == 1 && told.contains("no dead letters"), "{told}");
    assert_eq!(outbox(folder.path(), &format!("retry {dead} 1")).await?.1, "retried 1");
    assert_eq!(storage.take_expired(Uuid::now_v7(), 10).await?.len(), 1);
    operator.execute_unprepared(&die).await?;
    assert_eq!(outbox(folder.path(), "retry --all-dead").await?.1, "retried 1");

    let (code, _, told) = outbox(folder.path(), &format!("drop {dead} 1")).await?;
    assert!(code == 64 && told.contains("--yes"), "{told}");
    assert_eq!(storage.outbox_counts().await?.waiting, 2, "nothing was dropped");
    assert_eq!(outbox(folder.path(), &format!("drop {dead} 1 --yes")).await?.1, "dropped 1");
    let (code, _, told) = outbox(folder.path(), &format!("drop {dead} 1 --yes")).await?;
    assert!(code == 1 && told.contains("not in the outbox"), "{told}");
    assert_eq!(storage.outbox_counts().await?.waiting, 1);
    Ok(storage.close().await?)
}
