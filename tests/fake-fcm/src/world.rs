//! What all connections of one fake share.

use crate::{
    access_tokens::AccessTokens,
    answers,
    control::{Change, Control},
    control_api,
    key::ServiceKey,
    log::Log,
    request::{Reply, Request},
    send,
    token_endpoint::{self, TokenCalls},
};
use http::{HeaderValue, header};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Who is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// FCM and the token endpoint.
    Google,
    /// The fake itself.
    Control,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) key: ServiceKey,
    pub(crate) control: Control,
    pub(crate) log: Log,
    pub(crate) clock: Clock,
    pub(crate) token_uris: Vec<String>,
    pub(crate) connections: AtomicU32,
    pub(crate) access_tokens: Mutex<AccessTokens>,
    pub(crate) token_calls: Mutex<TokenCalls>,
}

impl World {
    /// What is done to a request.
    pub(crate) async fn answer(&self, face: Face, request: &Request) -> Reply {
        let path = request.uri.path();
        let mut reply = match (face, send::project(path)) {
            (Face::Google, Some(project)) => send::answer(self, request, project).await,
            (Face::Google, None) if path == "/token" => token_endpoint::answer(self, request).await,
            (Face::Google, None) => answers::page(404, answers::HTML_404),
            (Face::Control, _) => control_api::answer(self, request),
        };
        if matches!(reply, Reply::Never) {
            std::future::pending::<()>().await;
        }
        if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(self.clock.shown())) {
            reply.header(header::DATE, date);
        }
        reply
    }

    pub(crate) fn change(&self, change: Change) {
        if change.revoke_access_tokens {
            self.access_tokens().revoke_all();
        }
        if let Some(seconds) = change.clock_ahead_s {
            self.clock.ahead_s.store(seconds, Ordering::Relaxed);
        }
        self.control.change(change);
    }

    pub(crate) fn next_connection(&self) -> u32 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn access_tokens(&self) -> MutexGuard<'_, AccessTokens> {
        self.access_tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn token_calls(&self) -> MutexGuard<'_, TokenCalls> {
        self.token_calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fake's clocks.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    ahead_s: AtomicI64,
}

impl Clock {
    pub(crate) fn start(ahead_s: i64) -> Self {
        Self { started: Instant::now(), ahead_s: AtomicI64::new(ahead_s) }
    }

    /// Since the start.
    pub(crate) fn mono(&self) -> Duration {
        self.started.elapsed()
    }

    /// The same in microseconds.
    pub(crate) fn mono_us(&self) -> u64 {
        u64::try_from(self.mono().as_micros()).unwrap_or(u64::MAX)
    }

    /// The true time, in Unix milliseconds.
    pub(crate) fn unix_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }

    /// The time as it is shown to clients.
    pub(crate) fn shown(&self) -> SystemTime {
        let ahead = self.ahead_s.load(Ordering::Relaxed);
        let distance = Duration::from_secs(ahead.unsigned_abs());
        let now = SystemTime::now();
        if ahead < 0 { now - distance } else { now + distance }
    }
}
