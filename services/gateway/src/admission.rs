//! Who gets in: checks a hello's ticket, enters the session in the hub, registers its route, and only then lets the
//! client be told "ready". The order is what makes "sync after ready" complete.

use crate::{
    close_codes::{Close, CloseCode},
    entry::{Entry, OLDER, Step},
    frame::Hello,
    gateway::Gateway,
    hub::{Joined, Member, Refused, User, close_displaced},
    queue::Queue,
};
use std::{sync::Arc, time::SystemTime};
use tokio::time::Instant;
use touchline_auth::Ticket;
use touchline_ids::SessionId;
use touchline_registry::Registration;

const NOT_VALID: Close = Close::new(CloseCode::Unauthenticated, "the ticket is not valid (any more): get another one");
const USED: Close = Close::new(CloseCode::Unauthenticated, "the ticket was used before: get another one");
const OTHERS: Close = Close::new(CloseCode::Unauthenticated, "the ticket is for another user or device");
const FULL: Close = Close::new(CloseCode::Overloaded, "this gateway is full");
const REGISTRY_AWAY: Close = Close::new(CloseCode::Overloaded, "tickets and routes cannot be checked now");
const LATE: Close = Close::new(CloseCode::Overloaded, "this gateway has too much to do");
const LEAVING: Close = Close::new(CloseCode::Restart, "this gateway is going away");

type Displaced = Vec<(Arc<Member>, Close)>;

/// A session's presence in the hub and the registry. Ends when it is dropped, by a panic too.
pub(crate) struct Membership {
    gateway: Arc<Gateway>,
    pub(crate) user: Arc<User>,
    pub(crate) member: Arc<Member>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.gateway.hub.leave(&self.user, &self.member);
        self.gateway.routes.forget(self.member.registration.clone());
    }
}

/// A session that may begin.
pub(crate) struct Admitted {
    pub(crate) membership: Membership,
    pub(crate) expires: Instant,
}

/// Lets a session in, or says how its socket is closed.
pub(crate) async fn admit(gateway: &Arc<Gateway>, hello: Hello) -> Result<Admitted, Close> {
    if gateway.running.is_lagging() {
        return Err(LATE);
    }
    let ticket = redeem(gateway, &hello).await?;
    let registration = Registration {
        user: ticket.user,
        device: hello.device,
        incarnation: gateway.incarnation,
        connection: hello.connection,
    };
    let member = Arc::new(Member { session: SessionId::new(), registration, queue: Queue::default() });
    let (membership, displaced) = enter(gateway, member).await?;
    close_displaced(displaced);
    gateway.readiness.informed().await;
    // Looked at after joining: a drain that began before has seen this session or is seen here.
    if gateway.readiness.is_draining() {
        return Err(LEAVING);
    }
    Ok(Admitted { membership, expires: instant(gateway, ticket.session_expires) })
}

/// Carries out the steps of [`Entry`] up to `ready`, which the session's own task tells.
async fn enter(gateway: &Arc<Gateway>, member: Arc<Member>) -> Result<(Membership, Displaced), Close> {
    let (mut entry, mut entered) = (Entry::default(), None);
    let mut step = entry.begin();
    loop {
        let mine = &member.registration;
        step = match step {
            Step::Join => {
                let Joined { user, displaced } = gateway.hub.join(&member).map_err(|refused| match refused {
                    Refused::Full => FULL,
                    Refused::Older => OLDER,
                })?;
                let (gateway, member) = (Arc::clone(gateway), Arc::clone(&member));
                entered = Some((Membership { gateway, user, member }, displaced));
                entry.joined()
            }
            Step::Register => {
                let answers = gateway.ask(gateway.registry.register(std::slice::from_ref(mine))).await;
                let answer = answers.ok().and_then(|answers| answers.into_iter().next());
                entry.registered(answer.ok_or(REGISTRY_AWAY)?)
            }
            Step::Examine(incarnation, connection) => {
                let newer = Registration { incarnation, connection, ..mine.clone() };
                entry.examined(lives(gateway, &newer).await?)
            }
            Step::TakeOver(incarnation, connection) => {
                let taken = gateway.ask(gateway.registry.take_over(mine, incarnation, connection)).await;
                entry.taken_over(taken.map_err(|_| REGISTRY_AWAY)?)
            }
            // The session's own task tells it, first of all.
            Step::Ready => entry.told(),
            Step::Done => return entered.ok_or(REGISTRY_AWAY),
            Step::Refuse(close) => return Err(close),
        };
    }
}

/// A second hello on an open session: until when it may live now.
pub(crate) async fn renew(gateway: Arc<Gateway>, member: Arc<Member>, hello: Hello) -> Result<Instant, Close> {
    let mine = &member.registration;
    let ticket = redeem(&gateway, &hello).await?;
    if ticket.user != mine.user || ticket.device != mine.device {
        return Err(OTHERS);
    }
    Ok(instant(&gateway, ticket.session_expires))
}

/// Checks a hello's ticket and uses it up. A ticket that cannot be marked as used is not accepted.
async fn redeem(gateway: &Gateway, hello: &Hello) -> Result<Ticket, Close> {
    let ticket = gateway.tickets.verify(&hello.ticket).await.map_err(|error| {
        tracing::info!(%error, "a ticket was refused");
        NOT_VALID
    })?;
    let refuse = |close: Close| {
        tracing::info!(user.id = %ticket.user, reason = close.detail, "a ticket was refused");
        close
    };
    if ticket.device != hello.device {
        return Err(refuse(OTHERS));
    }
    if ticket.session_expires <= SystemTime::now() {
        return Err(refuse(NOT_VALID));
    }
    match gateway.ask(gateway.registry.redeem_ticket(&ticket.id)).await {
        Ok(true) => Ok(ticket),
        Ok(false) => Err(refuse(USED)),
        Err(_) => Err(refuse(REGISTRY_AWAY)),
    }
}

/// Whether a route still means a session.
pub(crate) async fn lives(gateway: &Gateway, route: &Registration) -> Result<bool, Close> {
    if route.incarnation == gateway.incarnation {
        return Ok(gateway.hub.holds(route));
    }
    let leases = gateway.ask(gateway.registry.gateways()).await.map_err(|_| REGISTRY_AWAY)?;
    Ok(leases.iter().any(|lease| lease.incarnation == route.incarnation))
}

/// The moment on the sessions' clock; a wall clock that jumps later changes nothing.
fn instant(gateway: &Gateway, time: SystemTime) -> Instant {
    gateway.running.now() + time.duration_since(SystemTime::now()).unwrap_or_default().min(MAX_SESSION)
}

/// An expiry further away than this is cut: far enough out an Instant overflows.
const MAX_SESSION: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);
