//! Which server is called, where several serve the same: the next one after one that gave no answer, and after a while
//! the first one again.

use crate::error::ClientError;
use http::StatusCode;
use reqwest::{Method, Request, RequestBuilder, Response, Url};
use serde::Serialize;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// How long a server may take to begin its answer before the next one is asked: one that is stopped takes connections
/// and says nothing.
const TURN: Duration = Duration::from_secs(3);
/// The shortest time after which the first server is called again, and by how much longer it may be: not all clients of
/// a server that was away come back to it in one moment.
const AWAY: Duration = Duration::from_secs(30);
const AWAY_SPREAD: Duration = Duration::from_secs(60);

/// The servers of a client and its clones, and whose turn it is.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    bases: Arc<[String]>,
    turns: Arc<Mutex<Turns>>,
    places: Option<Arc<Semaphore>>,
}

/// Whose turn it is, without I/O.
#[derive(Debug)]
struct Turns {
    count: usize,
    first: usize,
    present: usize,
    /// When the first one has its turn again.
    back_at: Option<Instant>,
}

impl Turns {
    fn beginning_with(first: usize, count: usize) -> Self {
        let first = first % count;
        Self { count, first, present: first, back_at: None }
    }

    fn present(&mut self, now: Instant) -> usize {
        if self.back_at.take_if(|at| now >= *at).is_some() {
            self.present = self.first;
        }
        self.present
    }

    /// That one gave no answer. Several calls that failed at the same one are one step. `random` is 0 to 1.
    fn failed(&mut self, server: usize, now: Instant, random: f64) {
        if self.present != server {
            return;
        }
        self.present = (server + 1) % self.count;
        if self.present == self.first {
            self.back_at = None;
        } else if self.back_at.is_none() {
            self.back_at = Some(now + AWAY + AWAY_SPREAD.mul_f64(random));
        }
    }
}

/// A call to one of them.
pub(crate) struct Call {
    http: reqwest::Client,
    /// To the first of the list.
    request: RequestBuilder,
    servers: Servers,
    /// Nothing is different when it is made twice.
    repeatable: bool,
    /// It stores something: what one server refuses another one may still do, if it was asked as well.
    stores: bool,
}

impl Servers {
    /// These, beginning with the first.
    pub(crate) fn new(bases: &[&str]) -> Result<Self, ClientError> {
        let bases = bases.iter().map(|base| checked(base)).collect::<Result<Arc<[_]>, _>>()?;
        if bases.is_empty() {
            return Err(ClientError::Url(String::new()));
        }
        let turns = Arc::new(Mutex::new(Turns::beginning_with(0, bases.len())));
        Ok(Self { bases, turns, places: None })
    }

    /// The same ones with turns of their own, beginning with this one.
    pub(crate) fn beginning_with(&self, first: usize) -> Self {
        let turns = Turns::beginning_with(first, self.bases.len());
        Self { turns: Arc::new(Mutex::new(turns)), ..self.clone() }
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
        let repeatable = method.is_safe();
        let request = http.request(method, format!("{}{path}", self.bases[0]));
        Call { http: http.clone(), request, servers: self.clone(), repeatable, stores: false }
    }

    /// Whether all are on this machine, by their addresses.
    pub(crate) fn are_on_this_machine(&self) -> bool {
        self.bases.iter().all(|base| {
            let host = Url::parse(base).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        })
    }

    /// The same request to another of them.
    fn at(&self, server: usize, request: &Request) -> Option<Request> {
        let mut request = request.try_clone()?;
        let path = request.url().as_str().strip_prefix(&self.bases[0])?;
        *request.url_mut() = Url::parse(&format!("{}{path}", self.bases[server])).ok()?;
        Some(request)
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// It may be made twice, as what only reads may be anyway.
    pub(crate) fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// It stores something under a name of its own, so that it may be made twice.
    pub(crate) fn stores(self) -> Self {
        Self { repeatable: true, stores: true, ..self }
    }

    /// Makes it. Without an answer, or with a 503, the next call goes to the next server. One that may be made twice
    /// goes there itself when a server does not begin its answer; the last one has all the time there is.
    pub(crate) async fn send(self) -> Result<Response, ClientError> {
        let Self { http, request, servers, repeatable, stores } = self;
        let _place = match &servers.places {
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        let request = request.build()?;
        let (first, count) = (servers.turns().present(Instant::now()), servers.bases.len());
        let others = if repeatable { count - 1 } else { 0 };
        for number in 0..=others {
            let server = (first + number) % count;
            let request = servers.at(server, &request).ok_or(ClientError::TooSlow)?;
            let asking = servers.ask(server, &http, request);
            let answer = if number < others { timeout(TURN, asking).await } else { Ok(asking.await) };
            match answer {
                Ok(answer) if stores && number > 0 && Self::leaves_open(&answer) => return Err(ClientError::TooSlow),
                Ok(answer) => return answer,
                Err(_) => {}
            }
        }
        Err(ClientError::TooSlow)
    }

    /// Whether a server's refusal leaves open what one that was asked before it does: all but that something else is
    /// stored under this name.
    fn leaves_open(answer: &Result<Response, ClientError>) -> bool {
        let settled = |status: StatusCode| status.is_success() || status == StatusCode::CONFLICT;
        answer.as_ref().is_ok_and(|answer| !settled(answer.status()))
    }
}

impl Servers {
    async fn ask(&self, server: usize, http: &reqwest::Client, request: Request) -> Result<Response, ClientError> {
        let mut step = Step { servers: self, server, taken: None, began: Instant::now() };
        let answer = http.execute(request).await;
        let unavailable = |answer: &Response| answer.status() == StatusCode::SERVICE_UNAVAILABLE;
        step.taken = Some(answer.as_ref().map_or(true, unavailable));
        Ok(answer?)
    }
}

/// To the next server, when a call ends; also when whoever made it does not wait for it any more and this one had its
/// time to begin an answer.
struct Step<'a> {
    servers: &'a Servers,
    server: usize,
    /// None until there is an answer, or none to come.
    taken: Option<bool>,
    began: Instant,
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if self.taken.unwrap_or_else(|| self.began.elapsed() >= TURN) {
            self.servers.turns().failed(self.server, Instant::now(), rand::random());
        }
    }
}

fn checked(base: &str) -> Result<String, ClientError> {
    let refused = || ClientError::Url(base.to_owned());
    let url = Url::parse(base).map_err(|_| refused())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refused());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_server_is_called_after_one_that_gave_no_answer() {
        // Nobody listens on these: both refuse.
        let servers = Servers::new(&["http://127.0.0.1:1", "http://127.0.0.2:1/"]).unwrap();
        let http = reqwest::Client::new();
        let call = || servers.call(&http, Method::GET, "/v1/me").send();
        let turn = || servers.turns().present(Instant::now());
        assert_eq!(turn(), 0);
        let (one, other) = tokio::join!(call(), call());
        assert!(one.is_err() && other.is_err());
        assert_eq!(turn(), 1, "two failures at one server are one step");
        assert!(call().await.is_err());
        assert_eq!(turn(), 0);
        assert_eq!(servers.beginning_with(3).turns().present(Instant::now()), 1);
    }

    #[test]
    fn a_call_is_the_same_at_every_server() {
        let servers = Servers::new(&["http://ONE:80/", "https://two:8443/chat/"]).unwrap();
        let http = reqwest::Client::new();
        let call = servers.call(&http, Method::POST, "/v1/sync").query(&[("a", 1)]).json(&[1, 2]).bearer_auth("t");
        let request = call.request.build().unwrap();
        let other = servers.at(1, &request).unwrap();
        assert_eq!(request.url().as_str(), "http://one/v1/sync?a=1");
        assert_eq!(other.url().as_str(), "https://two:8443/chat/v1/sync?a=1");
        assert_eq!(other.headers(), request.headers());
        let body = |request: &Request| request.body().and_then(|body| body.as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(body(&other), body(&request));
    }

    #[test]
    fn clients_come_back_to_their_first_server_after_a_while_each_at_another_time() {
        let began = Instant::now();
        let mut turns = Turns::beginning_with(5, 3);
        assert_eq!(turns.present(began), 2);
        turns.failed(2, began, 0.5);
        turns.failed(2, began, 0.0);
        assert_eq!(turns.present(began), 0, "one step");
        // Going further does not put it off.
        let back = began + AWAY + AWAY_SPREAD / 2;
        turns.failed(0, began + AWAY, 1.0);
        assert_eq!(turns.present(back - Duration::from_millis(1)), 1);
        assert_eq!(turns.present(back), 2);
        turns.failed(2, back, 0.0);
        assert_eq!(turns.present(back + AWAY), 2, "and again when it gives no answer then either");
        // All around: then it is the first one's turn anyway.
        [2, 0, 1].into_iter().for_each(|server| turns.failed(server, back, 0.0));
        assert_eq!((turns.present(back), turns.back_at), (2, None));
    }
}
