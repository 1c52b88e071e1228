//! The simulated gateway's sockets: on their way in, and as sessions.

use super::{Answer, Ask, Asker, Gateway, Output, Socket};
use crate::{
    close_codes::{Close, CloseCode},
    entry::{Entry, OLDER, Step},
    hub::{Member, Refused, User, close_displaced},
    queue::{Order, Queue, Taken},
    session::{Action, Received, Session},
};
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;
use touchline_ids::SessionId;
use touchline_registry::Registration;

/// Longer than a simulation.
const SESSION_LIFE: Duration = Duration::from_secs(30 * 86_400);
const AWAY: Close = Close::new(CloseCode::Overloaded, "tickets and routes cannot be checked now");
const FULL: Close = Close::new(CloseCode::Overloaded, "this gateway is full");

/// A socket whose client has said hello.
#[derive(Debug)]
pub(super) struct Open {
    member: Arc<Member>,
    /// Once it is in the hub.
    user: Option<Arc<User>>,
    displaced: Vec<(Arc<Member>, Close)>,
    entry: Entry,
    /// Once it was told `ready`.
    session: Option<Session>,
    pub(super) writable: bool,
}

impl Open {
    pub(super) fn entering(registration: Registration, entry: Entry) -> Self {
        let member = Arc::new(Member { session: SessionId::new(), registration, queue: Queue::default() });
        Self { member, user: None, displaced: Vec::new(), entry, session: None, writable: true }
    }
}

impl Gateway {
    /// Carries out the steps of a session's way in, up to a question.
    pub(super) fn step(&mut self, socket: Socket, mut step: Step, now: Instant) {
        self.wake = Some(now);
        while let Some(open) = self.open.get_mut(&socket) {
            let mine = open.member.registration.clone();
            step = match step {
                Step::Join => match self.hub.join(&open.member) {
                    Ok(joined) => {
                        (open.user, open.displaced) = (Some(joined.user), joined.displaced);
                        open.entry.joined()
                    }
                    Err(Refused::Full) => Step::Refuse(FULL),
                    Err(Refused::Older) => Step::Refuse(OLDER),
                },
                Step::Register => return self.ask(Ask::Register(vec![mine]), Asker::Entering(socket)),
                Step::Examine(incarnation, connection) if incarnation == self.incarnation => {
                    let newer = Registration { incarnation, connection, ..mine };
                    open.entry.examined(self.hub.holds(&newer))
                }
                Step::Examine(incarnation, _) => return self.ask(Ask::Lives(incarnation), Asker::Entering(socket)),
                Step::TakeOver(incarnation, connection) => {
                    return self.ask(Ask::TakeOver(mine, incarnation, connection), Asker::Entering(socket));
                }
                Step::Ready => {
                    let session = Session::new(open.member.session, now, now + SESSION_LIFE, self.rules.heartbeat / 2);
                    let ready = session.ready(&self.rules, now);
                    open.session = Some(session);
                    self.out.push_back(Output::Text(socket, ready.to_string()));
                    open.entry.told()
                }
                Step::Done => return close_displaced(std::mem::take(&mut open.displaced)),
                Step::Refuse(close) => return self.close(socket, close, now),
            };
        }
    }

    pub(super) fn entered(&mut self, socket: Socket, answer: Answer, now: Instant) {
        let Some(open) = self.open.get_mut(&socket) else { return };
        let step = match answer {
            Answer::Registered(answers) => open.entry.registered(*answers.first().expect("one session, one answer")),
            Answer::Lives(lives) => open.entry.examined(lives),
            Answer::TakenOver(taken) => open.entry.taken_over(taken),
            Answer::Done | Answer::Away => Step::Refuse(AWAY),
        };
        self.step(socket, step, now);
    }

    /// Something came from a client.
    pub(super) fn receive(&mut self, socket: Socket, received: Received<'_>, now: Instant) {
        self.wake = Some(now);
        let session = self.open.get_mut(&socket).and_then(|open| open.session.as_mut());
        let Some(session) = session else { return };
        let action = session.receive(&self.rules, received, now);
        self.carry_out(socket, action, now);
    }

    /// Everything that is due for one socket; when the next thing is.
    pub(super) fn serve(&mut self, socket: Socket, now: Instant) -> Option<Instant> {
        loop {
            let open = self.open.get_mut(&socket)?;
            let session = open.session.as_mut()?;
            let polled = open.member.queue.poll(&mut Context::from_waker(Waker::noop()), open.writable);
            let action = match polled {
                Poll::Ready(Taken::Frames(frames)) => {
                    frames.iter().for_each(|_| session.sent());
                    self.out.extend(frames.into_iter().map(|frame| Output::Text(socket, frame.text.to_string())));
                    continue;
                }
                Poll::Ready(Taken::Order(Order::Close(close))) => Action::Close(None, close),
                Poll::Ready(Taken::Order(Order::Leave(after))) => session.leave(&self.rules, after, now),
                Poll::Ready(Taken::Order(Order::Ready)) => Action::Reply(session.ready(&self.rules, now)),
                Poll::Pending if now < session.next_wake(&self.rules) => return Some(session.next_wake(&self.rules)),
                Poll::Pending => session.on_time(&self.rules, now),
            };
            self.carry_out(socket, action, now);
        }
    }

    fn carry_out(&mut self, socket: Socket, action: Action, now: Instant) {
        match action {
            Action::Wait => {}
            Action::Reply(text) => self.out.push_back(Output::Text(socket, text.to_string())),
            Action::Ping => self.out.push_back(Output::Ping(socket)),
            Action::Ack(cursors) => {
                if let Some(user) = self.open.get(&socket).and_then(|open| open.user.as_ref()) {
                    self.hub.ack(user, &cursors);
                }
            }
            Action::Renew(_) => {
                let session = self.open.get_mut(&socket).and_then(|open| open.session.as_mut());
                let renewed = session.map(|session| session.renewed(&self.rules, now + SESSION_LIFE, now));
                self.carry_out(socket, renewed.unwrap_or(Action::Wait), now);
            }
            Action::Close(text, close) => {
                self.out.extend(text.map(|text| Output::Text(socket, text.to_string())));
                self.close(socket, close, now);
            }
            Action::Abandon => {
                self.out.push_back(Output::Closed(socket, None));
                self.end(socket, now);
            }
        }
    }

    fn close(&mut self, socket: Socket, close: Close, now: Instant) {
        self.out.push_back(Output::Closed(socket, Some(close.code.rule().code)));
        self.end(socket, now);
    }

    /// A socket is over: out of the hub, and the route is forgotten.
    pub(super) fn end(&mut self, socket: Socket, now: Instant) {
        self.wake = Some(now);
        if let Some(Open { member, user: Some(user), .. }) = self.open.remove(&socket) {
            self.hub.leave(&user, &member);
            let _ = self.registrar.forget(member.registration.clone());
        }
    }
}
