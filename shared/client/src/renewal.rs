//! How a device gets a new access token when the one it has is over.

use crate::{Client, ClientError, Login};
use futures_util::future::BoxFuture;
use std::{fmt, future::Future, sync::Arc};
use tokio::sync::Mutex;

/// Gives a new access token. Clones share it: one for all devices of a log-in.
#[derive(Clone)]
pub struct Renewal(Arc<dyn Fn() -> BoxFuture<'static, Result<String, ClientError>> + Send + Sync>);

impl Renewal {
    /// By your own means. An error that is a final refusal (`4xx`) ends the device; after any other it tries again.
    pub fn new<F>(renew: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, ClientError>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(renew())))
    }

    /// With the refresh token of a log-in, which must be used for nothing else from now on.
    pub fn by_refresh(nobody: &Client, login: &Login) -> Self {
        let state = Arc::new((nobody.clone(), Mutex::new(login.refresh_token.clone())));
        Self::new(move || {
            let state = Arc::clone(&state);
            async move {
                let (nobody, token) = &*state;
                // Held over the call: a refresh token works once.
                let mut token = token.lock().await;
                let login = nobody.refresh(&token).await?;
                *token = login.refresh_token;
                Ok(login.access_token)
            }
        })
    }

    /// A new access token, for those who call by themselves.
    pub fn renew(&self) -> BoxFuture<'static, Result<String, ClientError>> {
        (self.0)()
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal")
    }
}
