//! Stopping in two steps: softly (finish what was begun), then hard. Every task of a process belongs to one
//! [`Shutdown`], so that nothing outlives it unseen.

use std::{future::Future, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The process's (or one service's) life: its tasks and the two signals that end them. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A life of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A life inside this one: ends with it, or earlier by itself. Its tasks are waited for separately.
    pub fn child(&self) -> Self {
        Self { soft: self.soft.child_token(), hard: self.hard.child_token(), tasks: TaskTracker::new() }
    }

    /// Starts a task that this life waits for, and that a hard stop drops where it stands.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let hard = self.hard.clone();
        self.tasks.spawn(async move { hard.run_until_cancelled(task).await })
    }

    /// Starts a task that has nothing to finish: the soft stop ends it.
    pub fn spawn_until_stop<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let soft = self.soft.clone();
        self.tasks.spawn(async move { soft.run_until_cancelled(task).await })
    }

    /// Asks every task to finish what it began.
    pub fn stop(&self) {
        self.soft.cancel();
    }

    /// Ends every task where it stands.
    pub fn stop_now(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopping(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Resolves when the soft stop begins.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        self.soft.clone().cancelled_owned()
    }

    /// Resolves when the hard stop begins.
    pub fn stopping_now(&self) -> impl Future<Output = ()> + Send + 'static {
        self.hard.clone().cancelled_owned()
    }

    /// Waits up to `patience` for the tasks to end by themselves, then stops them hard. True when none had to be.
    pub async fn wait(&self, patience: Duration) -> bool {
        self.tasks.close();
        let softly = tokio::select! {
            () = self.tasks.wait() => true,
            () = tokio::time::sleep(patience) => false,
            () = self.hard.cancelled() => false,
        };
        self.stop_now();
        self.tasks.wait().await;
        softly
    }

    /// Stops softly on the first SIGTERM or SIGINT and hard on the second.
    ///
    /// # Errors
    /// When the process may not install signal handlers.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let this = self.clone();
        // Outside the tracker: it must never keep the process alive.
        #[expect(clippy::disallowed_methods, reason = "waits for signals for as long as the process lives")]
        tokio::spawn(async move {
            for stop in [Self::stop, Self::stop_now] {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                stop(&this);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_listens_ends_softly() {
        let life = Shutdown::new();
        life.spawn(life.stopping());
        life.stop();
        assert!(life.wait(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn a_task_that_does_not_listen_is_dropped() {
        let life = Shutdown::new();
        let task = life.spawn(std::future::pending::<()>());
        life.stop();
        assert!(!life.wait(Duration::from_millis(1)).await);
        assert!(matches!(task.await, Ok(None)));
    }

    #[tokio::test]
    async fn a_child_ends_with_its_parent_but_not_the_other_way() {
        let parent = Shutdown::new();
        let child = parent.child();
        child.stop();
        assert!(!parent.is_stopping());
        parent.stop_now();
        child.stopping_now().await;
    }
}
