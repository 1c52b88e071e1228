//! What can be changed while the fake runs.

use crate::{
    behaviours::{Behaviour, RetryAfter},
    bucket::Bucket,
    latency::Latency,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Messages per minute that a device takes, as FCM says of Android.
const DEVICE_QUOTA: u64 = 240;
/// Tokens with a quota, or a script, at once; of more, those without either are as others.
const MOST_TOKENS: usize = 100_000;

/// How things stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What is done to every message.
    pub mode: Mode,
    /// What the project may send.
    pub quota: Option<Quota>,
    /// How long answers to messages take.
    pub latency: Latency,
    /// Streams at once on one HTTP/2 connection, as SETTINGS announce it to new connections. More are refused, and once
    /// the client has confirmed the settings answered with GOAWAY (PROTOCOL_ERROR, `exceeded_max_concurrent_streams`).
    pub max_streams: u32,
    /// A lower limit that is not announced: more open streams are answered with the same GOAWAY. 0: none.
    pub goaway_above: u32,
    /// After so many messages a connection is closed: GOAWAY (NO_ERROR, `session_timed_out`) with the last of them as
    /// last stream; over HTTP/1 `Connection: close`. 0: never.
    pub close_after: u64,
    /// A connection with nothing to do for so many seconds is closed the same way. 0: never.
    pub idle_close_s: u64,
    /// What is done to calls of `/token`.
    pub token: TokenMode,
    /// Seconds that access tokens issued from now on are good for.
    pub access_token_life_s: u64,
    /// What must not stand in any message.
    pub needles: Vec<String>,
    /// Out of reach: connections are cut, and new ones as soon as they are there. Control over HTTP goes on.
    pub away: bool,
    /// How far the fake's clock is ahead, in seconds, where it shows it: `Date` headers and the times in assertions.
    pub clock_ahead_s: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            quota: Some(Quota { per_minute: 600_000, retry_after: RetryAfter::Absent }),
            latency: Latency::default(),
            max_streams: 100,
            goaway_above: 0,
            close_after: 0,
            idle_close_s: 0,
            token: TokenMode::default(),
            access_token_life_s: 3_599,
            needles: Vec::new(),
            away: false,
            clock_ahead_s: 0,
        }
    }
}

/// One behaviour for every message, for so many of them or until changed. [`Behaviour::Ok`] leaves each to its token; so
/// does one that accepts, but then accepts in its own way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mode {
    /// What is done.
    pub behaviour: Behaviour,
    /// How often still; None: until changed.
    #[serde(default)]
    pub times: Option<u64>,
}

/// What the project may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Messages per minute, whatever becomes of them. 0: as many as one likes.
    pub per_minute: u64,
    /// What the 429 says.
    #[serde(default)]
    pub retry_after: RetryAfter,
}

/// What one token is answered for a while, whatever its text says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Which token (or fid).
    pub token: String,
    /// What it is answered.
    pub behaviour: Behaviour,
    /// How often. Then the token's next script begins, or its text counts again.
    pub times: u64,
}

/// What is done to calls of `/token`, for so many of them or until changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenMode {
    /// What is done.
    pub behaviour: TokenBehaviour,
    /// How often still; None: until changed.
    #[serde(default)]
    pub times: Option<u64>,
}

/// What is done to a call of `/token`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenBehaviour {
    /// Judged as Google does.
    #[default]
    Ok,
    /// The same, but late.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// 400 `invalid_grant`.
    InvalidGrant,
    /// 500.
    Internal,
    /// 503.
    Unavailable,
    /// Never answered.
    Hang,
}

/// A change: what is None (or empty, or false) stays as it is. The same over HTTP, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// See [`Settings::mode`].
    pub mode: Option<Mode>,
    /// Each after those that its token has already.
    pub scripts: Vec<Script>,
    /// See [`Settings::quota`]; a new minute begins.
    pub quota: Option<Quota>,
    /// See [`Settings::latency`].
    pub latency: Option<Latency>,
    /// See [`Settings::max_streams`].
    pub max_streams: Option<u32>,
    /// See [`Settings::goaway_above`].
    pub goaway_above: Option<u32>,
    /// See [`Settings::close_after`].
    pub close_after: Option<u64>,
    /// See [`Settings::idle_close_s`].
    pub idle_close_s: Option<u64>,
    /// See [`Settings::token`].
    pub token: Option<TokenMode>,
    /// See [`Settings::access_token_life_s`].
    pub access_token_life_s: Option<u64>,
    /// See [`Settings::needles`].
    pub needles: Option<Vec<String>>,
    /// See [`Settings::away`].
    pub away: Option<bool>,
    /// See [`Settings::clock_ahead_s`].
    pub clock_ahead_s: Option<i64>,
    /// Once: every HTTP/2 connection gets a GOAWAY (NO_ERROR) behind its newest stream.
    pub goaway: bool,
    /// Once: every connection is cut.
    pub cut: bool,
    /// Once: no access token is good any more.
    pub revoke_access_tokens: bool,
}

/// What connections are told while they live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// How often they were told to go.
    pub(crate) goaways: u64,
    /// How often they were cut.
    pub(crate) cuts: u64,
}

#[derive(Debug)]
pub(crate) struct Control {
    state: Mutex<State>,
    orders: watch::Sender<Orders>,
}

#[derive(Debug)]
struct State {
    settings: Arc<Settings>,
    scripts: HashMap<String, VecDeque<(Behaviour, u64)>>,
    project: Option<Bucket>,
    devices: HashMap<Box<str>, Bucket>,
}

impl Control {
    pub(crate) fn new(settings: Settings) -> Self {
        let state = State {
            project: bucket(settings.quota),
            settings: Arc::new(settings),
            scripts: HashMap::new(),
            devices: HashMap::new(),
        };
        Self { state: Mutex::new(state), orders: watch::Sender::default() }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.state().settings)
    }

    pub(crate) fn orders(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    /// Makes a change. Access tokens are revoked by the caller.
    pub(crate) fn change(&self, change: Change) {
        let cut = change.cut || change.away == Some(true);
        let goaway = change.goaway;
        self.state().apply(change);
        self.orders.send_if_modified(|orders| {
            orders.goaways += u64::from(goaway);
            orders.cuts += u64::from(cut);
            goaway || cut
        });
    }

    /// What every message gets now; takes one of its times. None: each as its token says.
    pub(crate) fn next_mode(&self) -> Option<Behaviour> {
        let mut state = self.state();
        if state.settings.mode.behaviour == Behaviour::Ok {
            return None;
        }
        let behaviour = state.settings.mode.behaviour.clone();
        if state.settings.mode.times.is_some() {
            let mode = &mut Arc::make_mut(&mut state.settings).mode;
            count_down(&mut mode.times, &mut mode.behaviour);
        }
        Some(behaviour)
    }

    /// The same for `/token`.
    pub(crate) fn next_token_behaviour(&self) -> TokenBehaviour {
        let mut state = self.state();
        let behaviour = state.settings.token.behaviour;
        if behaviour != TokenBehaviour::Ok && state.settings.token.times.is_some() {
            let mode = &mut Arc::make_mut(&mut state.settings).token;
            count_down(&mut mode.times, &mut mode.behaviour);
        }
        behaviour
    }

    /// What this token gets now: by its script, else by its text.
    pub(crate) fn next_of_token(&self, token: &str) -> Behaviour {
        let mut state = self.state();
        let Some(script) = state.scripts.get_mut(token) else { return Behaviour::of_token(token) };
        let Some((behaviour, times)) = script.front_mut() else { return Behaviour::of_token(token) };
        let behaviour = behaviour.clone();
        *times -= 1;
        if *times == 0 {
            script.pop_front();
            if script.is_empty() {
                state.scripts.remove(token);
            }
        }
        behaviour
    }

    /// Takes one from the project's quota; when there is none, what the 429 says.
    pub(crate) fn take_from_project(&self, now: Duration) -> Result<(), RetryAfter> {
        let mut state = self.state();
        if state.project.as_mut().is_none_or(|bucket| bucket.take(now)) {
            return Ok(());
        }
        Err(state.settings.quota.map_or(RetryAfter::Absent, |quota| quota.retry_after))
    }

    /// Takes one from the quota of one device.
    pub(crate) fn take_from_device(&self, token: &str, now: Duration) -> bool {
        let mut state = self.state();
        if let Some(bucket) = state.devices.get_mut(token) {
            return bucket.take(now);
        }
        if state.devices.len() >= MOST_TOKENS {
            state.devices.retain(|_, bucket| !bucket.is_over(now));
        }
        let mut bucket = Bucket::new(DEVICE_QUOTA);
        let taken = bucket.take(now);
        if state.devices.len() < MOST_TOKENS {
            state.devices.insert(token.into(), bucket);
        }
        taken
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, change: Change) {
        for Script { token, behaviour, times } in change.scripts {
            let has_room = self.scripts.len() < MOST_TOKENS || self.scripts.contains_key(&token);
            if times > 0 && has_room {
                self.scripts.entry(token).or_default().push_back((behaviour, times));
            }
        }
        if change.quota.is_some() {
            self.project = bucket(change.quota);
        }
        let settings = Arc::make_mut(&mut self.settings);
        if let Some(quota) = change.quota {
            settings.quota = (quota.per_minute > 0).then_some(quota);
        }
        set(&mut settings.mode, change.mode);
        set(&mut settings.latency, change.latency);
        set(&mut settings.max_streams, change.max_streams);
        set(&mut settings.goaway_above, change.goaway_above);
        set(&mut settings.close_after, change.close_after);
        set(&mut settings.idle_close_s, change.idle_close_s);
        set(&mut settings.token, change.token);
        set(&mut settings.access_token_life_s, change.access_token_life_s);
        set(&mut settings.needles, change.needles);
        set(&mut settings.away, change.away);
        set(&mut settings.clock_ahead_s, change.clock_ahead_s);
    }
}

fn set<T>(setting: &mut T, change: Option<T>) {
    if let Some(value) = change {
        *setting = value;
    }
}

fn bucket(quota: Option<Quota>) -> Option<Bucket> {
    quota.filter(|quota| quota.per_minute > 0).map(|quota| Bucket::new(quota.per_minute))
}

/// One time less; after the last one all is well again.
fn count_down<B: Default>(times: &mut Option<u64>, behaviour: &mut B) {
    *times = times.map(|times| times.saturating_sub(1));
    if *times == Some(0) {
        *times = None;
        *behaviour = B::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_with_times_ends_by_itself() {
        let control = Control::new(Settings::default());
        let mode = Mode { behaviour: Behaviour::Internal, times: Some(2) };
        control.change(Change { mode: Some(mode), ..Change::default() });
        let next = || control.next_mode();
        assert_eq!([next(), next(), next()], [Some(Behaviour::Internal), Some(Behaviour::Internal), None]);
    }

    #[test]
    fn a_tokens_scripts_follow_each_other_and_then_its_text_counts() {
        let control = Control::new(Settings::default());
        let script = |behaviour, times| Script { token: "unreg-1".to_owned(), behaviour, times };
        let scripts = vec![script(Behaviour::Html502, 2), script(Behaviour::Ok, 1)];
        control.change(Change { scripts, ..Change::default() });
        let next = || control.next_of_token("unreg-1");
        assert_eq!([next(), next()], [Behaviour::Html502, Behaviour::Html502]);
        assert_eq!([next(), next()], [Behaviour::Ok, Behaviour::Unregistered]);
    }

    #[test]
    fn a_device_takes_240_a_minute() {
        let control = Control::new(Settings::default());
        let taken = (0..300).filter(|_| control.take_from_device("t", Duration::from_secs(1))).count();
        assert_eq!(taken, 240);
        assert!(control.take_from_device("t", Duration::from_secs(61)));
        assert!(control.take_from_device("u", Duration::from_secs(1)));
    }
}
