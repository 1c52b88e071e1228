//! The access token for FCM: one for all pushes, asked for by one task, replaced before it expires.
//!
//! Everybody reads what the task last wrote, so that there is never more than one request for a token under way. While
//! a new one is asked for, in vain perhaps, the old one serves until it really expires.

use crate::{
    metrics::Metrics,
    service_account::ServiceAccount,
    token_call::{Failure, Grant, Issuer},
};
use futures_util::FutureExt as _;
use http::HeaderValue;
use rand::Rng as _;
use std::{panic::AssertUnwindSafe, path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use touchline_mesh::Shutdown;

/// How long before its end a token is replaced, and by how much earlier at most (at random, so that several notifiers
/// do not ask at once).
const EARLY: Duration = Duration::from_secs(5 * 60);
const JITTER: Duration = Duration::from_secs(60);
/// Tokens that live shorter than this are replaced at half of their life.
const SHORT: Duration = Duration::from_secs(10 * 60);
/// When to ask again if the endpoint did not answer, at first and at most…
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_AT_MOST: Duration = Duration::from_secs(30);
/// …and if it refused us.
const AGAIN_WHEN_REFUSED: Duration = Duration::from_secs(60);

/// What is wrong with a token that FCM refused, until there is another.
const REFUSED: &str = "FCM refused the access token; another one is asked for";

/// A token that was good when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessToken {
    /// `Bearer …`, marked so that it shows in no log.
    pub(crate) header: HeaderValue,
    /// Later ones have greater numbers.
    number: u64,
    expires: Instant,
}

/// What the task last wrote.
#[derive(Debug, Clone, Default)]
struct State {
    token: Option<AccessToken>,
    /// What went wrong since then.
    trouble: Option<String>,
}

/// The token as pushes see it.
#[derive(Debug)]
pub(crate) struct AccessTokens {
    state: watch::Receiver<State>,
    /// The number of the latest token that FCM refused.
    refused: watch::Sender<u64>,
}

impl AccessTokens {
    /// Starts the task that keeps a token at hand, for as long as `life` lasts. `path` is read again when the key in it
    /// is refused.
    pub(crate) fn keep(
        account: ServiceAccount,
        path: PathBuf,
        in_clear: bool,
        issuer: impl Issuer,
        metrics: Arc<Metrics>,
        life: &Shutdown,
    ) -> Self {
        let (write, state) = watch::channel(State::default());
        let (refused, told) = watch::channel(0);
        let keeper = Keeper { account, path, in_clear, issuer, metrics, write, told, number: 0 };
        life.spawn_until_stop(keeper.run_forever());
        Self { state, refused }
    }

    /// The token, if there is a good one.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn current(&self) -> Result<AccessToken, String> {
        let state = self.state.borrow();
        match &state.token {
            Some(token) if token.number <= *self.refused.borrow() => Err(REFUSED.into()),
            Some(token) if Instant::now() < token.expires => Ok(token.clone()),
            _ => Err(state.trouble.clone().unwrap_or_else(|| "the first access token is on its way".into())),
        }
    }

    /// Waits until there is a good token. Cancel-safe.
    pub(crate) async fn ready(&self) {
        self.newer_than(0).await;
    }

    /// Says that FCM refused this token, and waits for another one. Cancel-safe.
    pub(crate) async fn replace(&self, refused: &AccessToken) -> AccessToken {
        self.refused.send_if_modified(|latest| {
            let newer = refused.number > *latest;
            *latest = refused.number.max(*latest);
            newer
        });
        self.newer_than(refused.number).await
    }

    async fn newer_than(&self, number: u64) -> AccessToken {
        let mut state = self.state.clone();
        loop {
            state.mark_unchanged();
            if let Ok(token) = self.current()
                && token.number > number
            {
                return token;
            }
            if state.changed().await.is_err() {
                // Its task ended with the process's life: there will be no other.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The task.
struct Keeper<I> {
    account: ServiceAccount,
    path: PathBuf,
    in_clear: bool,
    issuer: I,
    metrics: Arc<Metrics>,
    write: watch::Sender<State>,
    told: watch::Receiver<u64>,
    number: u64,
}

impl<I: Issuer> Keeper<I> {
    /// The task is vital: without it pushes would end with the present token, and nobody would know why.
    async fn run_forever(mut self) {
        // What a panic may leave behind is an older token or an older trouble: both were true once.
        while AssertUnwindSafe(self.run()).catch_unwind().await.is_err() {
            self.metrics.token_refreshed("failed");
            tracing::error!("the task that keeps the access token panicked, which is a bug: it begins anew");
            self.trouble("the task that asks for access tokens failed".into());
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn run(&mut self) {
        let mut again = AGAIN;
        loop {
            match self.issuer.ask(&self.account).await {
                Ok(grant) => {
                    self.metrics.token_refreshed("granted");
                    self.metrics.key_refused(false);
                    again = AGAIN;
                    let early = rand::rng().random_range(Duration::ZERO..=JITTER);
                    let refresh = grant.asked + refresh_after(grant.lifetime, early);
                    self.publish(grant);
                    // FCM may refuse it earlier.
                    self.wait(refresh, true).await;
                }
                Err(Failure::Refused(why)) => {
                    self.metrics.token_refreshed("refused");
                    if self.took_up_another_key() {
                        continue;
                    }
                    self.metrics.key_refused(true);
                    tracing::error!(
                        token.answer = why,
                        token.key_id = self.account.key_id(),
                        "the token endpoint refuses our key: pushes stop when the present access token ends. Check the \
                         machine's clock, and put a key that is not disabled into notifier.fcm.service_account_file"
                    );
                    self.trouble(format!("the token endpoint refuses our key: {why}"));
                    self.wait(Instant::now() + AGAIN_WHEN_REFUSED, false).await;
                }
                Err(Failure::Unreachable(why)) => {
                    self.metrics.token_refreshed("failed");
                    tracing::warn!(token.answer = why, "no new access token; asked again soon");
                    self.trouble(format!("the token endpoint does not give a token: {why}"));
                    let pause = again.mul_f64(rand::rng().random_range(0.75..=1.25));
                    again = (again * 2).min(AGAIN_AT_MOST);
                    self.wait(Instant::now() + pause, false).await;
                }
            }
        }
    }

    fn publish(&mut self, grant: Grant) {
        self.number += 1;
        let token = AccessToken { header: grant.header, number: self.number, expires: grant.asked + grant.lifetime };
        self.write.send_replace(State { token: Some(token), trouble: None });
    }

    fn trouble(&self, why: String) {
        self.write.send_modify(|state| state.trouble = Some(why));
    }

    /// Waits until `at`. A token that FCM refuses is dropped meanwhile, and ends the wait if `or_refused`.
    async fn wait(&mut self, at: Instant, or_refused: bool) {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(at) => return,
                told = self.told.changed() => {
                    if told.is_err() {
                        // Nobody sends any more.
                        std::future::pending::<()>().await;
                    }
                    if *self.told.borrow_and_update() < self.number {
                        continue;
                    }
                    tracing::warn!("FCM refuses the access token before its end");
                    self.write.send_modify(|state| {
                        state.token = None;
                        state.trouble = Some(REFUSED.into());
                    });
                    if or_refused {
                        return;
                    }
                }
            }
        }
    }

    /// An operator may have replaced the key. The account's project stays: pushes are under way to it.
    fn took_up_another_key(&mut self) -> bool {
        match ServiceAccount::read(&self.path, self.in_clear) {
            Ok(account) if account.project() != self.account.project() => {
                tracing::error!("the key file is of another project now: restart the notifier to use it");
                false
            }
            Ok(account) if account.key_id() != self.account.key_id() => {
                tracing::info!(
                    token.key_id = account.key_id(),
                    "the key file holds another key: it is used from now on"
                );
                self.account = account;
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::error!(%error, "the key file cannot be used");
                false
            }
        }
    }
}

/// When a token is replaced, counted from when it was asked for.
fn refresh_after(lifetime: Duration, jitter: Duration) -> Duration {
    if lifetime < SHORT { lifetime / 2 } else { lifetime - EARLY - jitter }
}

#[cfg(test)]
mod tests;
