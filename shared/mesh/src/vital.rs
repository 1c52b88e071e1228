//! Tasks without which a service cannot serve: when one of them panics the service ends, to be started anew.

use crate::Shutdown;
use futures_util::FutureExt as _;
use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A task without which a service cannot serve panicked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the {task} failed: {panic}")]
pub struct Failed {
    /// Which one.
    pub task: &'static str,
    /// What it panicked with.
    pub panic: String,
}

/// Starts such tasks and tells of the first one that panicked. Clones share it.
#[derive(Clone, Default)]
pub struct Vital {
    first: Arc<OnceLock<Failed>>,
    failed: CancellationToken,
}

impl Vital {
    /// Starts one in `life`.
    pub fn spawn<F>(&self, life: &Shutdown, task: &'static str, work: F) -> JoinHandle<Option<()>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        life.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                let panic = what(panic.as_ref());
                tracing::error!(task, panic, "failed: this service stops");
                let _ = this.first.set(Failed { task, panic });
                this.failed.cancel();
            }
        })
    }

    /// Resolves when one has failed.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// The first one that failed.
    pub fn first(&self) -> Option<Failed> {
        self.first.get().cloned()
    }
}

/// What somebody panicked with.
pub fn what(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}
