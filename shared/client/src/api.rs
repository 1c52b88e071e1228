//! The REST calls.

mod wishes;

use crate::{
    error::{ClientError, Refusal},
    model::{Channel, Connect, Cursor, History, Login, Member, NewMessage, ReadMark, Sent, Synced, User},
    servers::{Call, Servers},
};
use reqwest::{Method, Response};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{fmt, sync::Arc, time::Duration};
use touchline_ids::{ChannelId, DeviceId, Seq, UserId};

/// Calls one server, or one of several, as one user or nobody. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    servers: Servers,
    access_token: Option<Arc<str>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("servers", &self.servers.bases()).finish_non_exhaustive()
    }
}

type Result<T> = std::result::Result<T, ClientError>;

/// What a change of the members answers.
#[derive(Deserialize)]
struct Change {
    seq: Option<Seq>,
}

/// A page's worth; the server's limit.
const PAGE: usize = 200;

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:8080`, as nobody.
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub fn new(base: &str) -> Result<Self> {
        Self::any_of(&[base])
    }

    /// A client of several servers that serve the same: the first one, and after a call without an answer or with a 503
    /// the next one; half a minute to one and a half later the first one again.
    ///
    /// The call itself is not repeated, but for one that may be made twice (what reads, `sync`, `connect`, `send`,
    /// `mark_read`): when a server has not begun its answer after 3 s, the next one is asked.
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub fn any_of(bases: &[&str]) -> Result<Self> {
        let servers = Servers::new(bases)?;
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(30))
            // The socket takes no proxy either.
            .no_proxy()
            .build()?;
        Ok(Self { http, servers, access_token: None })
    }

    /// The same client, beginning with the server at this place in the list and changing by itself.
    #[must_use]
    pub fn beginning_with(&self, server: usize) -> Self {
        Self { servers: self.servers.beginning_with(server), ..self.clone() }
    }

    /// The same client with at most so many calls at the same time over all clones made from it; more wait. Thousands
    /// of users in one process would open as many connections.
    #[must_use]
    pub fn at_most(&self, calls: usize) -> Self {
        Self { servers: self.servers.at_most(calls), ..self.clone() }
    }

    /// The same client as the user of this access token.
    #[must_use]
    pub fn as_user(&self, access_token: &str) -> Self {
        Self { access_token: Some(access_token.into()), ..self.clone() }
    }

    /// Whether the server is on this machine, by its address.
    pub fn is_on_this_machine(&self) -> bool {
        self.servers.are_on_this_machine()
    }

    /// Makes a user and logs them in.
    pub async fn sign_up(&self, handle: &str, password: &str, display_name: Option<&str>) -> Result<Login> {
        let mut body = json!({"handle": handle, "password": password});
        if let Some(name) = display_name {
            body["display_name"] = name.into();
        }
        answer(self.post("/v1/users").json(&body)).await
    }

    /// Logs a user in.
    pub async fn log_in(&self, handle: &str, password: &str) -> Result<Login> {
        answer(self.post("/v1/sessions").json(&json!({"handle": handle, "password": password}))).await
    }

    /// Trades a refresh token for new tokens. The old one is used up.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Login> {
        answer(self.post("/v1/sessions/refresh").json(&json!({"refresh_token": refresh_token}))).await
    }

    /// Logs this log-in out: its refresh tokens are void.
    pub async fn log_out(&self) -> Result<()> {
        accepted(self.request(Method::DELETE, "/v1/sessions/current")).await.map(drop)
    }

    /// Who I am.
    pub async fn me(&self) -> Result<User> {
        answer(self.get("/v1/me")).await
    }

    /// The user with exactly this handle.
    pub async fn find_user(&self, handle: &str) -> Result<User> {
        answer(self.get("/v1/users").query(&[("handle", handle)])).await
    }

    /// Makes a channel that I own.
    pub async fn create_channel(&self, name: &str, members: &[UserId]) -> Result<Channel> {
        answer(self.post("/v1/channels").json(&json!({"name": name, "member_ids": members}))).await
    }

    /// All my channels.
    pub async fn channels(&self) -> Result<Vec<Channel>> {
        #[derive(Deserialize)]
        struct Page {
            channels: Vec<Channel>,
            next: Option<ChannelId>,
        }
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page: Page = answer(self.page("/v1/channels", after)).await?;
            all.extend(page.channels);
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// One of my channels.
    pub async fn channel(&self, channel: ChannelId) -> Result<Channel> {
        answer(self.get(&format!("/v1/channels/{channel}"))).await
    }

    /// Renames a channel.
    pub async fn rename_channel(&self, channel: ChannelId, name: &str) -> Result<Channel> {
        let path = format!("/v1/channels/{channel}");
        answer(self.request(Method::PATCH, &path).json(&json!({"name": name}))).await
    }

    /// All members of a channel.
    pub async fn members(&self, channel: ChannelId) -> Result<Vec<Member>> {
        #[derive(Deserialize)]
        struct Page {
            members: Vec<Member>,
            next: Option<UserId>,
        }
        let path = format!("/v1/channels/{channel}/members");
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page: Page = answer(self.page(&path, after)).await?;
            all.extend(page.members);
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Adds members to a channel: the seq of the log entry that says so, none when all were members.
    pub async fn add_members(&self, channel: ChannelId, users: &[UserId]) -> Result<Option<Seq>> {
        let request = self.post(&format!("/v1/channels/{channel}/members")).json(&json!({"user_ids": users}));
        answer::<Change>(request).await.map(|change| change.seq)
    }

    /// Gives a member another role (`owner`, `admin`, `member`): the seq of the log entry that says so, if anything changed.
    pub async fn set_role(&self, channel: ChannelId, user: UserId, role: &str) -> Result<Option<Seq>> {
        let path = format!("/v1/channels/{channel}/members/{user}");
        let request = self.request(Method::PATCH, &path).json(&json!({"role": role}));
        answer::<Change>(request).await.map(|change| change.seq)
    }

    /// Removes a member from a channel; oneself: leaves it.
    pub async fn remove_member(&self, channel: ChannelId, user: UserId) -> Result<()> {
        accepted(self.request(Method::DELETE, &format!("/v1/channels/{channel}/members/{user}"))).await.map(drop)
    }

    /// Sends a message. When [`ClientError::is_unknown`], repeat it with the same `message`.
    pub async fn send(&self, channel: ChannelId, message: &NewMessage) -> Result<Sent> {
        answer(self.post(&format!("/v1/channels/{channel}/messages")).json(message).stores()).await
    }

    /// A page of a channel's log: what follows `after`, or what precedes `before`, or the newest.
    pub async fn history(
        &self,
        channel: ChannelId,
        after: Option<Seq>,
        before: Option<Seq>,
        limit: Option<u32>,
    ) -> Result<History> {
        let query: Vec<_> = [
            ("after_seq", after.map(|seq| seq.0)),
            ("before_seq", before.map(|seq| seq.0)),
            ("limit", limit.map(i64::from)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
        answer(self.get(&format!("/v1/channels/{channel}/messages")).query(&query)).await
    }

    /// Raises my read mark; a lower one changes nothing.
    pub async fn mark_read(&self, channel: ChannelId, seq: Seq) -> Result<ReadMark> {
        let path = format!("/v1/channels/{channel}/read");
        answer(self.request(Method::PUT, &path).json(&json!({"seq": seq})).repeatable()).await
    }

    /// What I missed since these cursors, and the newest `recent` of my channels without one.
    pub async fn sync(&self, cursors: &[Cursor], recent: Option<u32>) -> Result<Synced> {
        let mut body = json!({"cursors": cursors});
        if let Some(recent) = recent {
            body["recent"] = recent.into();
        }
        answer(self.post("/v1/sync").json(&body).repeatable()).await
    }

    /// Where and how to open a socket for this device.
    pub async fn connect(&self, device: &DeviceId) -> Result<Connect> {
        answer(self.post("/v1/connect").json(&json!({"device_id": device})).repeatable()).await
    }

    /// Any other call: the answer's body as JSON, null when it is empty.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let request = self.request(method, path);
        let response = accepted(body.into_iter().fold(request, Call::json)).await?;
        let bytes = response.bytes().await?;
        if bytes.is_empty() { Ok(Value::Null) } else { read(&bytes) }
    }

    fn get(&self, path: &str) -> Call {
        self.request(Method::GET, path)
    }

    fn post(&self, path: &str) -> Call {
        self.request(Method::POST, path)
    }

    fn page(&self, path: &str, after: Option<impl fmt::Display>) -> Call {
        let after = after.map(|after| ("after", after.to_string()));
        self.get(path).query(&[("limit", PAGE)]).query(after.as_slice())
    }

    fn request(&self, method: Method, path: &str) -> Call {
        let request = self.servers.call(&self.http, method, path);
        self.access_token.iter().fold(request, |call, token| call.bearer_auth(token))
    }
}

async fn accepted(request: Call) -> Result<Response> {
    let response = request.send().await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let headers = response.headers().clone();
    let body = response.bytes().await.unwrap_or_default();
    Err(ClientError::Refused(Refusal::read(status, &headers, &body)))
}

async fn answer<T: DeserializeOwned>(request: Call) -> Result<T> {
    read(&accepted(request).await?.bytes().await?)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(ClientError::NotUnderstood)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine() {
        for (base, here) in [
            ("http://127.0.0.1:8080", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:1/", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
            ("https://localhost.example.com", false),
            ("https://127.0.0.1.example.com", false),
        ] {
            assert_eq!(Client::new(base).unwrap().is_on_this_machine(), here, "{base}");
        }
        for bad in ["", "127.0.0.1:8080", "ftp://x", "http://"] {
            assert!(matches!(Client::new(bad), Err(ClientError::Url(_))), "{bad}");
        }
    }
}
