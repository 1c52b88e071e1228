//! Why a notifier does not start.

use crate::service_account::KeyFileError;
use std::path::PathBuf;

/// Why a provider cannot be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The service account's key.
    #[error("notifier.fcm.service_account_file: {}: {source}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyFileError,
    },
    /// The authorities for tests.
    #[error("notifier.fcm.ca_file: {}: {what}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Not a URL.
    #[error("notifier.fcm.endpoint: must be like https://fcm.googleapis.com")]
    Endpoint,
    /// The URL to post to.
    #[error("notifier.webhook.url: {0}")]
    Url(String),
    /// The secret to sign with.
    #[error("notifier.webhook.secret: {0}")]
    Secret(&'static str),
    /// The HTTP client.
    #[error("the notifier's HTTP client cannot be made: {0}")]
    Client(#[source] reqwest::Error),
}
