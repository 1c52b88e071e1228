//! Who gets in: checks a hello's ticket, enters the session in the hub, registers its route, and only then lets the
//! client be told "ready". The order is what makes "sync after ready" complete.

use crate::{
    close_codes::{Close, CloseCode},
    frame::Hello,
    gateway::Gateway,
    hub::{Member, Refused, User, close_displaced},
    queue::Queue,
};
use std::{sync::Arc, time::SystemTime};
use tokio::time::Instant;
use touchline_auth::Ticket;
use touchline_ids::SessionId;
use touchline_registry::{Registered, Registration};

const NOT_VALID: Close = Close::new(CloseCode::Unauthenticated, "the ticket is not valid (any more): get another one");
const USED: Close = Close::new(CloseCode::Unauthenticated, "the ticket was used before: get another one");
const OTHERS: Close = Close::new(CloseCode::Unauthenticated, "the ticket is for another user or device");
const OLDER: Close = Close::new(CloseCode::Replaced, "this device has a newer connection");
const FULL: Close = Close::new(CloseCode::Overloaded, "this gateway is full");
const REGISTRY_AWAY: Close = Close::new(CloseCode::Overloaded, "tickets and routes cannot be checked now");
const LEAVING: Close = Close::new(CloseCode::Restart, "this gateway is going away");

/// How often a route that changes under our hands is tried.
const ATTEMPTS: usize = 3;

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
    let ticket = redeem(gateway, &hello).await?;
    let registration = Registration {
        user: ticket.user,
        device: hello.device,
        incarnation: gateway.incarnation,
        connection: hello.connection,
    };
    let member = Arc::new(Member { session: SessionId::new(), registration, queue: Queue::default() });
    let joined = gateway.hub.join(&member).map_err(|refused| match refused {
        Refused::Full => FULL,
        Refused::Older => OLDER,
    })?;
    let membership = Membership { gateway: Arc::clone(gateway), user: joined.user, member };
    register(gateway, &membership.member.registration).await?;
    close_displaced(joined.displaced);
    // Looked at after joining: a drain that began before has seen this session or is seen here.
    if gateway.readiness.is_draining() {
        return Err(LEAVING);
    }
    Ok(Admitted { membership, expires: instant(ticket.session_expires) })
}

/// A second hello on an open session: until when it may live now.
pub(crate) async fn renew(gateway: Arc<Gateway>, member: Arc<Member>, hello: Hello) -> Result<Instant, Close> {
    let mine = &member.registration;
    let ticket = redeem(&gateway, &hello).await?;
    if ticket.user != mine.user || ticket.device != mine.device {
        return Err(OTHERS);
    }
    Ok(instant(ticket.session_expires))
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

/// Makes the session's route visible, unless the device has a newer one at a gateway that lives.
async fn register(gateway: &Gateway, registration: &Registration) -> Result<(), Close> {
    for _ in 0..ATTEMPTS {
        let answers = gateway.ask(gateway.registry.register(std::slice::from_ref(registration))).await;
        let Registered::Newer { incarnation, connection } = one(answers.map_err(|_| REGISTRY_AWAY)?)? else {
            return Ok(());
        };
        let newer = Registration { incarnation, connection, ..registration.clone() };
        if lives(gateway, &newer).await? {
            return Err(OLDER);
        }
        let taken = gateway.ask(gateway.registry.take_over(registration, incarnation, connection)).await;
        if taken.map_err(|_| REGISTRY_AWAY)? {
            return Ok(());
        }
    }
    Err(OLDER)
}

fn one(answers: Vec<Registered>) -> Result<Registered, Close> {
    answers.into_iter().next().ok_or(REGISTRY_AWAY)
}

/// Whether a route still means a session.
async fn lives(gateway: &Gateway, route: &Registration) -> Result<bool, Close> {
    if route.incarnation == gateway.incarnation {
        return Ok(gateway.hub.holds(route));
    }
    let leases = gateway.ask(gateway.registry.gateways()).await.map_err(|_| REGISTRY_AWAY)?;
    Ok(leases.iter().any(|lease| lease.incarnation == route.incarnation))
}

/// The moment on our own clock; a wall clock that jumps later changes nothing.
fn instant(time: SystemTime) -> Instant {
    let now = Instant::now();
    now + time.duration_since(SystemTime::now()).unwrap_or_default().min(MAX_SESSION)
}

/// An expiry further away than this is cut: far enough out an Instant overflows.
const MAX_SESSION: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);
