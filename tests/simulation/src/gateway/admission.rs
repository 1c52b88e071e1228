//! Who gets in, in the order of the gateway's admission: ticket, hub, route, and only then "ready".

use super::{Life, Purpose, sockets::{Live, Socket}};
use crate::{
    registry::{Answer, Question},
    world::{World, calls::Ticket, wires::WireId},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use touchline_gateway::simulation::{
    Close, CloseCode, Hello, Member, Queue, Refused, Session, User, close_displaced,
};
use touchline_ids::{ConnectionNumber, IncarnationId};
use touchline_registry::{Registered, Registration};

const ATTEMPTS: u32 = 3;
const CHECKS_PATIENCE: Duration = Duration::from_secs(5);
/// How long a session may live unless it is renewed.
const SESSION_LIFE: Duration = Duration::from_secs(900);

const NOT_VALID: Close = Close::new(CloseCode::Unauthenticated, "the ticket is not valid (any more): get another one");
const OLDER: Close = Close::new(CloseCode::Replaced, "this device has a newer connection");
const FULL: Close = Close::new(CloseCode::Overloaded, "this gateway is full");
const REGISTRY_AWAY: Close = Close::new(CloseCode::Overloaded, "tickets and routes cannot be checked now");
const LEAVING: Close = Close::new(CloseCode::Restart, "this gateway is going away");

/// A socket whose hello is being checked.
pub(super) struct Admitting {
    pub(super) until: Instant,
    registration: Registration,
    pub(super) joined: Option<(Arc<Member>, Arc<User>, Vec<(Arc<Member>, Close)>)>,
    step: Step,
    attempts: u32,
}

/// What the next answer of the registry is about.
#[derive(Clone, Copy)]
enum Step {
    Redeem,
    Register,
    /// Whether who holds the route lives.
    Alive(IncarnationId, ConnectionNumber),
    TakeOver,
}

impl Life {
    pub(super) fn admit(&mut self, world: &mut World, wire: WireId, hello: &Hello) {
        let Some(ticket) = Ticket::parse(&hello.ticket).filter(|ticket| ticket.device_id() == hello.device) else {
            return self.end(world, wire, Some(NOT_VALID));
        };
        let registration = Registration {
            user: ticket.user,
            device: hello.device.clone(),
            incarnation: self.incarnation,
            connection: hello.connection,
        };
        let until = world.now + CHECKS_PATIENCE;
        let admitting = Admitting { until, registration, joined: None, step: Step::Redeem, attempts: 0 };
        self.sockets.insert(wire, Socket::Admitting(admitting));
        self.ask_for(world, wire, Question::Redeem(ticket.number));
    }

    pub(super) fn admission_goes_on(&mut self, world: &mut World, wire: WireId, answer: Option<Answer>) {
        let Some(admitting) = self.admitting(wire) else { return };
        let registration = admitting.registration.clone();
        let verdict = match (admitting.step, answer) {
            (Step::Redeem, Some(Answer::Redeemed(true))) => self.join(world, wire),
            (Step::Redeem, Some(Answer::Redeemed(false))) => Err(NOT_VALID),
            (Step::Register, Some(Answer::Registered(answers))) => match answers.first() {
                Some(Registered::Stored) => self.enter(world, wire),
                Some(Registered::Newer { incarnation, connection }) => {
                    self.newer(world, wire, *incarnation, *connection)
                }
                None => Err(REGISTRY_AWAY),
            },
            (Step::Alive(incarnation, connection), Some(Answer::Gateways(leases))) => {
                if leases.iter().any(|lease| lease.incarnation == incarnation) {
                    Err(OLDER)
                } else {
                    self.step(wire, Step::TakeOver);
                    self.ask_for(world, wire, Question::TakeOver(registration, incarnation, connection));
                    Ok(())
                }
            }
            (Step::TakeOver, Some(Answer::TakenOver(true))) => self.enter(world, wire),
            (Step::TakeOver, Some(Answer::TakenOver(false))) => self.register(world, wire),
            _ => Err(REGISTRY_AWAY),
        };
        if let Err(close) = verdict {
            self.end(world, wire, Some(close));
        }
    }

    fn step(&mut self, wire: WireId, step: Step) {
        if let Some(admitting) = self.admitting(wire) {
            admitting.step = step;
        }
    }

    fn join(&mut self, world: &mut World, wire: WireId) -> Result<(), Close> {
        let session = world.names.session();
        let Some(admitting) = self.admitting(wire) else { return Ok(()) };
        let registration = admitting.registration.clone();
        let member = Arc::new(Member { session, registration, queue: Queue::default() });
        let joined = self.hub.join(&member).map_err(|refused| match refused {
            Refused::Full => FULL,
            Refused::Older => OLDER,
        })?;
        if let Some(admitting) = self.admitting(wire) {
            admitting.joined = Some((member, joined.user, joined.displaced));
        }
        self.register(world, wire)
    }

    fn register(&mut self, world: &mut World, wire: WireId) -> Result<(), Close> {
        let Some(admitting) = self.admitting(wire) else { return Ok(()) };
        admitting.attempts += 1;
        if admitting.attempts > ATTEMPTS {
            return Err(OLDER);
        }
        admitting.step = Step::Register;
        let question = Question::Register(vec![admitting.registration.clone()]);
        if self.sabotage.ready_before_register {
            self.ask(world, question, Purpose::Forget);
            return self.enter(world, wire);
        }
        self.ask_for(world, wire, question);
        Ok(())
    }

    /// The device has a greater number there: is it real?
    fn newer(
        &mut self,
        world: &mut World,
        wire: WireId,
        incarnation: IncarnationId,
        connection: ConnectionNumber,
    ) -> Result<(), Close> {
        let Some(admitting) = self.admitting(wire) else { return Ok(()) };
        let newer = Registration { incarnation, connection, ..admitting.registration.clone() };
        if incarnation != self.incarnation {
            self.step(wire, Step::Alive(incarnation, connection));
            self.ask_for(world, wire, Question::Gateways);
            return Ok(());
        }
        if self.hub.holds(&newer) {
            return Err(OLDER);
        }
        self.step(wire, Step::TakeOver);
        let question = Question::TakeOver(Registration { incarnation: self.incarnation, connection: self.connection_of(wire), ..newer }, incarnation, connection);
        self.ask_for(world, wire, question);
        Ok(())
    }

    fn connection_of(&mut self, wire: WireId) -> ConnectionNumber {
        self.admitting(wire).map_or(ConnectionNumber(0), |admitting| admitting.registration.connection)
    }

    /// Everything is in order: the session begins.
    fn enter(&mut self, world: &mut World, wire: WireId) -> Result<(), Close> {
        let Some(admitting) = self.admitting(wire) else { return Ok(()) };
        let Some((member, user, displaced)) = admitting.joined.take() else { return Ok(()) };
        close_displaced(displaced);
        let now = world.now;
        let first_ping = world.between(self.rules.heartbeat / 10, self.rules.heartbeat);
        let session = Session::new(member.session, &self.rules, now, now + SESSION_LIFE, first_ping);
        let ready = session.ready(&self.rules, now);
        self.sockets.insert(wire, Socket::Live(Box::new(Live::new(session, member, user, ready))));
        // Looked at after joining: a drain that began before has seen this session or is seen here.
        if self.keeper.is_draining() { Err(LEAVING) } else { Ok(()) }
    }

    /// A second hello on an open session.
    pub(super) fn renew(&mut self, world: &mut World, wire: WireId, hello: &Hello) {
        if let Some(ticket) = Ticket::parse(&hello.ticket) {
            self.ask(world, Question::Redeem(ticket.number), Purpose::Renew(wire));
        }
    }

    pub(super) fn session_renewed(&mut self, world: &mut World, wire: WireId, answer: Option<Answer>) {
        let Some(Socket::Live(live)) = self.sockets.get_mut(&wire) else { return };
        let action = match answer {
            Some(Answer::Redeemed(true)) => {
                live.session.renewed(&self.rules, world.now + SESSION_LIFE, world.now)
            }
            Some(_) => live.session.not_renewed(NOT_VALID),
            None => live.session.not_renewed(REGISTRY_AWAY),
        };
        self.carry_out(world, wire, action);
    }
}
