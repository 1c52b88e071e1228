//! Questions on their way, and their answers on the way back.

use super::{
    Event, Input, Next, Node, State, World,
    calls::{Call, CallId, Failure, Outcome, Question, Reply, RestAnswer},
    network::Network,
};
use rand::Rng as _;
use std::{fmt::Debug, time::Duration};

/// What a store takes for an answer.
const DEED: Duration = Duration::from_micros(300);

impl World {
    /// Asks; the answer comes as [`Input::Answer`], at the latest after `patience`.
    pub(crate) fn ask(&mut self, asker: Node, target: Node, question: Question, patience: Duration) -> CallId {
        self.last_call += 1;
        let id = CallId(self.last_call);
        let asker_life = self.life(asker);
        self.calls.insert(id, Call { asker, asker_life, target, question: Some(question) });
        let at = self.now + Network::delay(&mut self.chance, asker, target);
        self.schedule.plan(at, Event::Ask(id));
        self.schedule.plan(self.now + patience, Event::GiveUp(id));
        id
    }

    /// An api answers a question.
    pub(crate) fn answer(&mut self, call: CallId, answer: RestAnswer) {
        self.reply(call, Ok(Reply::Api(answer)), Duration::ZERO);
    }

    /// Whatever this node was asked breaks, and whatever it asks concerns nobody.
    pub(super) fn break_calls(&mut self, node: Node) {
        let calls = self.calls.iter().filter(|(_, call)| call.target == node && call.question.is_none());
        let broken: Vec<_> = calls.map(|(id, _)| *id).collect();
        for id in broken {
            self.reply(id, Err(Failure::Unknown), Duration::ZERO);
        }
        self.calls.retain(|_, call| call.asker != node);
    }

    /// What was asked of a store and not answered breaks.
    pub(crate) fn break_store(&mut self, store: Node) {
        self.break_calls(store);
    }

    fn reply(&mut self, id: CallId, outcome: Outcome, later: Duration) {
        let Some(call) = self.calls.get(&id) else { return };
        let (target, asker) = (call.target, call.asker);
        let at = self.now + later + Network::delay(&mut self.chance, target, asker);
        self.schedule.plan(at, Event::Answered(id, outcome));
    }

    /// A question reaches its target.
    pub(super) fn carry(&mut self, id: CallId) -> Option<Next> {
        let call = self.calls.get_mut(&id)?;
        let (asker, target) = (call.asker, call.target);
        if !self.network.open(asker, target) {
            return None;
        }
        let question = call.question.take()?;
        match (target, question) {
            (Node::Database, Question::Database(question)) => {
                if self.database_trouble.away {
                    self.reply(id, Err(Failure::Refused), Duration::ZERO);
                    return None;
                }
                let question_text = self.record.is_traced().then(|| format!("{question:?}"));
                let answer = self.database.ask(question, self.now);
                self.tell_trace(asker, question_text, &answer);
                let later = DEED + self.database_trouble.slower;
                let lost = self.is_lost(self.database_trouble.loses_one_in);
                let outcome = if lost { Err(Failure::Unknown) } else { Ok(Reply::Database(answer)) };
                self.reply(id, outcome, later);
            }
            (Node::Registry, Question::Registry(question)) => {
                if self.registry_trouble.away {
                    self.reply(id, Err(Failure::Refused), Duration::ZERO);
                    return None;
                }
                let question_text = self.record.is_traced().then(|| format!("{question:?}"));
                let answer = self.registry.ask(question, self.now);
                self.tell_trace(asker, question_text, &answer);
                self.reply(id, Ok(Reply::Registry(answer)), DEED + self.registry_trouble.slower);
            }
            (Node::Api(_), Question::Api(question)) => {
                if self.state(target) == State::Down {
                    self.reply(id, Err(Failure::Refused), Duration::ZERO);
                    return None;
                }
                let life = self.life(target);
                return self.hand_over(target, life, Input::Asked(id, question));
            }
            (_, _) => {}
        }
        None
    }

    /// What was asked and answered, but for what is asked all the time and finds nothing.
    fn tell_trace(&mut self, asker: Node, question: Option<String>, answer: &impl Debug) {
        let Some(question) = question else { return };
        let answer = format!("{answer:?}");
        let dull = answer == "Taken([])"
            || question == "Gateways"
            || question.starts_with("RenewClaims")
            || answer == "Renewed(Renewed)";
        if !dull {
            self.note(asker, || format!("{question} → {answer}"));
        }
    }

    fn is_lost(&mut self, one_in: u32) -> bool {
        one_in > 0 && self.chance.random_ratio(1, one_in)
    }

    /// An answer comes back, unless its way is closed.
    pub(super) fn answered(&mut self, id: CallId, outcome: Outcome) -> Option<Next> {
        let call = self.calls.get(&id)?;
        if !self.network.open(call.target, call.asker) {
            return None;
        }
        self.answer_arrives(id, outcome)
    }

    pub(super) fn answer_arrives(&mut self, id: CallId, outcome: Outcome) -> Option<Next> {
        let call = self.calls.remove(&id)?;
        self.hand_over(call.asker, call.asker_life, Input::Answer(id, outcome))
    }
}
