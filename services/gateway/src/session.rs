//! The protocol's rules for one socket, without the socket: frames and times go in, what to do comes out. A connection
//! is a [`Greeting`] until its hello is accepted and a [`Session`] afterwards. Its times are those of
//! [`Running`](crate::running::Running): what a stopped process did not hear is nobody's fault.

use crate::{
    close_codes::{Close, CloseCode},
    config::{Limits, Times, ms},
    frame::{self, BadFrame, FrameIn, Hello},
};
use std::time::Duration;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use touchline_ids::{ChannelId, Seq, SessionId};
use touchline_mesh::Allowance;

/// How long after the advised moment a session that was told to leave is closed.
const LEAVE_GRACE: Duration = Duration::from_secs(2);

/// What came in on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// A text frame.
    Text(&'a str),
    /// A binary frame; there are none in this protocol.
    Binary,
    /// A WebSocket ping or pong. Pings are answered below us.
    Control,
}

/// What the socket must do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    Wait,
    /// Send this text frame.
    Reply(Utf8Bytes),
    /// Remember what the device holds.
    Ack(Vec<(ChannelId, Seq)>),
    /// Check the fresh ticket, then call [`Session::renewed`] or [`Session::not_renewed`].
    Renew(Hello),
    /// Send a WebSocket ping.
    Ping,
    /// Send this text frame if there is one, then close.
    Close(Option<Utf8Bytes>, Close),
    /// The peer is dead: drop the socket, nobody would read a close frame.
    Abandon,
}

/// The rules every session of a gateway shares.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) heartbeat: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) frames_per_second: u32,
    pub(crate) frame_burst: u32,
    pub(crate) bad_frames: u32,
    /// How long after the advised moment a session that was told to leave is closed.
    pub(crate) leave_grace: Duration,
}

impl Rules {
    /// The rules by these settings.
    pub(crate) fn new(limits: &Limits, times: &Times) -> Self {
        Self {
            heartbeat: ms(times.heartbeat_ms),
            dead_after: ms(times.dead_ms),
            frames_per_second: limits.frames_per_second,
            frame_burst: limits.frame_burst,
            bad_frames: limits.bad_frames,
            leave_grace: LEAVE_GRACE,
        }
    }
}

/// A connection that has not said who it is.
#[derive(Debug)]
pub(crate) struct Greeting;

impl Greeting {
    /// The first data frame must be a hello; there is no second chance.
    pub(crate) fn receive(received: Received<'_>) -> Result<Option<Hello>, (Utf8Bytes, Close)> {
        let bad = match received {
            Received::Control => return Ok(None),
            Received::Binary => BINARY,
            Received::Text(text) => match frame::frame_in(text) {
                Ok(FrameIn::Hello(hello)) => return Ok(Some(hello)),
                Ok(FrameIn::Ack(_) | FrameIn::Ping) => BadFrame::new("unauthenticated", "say hello first"),
                Err(bad) => bad,
            },
        };
        Err((frame::error(&bad), Close::new(CloseCode::Unauthenticated, "the first frame must be a hello")))
    }
}

const BINARY: BadFrame = BadFrame::new("binary", "frames are JSON text, not binary");

/// An authenticated session's state.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    expires: Instant,
    last_received: Instant,
    next_ping: Instant,
    close_at: Option<Instant>,
    allowance: Allowance,
    bad_frames: u32,
    renewing: bool,
    /// Message frames sent.
    sent: u64,
}

impl Session {
    /// A session that was just accepted; `first_ping` within one heartbeat from now, at random, so that sessions that
    /// came together do not ping together.
    pub(crate) fn new(id: SessionId, now: Instant, expires: Instant, first_ping: Duration) -> Self {
        Self {
            id,
            expires,
            last_received: now,
            next_ping: now + first_ping,
            close_at: None,
            allowance: Allowance::full(now),
            bad_frames: 0,
            renewing: false,
            sent: 0,
        }
    }

    /// The frame that says so.
    pub(crate) fn ready(&self, rules: &Rules, now: Instant) -> Utf8Bytes {
        frame::ready(self.id, rules.heartbeat, self.expires.saturating_duration_since(now))
    }

    /// A message frame went out.
    pub(crate) fn sent(&mut self) {
        self.sent += 1;
    }

    /// A frame came in.
    pub(crate) fn receive(&mut self, rules: &Rules, received: Received<'_>, now: Instant) -> Action {
        self.last_received = now;
        if !self.allowance.take(rules.frames_per_second, rules.frame_burst, now) {
            return self.close(CloseCode::RateLimited, "too many frames");
        }
        match received {
            Received::Control => Action::Wait,
            Received::Binary => self.bad(rules, &BINARY),
            Received::Text(text) => match frame::frame_in(text) {
                Ok(FrameIn::Ping) => Action::Reply(frame::pong(self.sent)),
                Ok(FrameIn::Ack(cursors)) => Action::Ack(cursors),
                Ok(FrameIn::Hello(_)) if self.renewing => {
                    self.bad(rules, &BadFrame::new("renewing", "the hello before this one is still being checked"))
                }
                Ok(FrameIn::Hello(hello)) => {
                    self.renewing = true;
                    Action::Renew(hello)
                }
                Err(bad) => self.bad(rules, &bad),
            },
        }
    }

    /// The fresh ticket was good.
    pub(crate) fn renewed(&mut self, rules: &Rules, expires: Instant, now: Instant) -> Action {
        self.renewing = false;
        self.expires = expires;
        Action::Reply(self.ready(rules, now))
    }

    /// The fresh ticket was not good, or could not be checked: then the session lives on until it expires.
    pub(crate) fn not_renewed(&mut self, close: Close) -> Action {
        self.renewing = false;
        let bad = BadFrame::new(close.code.rule().name, close.detail);
        match close.code {
            CloseCode::Overloaded => Action::Reply(frame::error(&bad)),
            _ => Action::Close(Some(frame::error(&bad)), close),
        }
    }

    /// The gateway wants this session elsewhere after so long.
    pub(crate) fn leave(&mut self, rules: &Rules, after: Duration, now: Instant) -> Action {
        self.close_at = Some(now + after + rules.leave_grace);
        Action::Reply(frame::reconnect(after))
    }

    /// When [`on_time`](Self::on_time) has something to do next.
    pub(crate) fn next_wake(&self, rules: &Rules) -> Instant {
        let dead = self.last_received + rules.dead_after;
        let next = self.expires.min(dead).min(self.next_ping);
        self.close_at.map_or(next, |close_at| close_at.min(next))
    }

    /// Time has passed.
    pub(crate) fn on_time(&mut self, rules: &Rules, now: Instant) -> Action {
        if now >= self.last_received + rules.dead_after {
            Action::Abandon
        } else if now >= self.expires {
            self.close(CloseCode::Unauthenticated, "the session's time is up; say hello with a fresh ticket before")
        } else if self.close_at.is_some_and(|close_at| now >= close_at) {
            self.close(CloseCode::Restart, "this gateway is going away")
        } else if now >= self.next_ping {
            self.next_ping = now + rules.heartbeat;
            Action::Ping
        } else {
            Action::Wait
        }
    }

    fn bad(&mut self, rules: &Rules, bad: &BadFrame) -> Action {
        self.bad_frames += 1;
        let error = frame::error(bad);
        if self.bad_frames < rules.bad_frames {
            Action::Reply(error)
        } else {
            Action::Close(Some(error), Close::new(CloseCode::RateLimited, "too many frames that make no sense"))
        }
    }

    fn close(&self, code: CloseCode, detail: &'static str) -> Action {
        Action::Close(None, Close::new(code, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> Rules {
        Rules {
            heartbeat: Duration::from_secs(25),
            dead_after: Duration::from_secs(60),
            frames_per_second: 20,
            frame_burst: 100,
            bad_frames: 10,
            leave_grace: Duration::from_secs(2),
        }
    }

    fn session(now: Instant) -> Session {
        Session::new(SessionId::new(), now, now + seconds(900), seconds(10))
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn reply(action: &Action) -> serde_json::Value {
        match action {
            Action::Reply(text) | Action::Close(Some(text), _) => serde_json::from_str(text).expect("is JSON"),
            other => panic!("{other:?}"),
        }
    }

    fn closed(action: &Action) -> Option<CloseCode> {
        if let Action::Close(_, close) = action { Some(close.code) } else { None }
    }

    const HELLO: &str = r#"{"type":"hello","ticket":"t","device_id":"phone","connection":1}"#;
    const PING: &str = r#"{"type":"ping"}"#;

    #[test]
    fn a_greeting_takes_a_hello_and_nothing_else() {
        assert!(matches!(Greeting::receive(Received::Text(HELLO)), Ok(Some(_))));
        assert_eq!(Greeting::receive(Received::Control), Ok(None));
        for other in [Received::Text(PING), Received::Text("{"), Received::Text(r#"{"type":"x"}"#), Received::Binary] {
            let (error, close) = Greeting::receive(other).expect_err("no hello");
            assert!(error.contains("error"));
            assert_eq!(close.code, CloseCode::Unauthenticated);
        }
    }

    #[test]
    fn a_ping_tells_how_many_messages_were_sent() {
        let now = Instant::now();
        let mut session = session(now);
        session.sent();
        session.sent();
        let pong = reply(&session.receive(&rules(), Received::Text(PING), now));
        assert_eq!(pong, serde_json::json!({"type":"pong","frames":2}));
    }

    #[test]
    fn an_ack_is_passed_on() {
        let (now, channel) = (Instant::now(), ChannelId::new());
        let text = format!(r#"{{"type":"ack","cursors":{{"{channel}":3}}}}"#);
        let action = session(now).receive(&rules(), Received::Text(&text), now);
        assert_eq!(action, Action::Ack(vec![(channel, Seq(3))]));
    }

    #[test]
    fn the_tenth_bad_frame_closes_the_session_and_each_before_it_is_answered() {
        let now = Instant::now();
        let mut session = session(now);
        let bad = [Received::Binary, Received::Text("{"), Received::Text(r#"{"type":"x"}"#)];
        let codes = ["binary", "bad_json", "unknown_type"];
        for (frame, code) in bad.into_iter().zip(codes).cycle().take(9) {
            let action = session.receive(&rules(), frame, now);
            assert_eq!(reply(&action)["code"], code);
            assert_eq!(closed(&action), None);
        }
        assert_eq!(closed(&session.receive(&rules(), Received::Binary, now)), Some(CloseCode::RateLimited));
    }

    #[test]
    fn a_burst_is_allowed_and_a_flood_is_not() {
        let now = Instant::now();
        let mut session = session(now);
        for _ in 0..100 {
            assert_eq!(session.receive(&rules(), Received::Control, now), Action::Wait);
        }
        assert_eq!(closed(&session.receive(&rules(), Received::Control, now)), Some(CloseCode::RateLimited));
        // One second later there is room for twenty more.
        let later = now + seconds(1);
        for _ in 0..20 {
            assert_eq!(session.receive(&rules(), Received::Control, later), Action::Wait);
        }
        assert_eq!(closed(&session.receive(&rules(), Received::Control, later)), Some(CloseCode::RateLimited));
    }

    #[test]
    fn a_silent_client_is_pinged_and_then_given_up() {
        let now = Instant::now();
        let mut session = session(now);
        let mut seen = Vec::new();
        loop {
            let wake = session.next_wake(&rules());
            let action = session.on_time(&rules(), wake);
            seen.push((wake.duration_since(now).as_secs(), action));
            if seen.last().is_some_and(|(_, action)| *action == Action::Abandon) {
                break;
            }
        }
        let expected = [(10, Action::Ping), (35, Action::Ping), (60, Action::Ping), (60, Action::Abandon)];
        assert!(
            seen == expected || seen == [(10, Action::Ping), (35, Action::Ping), (60, Action::Abandon)],
            "{seen:?}"
        );
    }

    #[test]
    fn a_client_that_answers_lives_until_its_session_expires() {
        let now = Instant::now();
        let mut session = session(now);
        loop {
            let wake = session.next_wake(&rules());
            match session.on_time(&rules(), wake) {
                Action::Ping => assert_eq!(session.receive(&rules(), Received::Control, wake), Action::Wait),
                Action::Wait => {}
                action => {
                    assert_eq!(closed(&action), Some(CloseCode::Unauthenticated));
                    assert_eq!(wake, now + seconds(900));
                    break;
                }
            }
        }
    }

    #[test]
    fn a_second_hello_renews_the_session_under_the_same_id() {
        let now = Instant::now();
        let mut session = session(now);
        let before: serde_json::Value = serde_json::from_str(&session.ready(&rules(), now)).expect("is JSON");
        assert!(matches!(session.receive(&rules(), Received::Text(HELLO), now), Action::Renew(_)));
        let twice = session.receive(&rules(), Received::Text(HELLO), now);
        assert_eq!(reply(&twice)["code"], "renewing");
        let after = reply(&session.renewed(&rules(), now + seconds(5_000), now));
        assert_eq!((&after["type"], &after["session_id"]), (&before["type"], &before["session_id"]));
        assert_eq!((&before["expires_in_s"], &after["expires_in_s"]), (&900.into(), &5_000.into()));
        assert!(matches!(session.receive(&rules(), Received::Text(HELLO), now), Action::Renew(_)));
    }

    #[test]
    fn a_bad_renewal_closes_and_one_that_could_not_be_checked_does_not() {
        let now = Instant::now();
        let mut session = session(now);
        let later = session.not_renewed(Close::new(CloseCode::Overloaded, "try again"));
        assert_eq!((closed(&later), &reply(&later)["code"]), (None, &"overloaded".into()));
        let stolen = session.not_renewed(Close::new(CloseCode::Unauthenticated, "not yours"));
        assert_eq!(closed(&stolen), Some(CloseCode::Unauthenticated));
    }

    #[test]
    fn a_session_told_to_leave_has_until_then_and_a_little_more() {
        let now = Instant::now();
        let mut session = session(now);
        let told = reply(&session.leave(&rules(), seconds(3), now));
        assert_eq!(told, serde_json::json!({"type":"reconnect","after_ms":3000}));
        assert_eq!(session.on_time(&rules(), now + seconds(4)), Action::Wait);
        assert_eq!(session.next_wake(&rules()), now + seconds(5));
        assert_eq!(closed(&session.on_time(&rules(), now + seconds(5))), Some(CloseCode::Restart));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Text(String),
        Binary,
        Control,
        Time(u16),
        Sent,
        Renewed(bool),
        Leave(u16),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let text = prop_oneof![
            Just(HELLO.to_owned()),
            Just(PING.to_owned()),
            Just(r#"{"type":"ack","cursors":{}}"#.to_owned()),
            ".{0,80}",
        ];
        prop_oneof![
            text.prop_map(Step::Text),
            Just(Step::Binary),
            Just(Step::Control),
            any::<u16>().prop_map(Step::Time),
            Just(Step::Sent),
            any::<bool>().prop_map(Step::Renewed),
            any::<u16>().prop_map(Step::Leave),
        ]
    }

    proptest! {
        #[test]
        fn no_list_of_frames_and_times_makes_a_session_panic(steps in prop::collection::vec(any_step(), 0..200)) {
            let (rules, mut now) = (rules(), Instant::now());
            let mut session = session(now);
            for step in steps {
                let action = match step {
                    Step::Text(text) => session.receive(&rules, Received::Text(&text), now),
                    Step::Binary => session.receive(&rules, Received::Binary, now),
                    Step::Control => session.receive(&rules, Received::Control, now),
                    Step::Time(millis) => {
                        now += Duration::from_millis(millis.into());
                        session.on_time(&rules, now)
                    }
                    Step::Sent => {
                        session.sent();
                        Action::Wait
                    }
                    Step::Renewed(true) => session.renewed(&rules, now + seconds(60), now),
                    Step::Renewed(false) => session.not_renewed(Close::new(CloseCode::Unauthenticated, "no")),
                    Step::Leave(millis) => session.leave(&rules, Duration::from_millis(millis.into()), now),
                };
                if let Action::Close(Some(text), _) | Action::Reply(text) = action {
                    prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
                }
            }
        }

        #[test]
        fn no_first_frame_makes_a_greeting_panic(text in ".{0,200}") {
            let _ = Greeting::receive(Received::Text(&text));
        }
    }
}
