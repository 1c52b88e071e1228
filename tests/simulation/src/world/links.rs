//! What happens on wires: opening, sending, arriving, breaking.

use super::{
    Event, Input, Next, Node, Packet, State, World,
    network::Network,
    wires::{Flying, Wire, WireId},
};
use rand::Rng as _;
use std::{collections::BTreeSet, time::Duration};

/// A wire that does not stand after so long never will.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How often a keepalive asks, and how long it waits for an answer.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(15);

impl World {
    /// Opens a wire; [`Input::Opened`] or [`Input::Broken`] follows.
    pub(crate) fn open(&mut self, opener: Node, other: Node, keepalive: bool) -> WireId {
        self.last_wire += 1;
        let id = WireId(self.last_wire);
        let lives = (self.life(opener), self.life(other));
        let mut wire = Wire::new((opener, lives.0), (other, lives.1), keepalive, self.now);
        wire.ends[0].open = true;
        self.wires.insert(id, wire);
        self.fly(id, 1, Flying::Hello);
        self.schedule.plan(self.now + CONNECT_PATIENCE, Event::Keepalive { wire: id, side: 0 });
        id
    }

    /// Sends; what cannot be sent any more is lost, as the sender will learn.
    pub(crate) fn send(&mut self, id: WireId, from: Node, packet: Packet) {
        let Some(wire) = self.wires.get(&id) else { return };
        let side = wire.side(from);
        if wire.ends[side].open {
            let other = wire.ends[1 - side].node;
            self.note(from, || format!("sends {other:?} on {}: {}", id.0, packet.brief()));
            self.fly(id, 1 - side, Flying::Packet(packet));
        }
    }

    /// Whether there is room to send; if not, [`Input::Room`] will tell.
    pub(crate) fn has_room(&mut self, id: WireId, from: Node) -> bool {
        let Some(wire) = self.wires.get_mut(&id) else { return true };
        let side = wire.side(from);
        let full = wire.is_full(1 - side);
        wire.ends[side].waits_for_room = full;
        !full
    }

    /// Closes this end; the other one finds everything sent before, then the end.
    pub(crate) fn close(&mut self, id: WireId, from: Node) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let side = wire.side(from);
        if std::mem::replace(&mut wire.ends[side].open, false) {
            wire.ends[side].coming.clear();
            self.fly(id, 1 - side, Flying::End);
        }
    }

    /// Who is at the other end.
    pub(crate) fn other_end(&self, id: WireId, node: Node) -> Option<Node> {
        let wire = self.wires.get(&id)?;
        Some(wire.ends[1 - wire.side(node)].node)
    }

    /// This end goes away without a word; the other one learns of it so much later.
    pub(crate) fn leave_hanging(&mut self, id: WireId, node: Node, linger: Duration) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let side = wire.side(node);
        if std::mem::replace(&mut wire.ends[side].open, false) {
            wire.ends[side].coming.clear();
            wire.ends[side].hangs = true;
            let at = wire.send(1 - side, Flying::End, self.now, linger);
            self.schedule.plan(at, Event::Arrive { wire: id, side: 1 - side });
        }
    }

    /// A device takes what arrives, or leaves it where it is.
    pub(crate) fn set_reading(&mut self, id: WireId, node: Node, reading: bool) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let side = wire.side(node);
        wire.ends[side].reading = reading;
        if reading {
            self.schedule.plan(self.now, Event::Arrive { wire: id, side });
        }
    }

    /// A reset in the middle: both ends learn of it, what was under way is lost from some point on.
    pub(crate) fn cut(&mut self, id: WireId) {
        for side in 0..2 {
            let Some(wire) = self.wires.get_mut(&id) else { return };
            wire.ends[side].reading = true;
            let coming = &mut wire.ends[side].coming;
            let kept = self.chance.random_range(0..=coming.len());
            coming.truncate(kept);
            self.fly(id, side, Flying::End);
        }
    }

    /// Open wires of a node.
    pub(crate) fn wires_of(&self, node: Node) -> Vec<WireId> {
        let has = |wire: &&Wire| wire.ends.iter().any(|end| end.node == node && end.open);
        self.wires.iter().filter(|(_, wire)| has(wire)).map(|(id, _)| *id).collect()
    }

    /// A process ends without a word. Its kernel closes its wires, or its whole host is gone and nothing answers.
    pub(crate) fn kill(&mut self, node: Node, with_its_host: bool) {
        let Some(process) = self.processes.get_mut(&node) else { return };
        process.state = State::Down;
        process.backlog.clear();
        self.note(node, || format!("is killed{}", if with_its_host { " with its host" } else { "" }));
        for id in self.wires_of(node) {
            let Some(wire) = self.wires.get_mut(&id) else { continue };
            let side = wire.side(node);
            wire.ends[side].open = false;
            wire.ends[side].hangs = with_its_host;
            wire.ends[side].coming.clear();
            let sent = &mut wire.ends[1 - side].coming;
            let kept = self.chance.random_range(0..=sent.len());
            sent.truncate(kept);
            if !with_its_host {
                self.fly(id, 1 - side, Flying::End);
            }
        }
        self.break_calls(node);
    }

    /// Everything that a healed way held back goes on.
    pub(crate) fn flow(&mut self) {
        for id in self.wires.keys().copied().collect::<BTreeSet<_>>() {
            for side in 0..2 {
                self.schedule.plan(self.now, Event::Arrive { wire: id, side });
            }
        }
    }

    fn fly(&mut self, id: WireId, side: usize, flying: Flying) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let delay = Network::delay(&mut self.chance, wire.ends[1 - side].node, wire.ends[side].node);
        let at = wire.send(side, flying, self.now, delay);
        self.schedule.plan(at, Event::Arrive { wire: id, side });
    }

    /// Something may have arrived at an end.
    pub(super) fn arrive(&mut self, id: WireId, side: usize) -> Option<Next> {
        let wire = self.wires.get_mut(&id)?;
        let (here, there) = (wire.ends[side].node, wire.ends[1 - side].node);
        let end = &mut wire.ends[side];
        let arrived = end.coming.front().is_some_and(|(at, _)| *at <= self.now);
        if !(arrived && end.reading && self.network.open(there, here)) {
            return None;
        }
        let (_, flying) = end.coming.pop_front()?;
        // What came at the same time has an event of its own, except after a closed way.
        if end.coming.front().is_some_and(|(at, _)| *at <= self.now) {
            self.schedule.plan(self.now, Event::Arrive { wire: id, side });
        }
        self.room_again(id, 1 - side);
        self.take_in(id, side, flying)
    }

    fn room_again(&mut self, id: WireId, side: usize) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let full = wire.is_full(1 - side);
        let end = &mut wire.ends[side];
        if !full && end.open && std::mem::take(&mut end.waits_for_room) {
            let (node, life) = (end.node, end.life);
            self.schedule.plan(self.now, Event::Deliver { node, life, input: Input::Room(id) });
        }
    }

    fn take_in(&mut self, id: WireId, side: usize, flying: Flying) -> Option<Next> {
        let wire = self.wires.get_mut(&id)?;
        let (node, life) = (wire.ends[side].node, wire.ends[side].life);
        let state = self.state(node);
        let there = state != State::Down && self.life(node) == life;
        let wire = self.wires.get_mut(&id)?;
        let input = match flying {
            Flying::Hello if there => {
                wire.ends[side].open = true;
                wire.ends[side].heard = self.now;
                if wire.keepalive {
                    self.schedule.plan(self.now + KEEPALIVE_EVERY, Event::Keepalive { wire: id, side });
                }
                self.fly(id, 1 - side, Flying::Welcome);
                Input::Accepted(id)
            }
            Flying::End => {
                let was_open = std::mem::replace(&mut wire.ends[side].open, false);
                if wire.is_over() {
                    self.wires.remove(&id);
                }
                if !was_open {
                    return None;
                }
                Input::Broken(id)
            }
            // A kernel without that connection resets.
            _ if !there || !wire.ends[side].open => {
                if wire.ends[1 - side].open && !wire.ends[side].hangs {
                    self.fly(id, 1 - side, Flying::End);
                }
                return None;
            }
            Flying::Welcome => {
                wire.ends[side].heard = self.now;
                Input::Opened(id)
            }
            Flying::Packet(packet) => Input::Received(id, packet),
            Flying::Hello => return None,
        };
        self.hand_over(node, life, input)
    }

    /// Looks for a sign of life of the other end; without one for too long this end gives the wire up.
    pub(super) fn keepalive(&mut self, id: WireId, side: usize) -> Option<Next> {
        let wire = self.wires.get(&id)?;
        let (end, other) = (&wire.ends[side], &wire.ends[1 - side]);
        if !end.open {
            return None;
        }
        let answers = other.open
            && self.state(other.node) == State::Up
            && self.life(other.node) == other.life
            && self.network.reaches_and_back(end.node, other.node);
        let (node, life, keepalive) = (end.node, end.life, wire.keepalive);
        // Not even opened: the first look comes after the time that opening may take.
        let never_opened =
            side == 0 && !other.open && other.heard == end.heard && end.heard + CONNECT_PATIENCE <= self.now;
        let paused = self.state(node) == State::Paused;
        let wire = self.wires.get_mut(&id)?;
        let end = &mut wire.ends[side];
        if answers || paused {
            end.heard = self.now;
        } else if never_opened || end.heard + KEEPALIVE_PATIENCE <= self.now {
            end.open = false;
            end.coming.clear();
            self.fly(id, 1 - side, Flying::End);
            let input = if keepalive && !never_opened { Input::Silent(id) } else { Input::Broken(id) };
            return self.hand_over(node, life, input);
        }
        if keepalive {
            self.schedule.plan(self.now + KEEPALIVE_EVERY, Event::Keepalive { wire: id, side });
        }
        None
    }
}
