//! Which server is called, where several serve the same: the next one after one that gave no answer.

use crate::error::ClientError;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Semaphore;

/// The servers of a client and its clones, and whose turn it is.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    bases: Arc<[String]>,
    turn: Arc<AtomicUsize>,
    places: Option<Arc<Semaphore>>,
}

/// A call to one of them.
pub(crate) struct Call {
    request: RequestBuilder,
    servers: Servers,
    /// Whose turn it was.
    turn: usize,
}

impl Servers {
    /// These, beginning with the first.
    pub(crate) fn new(bases: &[&str]) -> Result<Self, ClientError> {
        let bases = bases.iter().map(|base| checked(base)).collect::<Result<Arc<[_]>, _>>()?;
        if bases.is_empty() {
            return Err(ClientError::Url(String::new()));
        }
        Ok(Self { bases, turn: Arc::default(), places: None })
    }

    /// The same ones with turns of their own, beginning with this one.
    pub(crate) fn beginning_with(&self, first: usize) -> Self {
        Self { turn: Arc::new(AtomicUsize::new(first)), ..self.clone() }
    }

    /// With so many calls at the same time; more wait.
    pub(crate) fn at_most(&self, calls: usize) -> Self {
        Self { places: Some(Arc::new(Semaphore::new(calls))), ..self.clone() }
    }

    /// Their addresses.
    pub(crate) fn bases(&self) -> &[String] {
        &self.bases
    }

    pub(crate) fn call(&self, http: &reqwest::Client, method: Method, path: &str) -> Call {
        let turn = self.turn.load(Ordering::Relaxed);
        let base = &self.bases[turn % self.bases.len()];
        Call { request: http.request(method, format!("{base}{path}")), servers: self.clone(), turn }
    }

    /// Whether all are on this machine, by their addresses.
    pub(crate) fn are_on_this_machine(&self) -> bool {
        self.bases.iter().all(|base| {
            let host = Url::parse(base).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        })
    }
}

impl Call {
    pub(crate) fn json(self, body: &(impl Serialize + ?Sized)) -> Self {
        Self { request: self.request.json(body), ..self }
    }

    pub(crate) fn query(self, query: &(impl Serialize + ?Sized)) -> Self {
        Self { request: self.request.query(query), ..self }
    }

    pub(crate) fn bearer_auth(self, token: &str) -> Self {
        Self { request: self.request.bearer_auth(token), ..self }
    }

    /// Makes it. Without an answer, or with a 503, the next call goes to the next server.
    pub(crate) async fn send(self) -> Result<Response, ClientError> {
        let Self { request, servers: Servers { turn: turns, places, .. }, turn } = self;
        let _place = match &places {
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        let mut step = Step { turns, turn, taken: true };
        let answer = request.send().await?;
        step.taken = answer.status() == http::StatusCode::SERVICE_UNAVAILABLE;
        Ok(answer)
    }
}

/// To the next server, when a call ends; also when whoever made it does not wait for it any more.
struct Step {
    turns: Arc<AtomicUsize>,
    turn: usize,
    taken: bool,
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.taken {
            // Several calls that failed at the same server are one step.
            let next = self.turn.wrapping_add(1);
            let _ = self.turns.compare_exchange(self.turn, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn checked(base: &str) -> Result<String, ClientError> {
    let refused = || ClientError::Url(base.to_owned());
    let url = Url::parse(base).map_err(|_| refused())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refused());
    }
    Ok(base.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_server_is_called_after_one_that_gave_no_answer() {
        // Nobody listens on these: both refuse.
        let servers = Servers::new(&["http://127.0.0.1:1", "http://127.0.0.2:1/"]).unwrap();
        let http = reqwest::Client::new();
        let call = || servers.call(&http, Method::GET, "/v1/me");
        let (first, second) = (call(), call());
        assert_eq!((first.turn, second.turn), (0, 0));
        assert!(first.send().await.is_err() && second.send().await.is_err());
        assert_eq!(call().turn, 1, "two failures at one server are one step");
        assert!(call().send().await.is_err());
        assert_eq!(call().turn, 2);
        assert_eq!(servers.beginning_with(1).call(&http, Method::GET, "/").turn, 1);
    }
}
