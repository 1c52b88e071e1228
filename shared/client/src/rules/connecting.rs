//! The way to the next socket: perhaps a new access token, a ticket, then the gateways it names, one after the other.
//! The same way renews a session, which needs the ticket only.

use super::{Action, Link, Ready, Rules, Ticket};
use crate::{ClientError, Closed, Connect, Event, Frame, GatewayAddress, Trouble};
use std::{time::Duration, vec};
use tokio::time::Instant;
use touchline_ids::ConnectionNumber;

/// A server that asks for more is not obeyed: it made a mistake.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Getting a ticket, and what for.
#[derive(Debug)]
pub(super) struct Errand {
    purpose: Purpose,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// One is offline.
    Connect,
    /// One is online at a gateway that goes away.
    Move,
    /// The session is about to expire.
    Renew(ConnectionNumber),
}

#[derive(Debug)]
enum Step {
    /// Begins then, or once the access token is renewed.
    Wait {
        until: Instant,
    },
    Ask {
        call: u64,
        deadline: Instant,
    },
    Open {
        connection: ConnectionNumber,
        gateway: String,
        ticket: Ticket,
        rest: vec::IntoIter<GatewayAddress>,
        deadline: Instant,
    },
}

impl Errand {
    /// To connect, from now on.
    pub(super) fn connect(now: Instant) -> Self {
        Self { purpose: Purpose::Connect, step: Step::Wait { until: now } }
    }

    /// The socket that is being opened.
    pub(super) fn opening(&self) -> Option<ConnectionNumber> {
        match self.step {
            Step::Open { connection, .. } => Some(connection),
            Step::Wait { .. } | Step::Ask { .. } => None,
        }
    }

    fn asks(&self, answered: u64) -> bool {
        matches!(self.step, Step::Ask { call, .. } if call == answered)
    }
}

impl Rules {
    /// The answer to [`Action::RenewToken`]: whether there is a new access token.
    pub fn token_renewed(&mut self, call: u64, result: Result<(), ClientError>, now: Instant) {
        if self.token.take_if(|(asked, _)| *asked == call).is_none() {
            return;
        }
        let Err(error) = result else {
            // Who waited for it goes on in `on_time`.
            (self.token_is_fresh, self.token_is_doubtful) = (true, false);
            return;
        };
        let waits = self.errand.as_ref().is_some_and(|errand| matches!(errand.step, Step::Wait { .. }));
        if waits {
            self.errand_failed(error.into(), now);
        } else if is_final(&error) {
            self.end(error.into());
        } else {
            self.sync_later(error, now);
        }
    }

    /// The answer to [`Action::AskTicket`].
    pub fn ticket(&mut self, call: u64, result: Result<Connect, ClientError>, now: Instant) {
        let Some(errand) = self.errand.take_if(|errand| errand.asks(call)) else { return };
        let purpose = errand.purpose;
        let connect = match result {
            Ok(connect) => connect,
            Err(error) => {
                let step = Step::Wait { until: now };
                self.errand = Some(Errand { purpose, step });
                if !self.renews_token_after(&error, now) {
                    self.errand_failed(error.into(), now);
                }
                return;
            }
        };
        (self.token_is_fresh, self.token_is_doubtful) = (false, false);
        let Connect { gateways, ticket, backoff, .. } = connect;
        self.delays.obey(backoff);
        let ticket = Ticket(ticket);
        match purpose {
            Purpose::Renew(connection) => {
                if self.link.as_ref().is_some_and(|link| link.connection == connection) {
                    self.actions.push_back(Action::Renew { connection, ticket });
                }
            }
            Purpose::Connect | Purpose::Move => {
                let nobody = Closed { code: 1013, reason: "no gateway was named".into() };
                self.open_next(purpose, ticket, gateways.into_iter(), nobody.into(), now);
            }
        }
    }

    /// The answer to [`Action::Open`]: the socket is ready.
    pub fn opened(&mut self, connection: ConnectionNumber, ready: Ready, now: Instant) {
        let Some(Errand { step: Step::Open { gateway, .. }, .. }) =
            self.errand.take_if(|errand| errand.opening() == Some(connection))
        else {
            self.actions.push_back(Action::Drop { connection });
            return;
        };
        if self.options.raw {
            let Ready { session, heartbeat, expires_in } = ready;
            let (heartbeat_s, expires_in_s) = (heartbeat.as_secs(), expires_in.as_secs());
            let frame = Frame::Ready { session_id: session, heartbeat_s, expires_in_s };
            self.actions.push_back(Action::Tell(Event::Wire(frame)));
        }
        // It was left before what it missed was synced.
        if let Some(older) = self.old.take() {
            self.actions.push_back(Action::Close { connection: older.connection });
        }
        self.old = self.link.replace(Link::new(connection, ready, &mut self.rng, now));
        let (session, moved) = (ready.session, self.old.is_some());
        self.actions.push_back(Action::Tell(Event::Online { gateway, session, moved }));
        #[cfg(feature = "simulation")]
        if self.options.sabotage.sync_before_ready {
            return;
        }
        self.sync_anew(now);
    }

    /// The answer to [`Action::Open`]: there is no socket.
    pub fn not_opened(&mut self, connection: ConnectionNumber, error: ClientError, now: Instant) {
        let Some(Errand { purpose, step: Step::Open { ticket, rest, .. } }) =
            self.errand.take_if(|errand| errand.opening() == Some(connection))
        else {
            return;
        };
        match error {
            // It has seen the ticket, which works once.
            ClientError::NotReady(closed) => {
                self.errand = Some(Errand { purpose, step: Step::Wait { until: now } });
                self.errand_failed(closed.into(), now);
            }
            error => self.open_next(purpose, ticket, rest, error.into(), now),
        }
    }

    pub(super) fn errand_wake(&self) -> Option<Instant> {
        let link = self.link.as_ref();
        let moves = link.and_then(|link| link.move_at);
        match &self.errand {
            None => {
                let renews = link.and_then(|link| link.renew_at).filter(|_| self.options.renewable);
                moves.into_iter().chain(renews).min()
            }
            Some(errand) => {
                let step = match errand.step {
                    Step::Wait { until } => self.token.is_none().then_some(until),
                    Step::Ask { deadline, .. } | Step::Open { deadline, .. } => Some(deadline),
                };
                let moves = moves.filter(|_| matches!(errand.purpose, Purpose::Renew(_)));
                step.into_iter().chain(moves).min()
            }
        }
    }

    pub(super) fn errand_on_time(&mut self, now: Instant) {
        self.begin_errand(now);
        match &self.errand {
            Some(Errand { step: Step::Wait { until }, .. }) if now >= *until && self.token.is_none() => {
                if self.token_is_doubtful && self.options.renewable && !self.token_is_fresh {
                    self.renew_token(now);
                    return;
                }
                let (call, deadline) = (self.call(), self.deadline(now));
                self.actions.push_back(Action::AskTicket { call });
                if let Some(errand) = &mut self.errand {
                    errand.step = Step::Ask { call, deadline };
                }
            }
            Some(Errand { step: Step::Ask { call, deadline }, .. }) if now >= *deadline => {
                self.ticket(*call, Err(ClientError::TooSlow), now);
            }
            Some(Errand { step: Step::Open { connection, deadline, .. }, .. }) if now >= *deadline => {
                let connection = *connection;
                self.actions.push_back(Action::Drop { connection });
                self.not_opened(connection, ClientError::TooSlow, now);
            }
            _ => {}
        }
    }

    /// What the open socket asks for: to be left, or to be renewed.
    fn begin_errand(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        let step = Step::Wait { until: now };
        match &mut self.errand {
            None if link.move_at.take_if(|at| now >= *at).is_some() => {
                // The next session has a life of its own.
                link.renew_at = None;
                self.errand = Some(Errand { purpose: Purpose::Move, step });
            }
            Some(errand @ Errand { purpose: Purpose::Renew(_), .. })
                if link.move_at.take_if(|at| now >= *at).is_some() =>
            {
                errand.purpose = Purpose::Move;
            }
            None if self.options.renewable && link.renew_at.take_if(|at| now >= *at).is_some() => {
                // A session lives as long as the token its ticket was asked for with.
                self.token_is_doubtful = true;
                self.errand = Some(Errand { purpose: Purpose::Renew(link.connection), step });
            }
            None | Some(_) => {}
        }
    }

    /// The last socket is gone.
    pub(super) fn offline(&mut self, why: Trouble, now: Instant) {
        if is_final_trouble(&why) {
            return self.end(why);
        }
        self.doubt_token(&why);
        self.sync_offline();
        match &mut self.errand {
            Some(errand @ Errand { purpose: Purpose::Move, .. }) => {
                errand.purpose = Purpose::Connect;
                let again_in = match errand.step {
                    Step::Wait { until } => until.saturating_duration_since(now),
                    Step::Ask { .. } | Step::Open { .. } => Duration::ZERO,
                };
                self.actions.push_back(Action::Tell(Event::Offline { why, again_in }));
            }
            _ => {
                self.errand = Some(Errand::connect(now));
                self.errand_failed(why, now);
            }
        }
    }

    /// Whether a new access token is being fetched because of this refusal.
    pub(super) fn renews_token_after(&mut self, error: &ClientError, now: Instant) -> bool {
        let refused = error.code() == Some("unauthenticated");
        let renews = refused && self.options.renewable && !self.token_is_fresh;
        if renews {
            self.renew_token(now);
        }
        renews
    }

    /// An api may take an access token a little longer than the gateway took the session.
    fn doubt_token(&mut self, why: &Trouble) {
        self.token_is_doubtful |= matches!(why, Trouble::Closed(Closed { code: 4001, .. }));
    }

    fn renew_token(&mut self, now: Instant) {
        if self.token.is_none() {
            let call = self.call();
            self.token = Some((call, self.deadline(now)));
            self.actions.push_back(Action::RenewToken { call });
        }
    }

    /// Tries the next gateway, or gives up with what the last one said.
    fn open_next(
        &mut self,
        purpose: Purpose,
        ticket: Ticket,
        mut rest: vec::IntoIter<GatewayAddress>,
        failed: Trouble,
        now: Instant,
    ) {
        let Some(GatewayAddress { url: gateway }) = rest.next() else {
            self.errand = Some(Errand { purpose, step: Step::Wait { until: now } });
            return self.errand_failed(failed, now);
        };
        #[cfg(feature = "simulation")]
        if self.options.sabotage.sync_before_ready {
            self.sync_anew(now);
        }
        self.options.connection.0 += 1;
        let connection = self.options.connection;
        self.actions.push_back(Action::Open { connection, gateway: gateway.clone(), ticket: ticket.clone() });
        let deadline = self.deadline(now);
        self.errand = Some(Errand { purpose, step: Step::Open { connection, gateway, ticket, rest, deadline } });
    }

    /// It is tried again later, unless it would end the same way.
    fn errand_failed(&mut self, why: Trouble, now: Instant) {
        let Some(Errand { purpose, .. }) = self.errand.take() else { return };
        if let Purpose::Renew(_) = purpose {
            if let Some(link) = &mut self.link {
                link.renew_later(now);
            }
            return;
        }
        if is_final_trouble(&why) {
            return self.end(why);
        }
        self.doubt_token(&why);
        if matches!(&why, Trouble::Closed(closed) if asks_for_patience(closed)) {
            self.delays.lengthen();
        }
        let again_in = self.delays.next(&mut self.rng) + retry_after(&why);
        self.errand = Some(Errand { purpose, step: Step::Wait { until: now + again_in } });
        if purpose == Purpose::Connect {
            self.actions.push_back(Action::Tell(Event::Offline { why, again_in }));
        }
    }
}

/// How long the server wants to be left alone.
fn retry_after(why: &Trouble) -> Duration {
    match why {
        Trouble::Failed(error) => asked_wait(error),
        Trouble::Closed(closed) => closed.retry_after().unwrap_or_default().min(LONGEST_RETRY_AFTER),
    }
}

pub(super) fn asked_wait(error: &ClientError) -> Duration {
    let asked = error.refusal().and_then(|refusal| refusal.retry_after);
    asked.unwrap_or_default().min(LONGEST_RETRY_AFTER)
}

/// Whether PROTOCOL.md's table of close codes says "longest back-off", and the server named no time of its own.
fn asks_for_patience(closed: &Closed) -> bool {
    matches!(closed.code, 1002 | 1007 | 1009 | 1013 | 4008) && closed.retry_after().is_none()
}

/// Whether the server itself (not a proxy before it) refuses for good.
pub(super) fn is_final(error: &ClientError) -> bool {
    error.refusal().is_some_and(|refusal| {
        (400..500).contains(&refusal.status) && !refusal.is_temporary() && refusal.code != "unknown"
    })
}

fn is_final_trouble(why: &Trouble) -> bool {
    match why {
        // Forbidden; replaced by the same device; the log-in was ended.
        Trouble::Closed(closed) => matches!(closed.code, 4003 | 4009 | 4011),
        Trouble::Failed(error) => is_final(error),
    }
}
