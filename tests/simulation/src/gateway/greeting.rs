//! Sockets that have not said who they are, or whose ticket is being checked.

use super::{Life, PATIENCE, registry_side::Asked};
use crate::{
    registry::Question,
    world::{Packet, World, calls::Ticket, wires::WireId},
};
use tokio::time::Instant;
use touchline_ids::ConnectionNumber;

/// A socket without a session.
pub(super) struct Greeting {
    until: Instant,
    /// Once it has said hello.
    hello: Option<(Ticket, ConnectionNumber)>,
}

impl Greeting {
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}

impl Life {
    /// A device opened a socket.
    pub(super) fn greet(&mut self, world: &mut World, wire: WireId) {
        if self.keeper.takes_sockets(world.now) {
            self.greetings.insert(wire, Greeting { until: world.now + PATIENCE, hello: None });
        } else {
            world.close(wire, self.node);
        }
    }

    /// The first frame, a hello: its ticket is used up. Answers whether it was for here.
    pub(super) fn hello(&mut self, world: &mut World, wire: WireId, packet: &Packet) -> bool {
        let Some(greeting) = self.greetings.get_mut(&wire) else { return false };
        let Packet::Text(text) = packet else { return true };
        match read(text) {
            Some((ticket, connection)) => {
                let number = ticket.number;
                greeting.hello = Some((ticket, connection));
                self.ask(world, Question::Redeem(number), Asked::Ticket(wire));
            }
            None => self.refuse(world, wire, 4001),
        }
        true
    }

    pub(super) fn redeemed(&mut self, world: &mut World, wire: WireId, answer: Option<bool>) {
        let Some(greeting) = self.greetings.get(&wire) else { return };
        let Some((ticket, connection)) = greeting.hello.clone() else { return };
        match answer {
            Some(true) => {
                self.greetings.remove(&wire);
                self.sockets.insert(wire);
                let now = world.running(self.node);
                self.rules.hello(u64::from(wire.0), ticket.user, ticket.device_id(), connection, now);
                // Looked at after joining: a drain that began before has seen this session or is seen here.
                if self.keeper.is_draining() {
                    self.send_home(world, wire, 1012);
                }
            }
            Some(false) => self.refuse(world, wire, 4001),
            None => self.refuse(world, wire, 1013),
        }
    }

    pub(super) fn greetings_on_time(&mut self, world: &mut World) {
        let late = self.greetings.iter().filter(|(_, greeting)| greeting.until <= world.now);
        for wire in late.map(|(wire, _)| *wire).collect::<Vec<_>>() {
            self.refuse(world, wire, 1013);
        }
    }

    fn refuse(&mut self, world: &mut World, wire: WireId, code: u16) {
        self.greetings.remove(&wire);
        world.send(wire, self.node, Packet::Close(code));
        world.close(wire, self.node);
    }
}

fn read(text: &str) -> Option<(Ticket, ConnectionNumber)> {
    let frame: serde_json::Value = serde_json::from_str(text).ok()?;
    let ticket = Ticket::parse(frame.get("ticket")?.as_str()?)?;
    Some((ticket, ConnectionNumber(frame.get("connection")?.as_i64()?)))
}
