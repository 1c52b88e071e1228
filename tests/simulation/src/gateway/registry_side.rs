//! What the rules ask the registry, and what it answers.

use super::{Crash, Life};
use crate::{
    registry::{Answer, Question},
    world::{Node, World, calls, wires::WireId},
};
use std::time::Duration;
use touchline_gateway::simulation as real;
use touchline_ids::IncarnationId;
use touchline_registry::{GatewayState, Lease};

/// How long the registry may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an answer is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    Lease,
    /// Whether others have push streams, when this one has none.
    Others,
    Release,
    Ticket(WireId),
    Rules(real::Question),
    /// Whether this incarnation has a lease.
    Lives(real::Question, IncarnationId),
}

impl Life {
    pub(super) fn ask(&mut self, world: &mut World, question: Question, asked: Asked) {
        let call = world.ask(self.node, Node::Registry, calls::Question::Registry(question), PATIENCE);
        self.calls.insert(call, asked);
    }

    pub(super) fn ask_for(&mut self, world: &mut World, question: real::Question, ask: real::Ask) {
        let (ask, asked) = match ask {
            real::Ask::Register(routes) => (Question::Register(routes), Asked::Rules(question)),
            real::Ask::TakeOver(mine, incarnation, connection) => {
                (Question::TakeOver(mine, incarnation, connection), Asked::Rules(question))
            }
            real::Ask::Lives(incarnation) => (Question::Gateways, Asked::Lives(question, incarnation)),
            real::Ask::Unregister(routes) => (Question::Unregister(routes), Asked::Rules(question)),
            real::Ask::Prune(users) => {
                let routes = users.into_iter().map(|user| (user, self.incarnation)).collect();
                (Question::Prune(routes), Asked::Rules(question))
            }
        };
        self.ask(world, ask, asked);
    }

    pub(super) fn registry_answers(&mut self, world: &mut World, asked: Asked, answer: Option<Answer>) {
        let now = world.running(self.node);
        match asked {
            Asked::Lease => self.lease_renewed(world, answer),
            Asked::Others => {
                let others = |lease: &Lease| lease.state == GatewayState::Ready && lease.push_streams > 0;
                if let Some(Answer::Gateways(leases)) = answer
                    && leases.iter().any(|lease| lease.incarnation != self.incarnation && others(lease))
                {
                    self.drain(world, false);
                }
            }
            Asked::Release => self.over = true,
            Asked::Ticket(wire) => {
                let redeemed = answer.and_then(|answer| match answer {
                    Answer::Redeemed(redeemed) => Some(redeemed),
                    _ => None,
                });
                self.redeemed(world, wire, redeemed);
            }
            Asked::Lives(question, incarnation) => {
                let answer = match answer {
                    Some(Answer::Gateways(leases)) => {
                        real::Answer::Lives(leases.iter().any(|lease| lease.incarnation == incarnation))
                    }
                    _ => real::Answer::Away,
                };
                self.rules.answer(question, answer, now);
            }
            Asked::Rules(question) => {
                let answer = match answer {
                    Some(Answer::Registered(answers)) => real::Answer::Registered(answers),
                    Some(Answer::TakenOver(taken)) => real::Answer::TakenOver(taken),
                    Some(Answer::Done) => real::Answer::Done,
                    _ => real::Answer::Away,
                };
                if self.crash == Some(Crash::MidReregister) && self.keeper.was_lost() {
                    self.crashed = true;
                    return;
                }
                self.rules.answer(question, answer, now);
            }
        }
    }
}
