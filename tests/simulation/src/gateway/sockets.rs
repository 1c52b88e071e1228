//! Sockets with a session: what comes goes to the rules, what they say is written.

use super::{Crash, Life, wire_of};
use crate::world::{Packet, World, wires::WireId};
use std::time::Duration;
use touchline_gateway::simulation::Socket;

/// How long a socket may take nothing.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(10);

impl Life {
    pub(super) fn received(&mut self, world: &mut World, wire: WireId, packet: Packet) {
        if self.hello(world, wire, &packet) || !self.sockets.contains(&wire) {
            return;
        }
        let (socket, now) = (u64::from(wire.0), world.running(self.node));
        match packet {
            Packet::Text(text) => {
                if self.crash == Some(Crash::BeforeAck) && text.contains(r#""ack""#) {
                    self.crashed = true;
                    return;
                }
                self.rules.text(socket, &text, now);
            }
            Packet::Pong => self.rules.pong(socket, now),
            Packet::Close(_) => {
                world.close(wire, self.node);
                self.socket_gone(world, wire);
            }
            _ => {}
        }
    }

    pub(super) fn socket_gone(&mut self, world: &mut World, wire: WireId) {
        if self.sockets.remove(&wire) {
            self.blocked.remove(&wire);
            self.rules.cut(u64::from(wire.0), world.running(self.node));
        }
    }

    /// The rules say something to a client.
    pub(super) fn write(&mut self, world: &mut World, socket: Socket, packet: Packet) {
        let wire = wire_of(socket);
        world.send(wire, self.node, packet);
        if !world.has_room(wire, self.node) && !self.blocked.contains_key(&wire) {
            let now = world.running(self.node);
            self.blocked.insert(wire, now);
            self.rules.set_writable(socket, false, now);
        }
    }

    /// There is room again.
    pub(super) fn writable(&mut self, world: &mut World, wire: WireId) {
        if self.blocked.remove(&wire).is_some() {
            self.rules.set_writable(u64::from(wire.0), true, world.running(self.node));
        }
    }

    pub(super) fn blocked_on_time(&mut self, world: &mut World) {
        let now = world.running(self.node);
        let late = self.blocked.iter().filter(|(_, since)| now >= **since + WRITE_PATIENCE);
        for wire in late.map(|(wire, _)| *wire).collect::<Vec<_>>() {
            self.send_home(world, wire, 4010);
        }
    }

    /// The rules end a socket.
    pub(super) fn closed(&mut self, world: &mut World, socket: Socket, code: Option<u16>) {
        let wire = wire_of(socket);
        if let Some(code) = code {
            world.record.closed(code);
            world.send(wire, self.node, Packet::Close(code));
        }
        self.blocked.remove(&wire);
        self.sockets.remove(&wire);
        world.close(wire, self.node);
    }

    /// The gateway ends a socket for another reason than its rules.
    pub(super) fn send_home(&mut self, world: &mut World, wire: WireId, code: u16) {
        world.record.closed(code);
        world.send(wire, self.node, Packet::Close(code));
        world.close(wire, self.node);
        self.socket_gone(world, wire);
    }
}
