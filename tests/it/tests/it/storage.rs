//! The storage on real Postgres: its contract, each case on a database of its own, and what happens when the network
//! to the database, or the database itself, fails.

mod faults;
mod leaks;
mod outages;
mod outbox;

use std::future::Future;
use touchline_harness::TestDatabase;
use touchline_storage::{Settings, Storage, StorageError, storage_contract};

storage_contract!(on_postgres);

async fn on_postgres<F: Future<Output = Result<(), StorageError>>>(case: impl FnOnce(Storage, Storage) -> F) {
    let database = TestDatabase::create().await.expect("a database");
    let settings = Settings { url: database.url(), max_connections: 4, ..Settings::default() };
    let one = Storage::connect(&settings).await.expect("the database answers");
    one.migrate_up().await.expect("an empty database");
    let two = Storage::connect(&settings).await.expect("the database answers");
    case(one.clone(), two.clone()).await.expect("no error that the case does not expect");
    one.close().await.expect("nothing is running");
    two.close().await.expect("nothing is running");
}
