//! The storage on real Postgres: its contract, each case on a database of its own, and what happens when the network
//! to the database fails.

mod faults;

use std::future::Future;
use touchline_harness::TestDatabase;
use touchline_storage::{Settings, Storage, StorageError, storage_contract};

storage_contract!(on_postgres);

async fn on_postgres<F: Future<Output = Result<(), StorageError>>>(case: impl FnOnce(Storage, Storage) -> F) {
    let database = TestDatabase::create().await.unwrap();
    let settings = Settings { url: database.url(), max_connections: 4 };
    let one = Storage::connect(&settings).await.unwrap();
    one.migrate_up().await.unwrap();
    let two = Storage::connect(&settings).await.unwrap();
    case(one.clone(), two.clone()).await.unwrap();
    one.close().await.unwrap();
    two.close().await.unwrap();
}
