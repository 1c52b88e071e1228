//! What applications ask of an api.

use super::{Crash, Crashing, Life, Purpose, fan_out::Waiting};
use crate::{
    database::{self, Appended, NewMessage},
    world::{
        World,
        calls::{CallId, Failure, Rest, RestAnswer, Ticket},
    },
};
use rand::seq::SliceRandom as _;
use touchline_ids::UserId;

/// Gateways in the answer to a connect.
const CANDIDATES: usize = 3;

impl Life {
    pub(super) fn asked(&mut self, world: &mut World, request: CallId, rest: Rest) {
        if self.stopping {
            return world.answer(request, RestAnswer::Unavailable);
        }
        match rest {
            Rest::Connect { user, device } => self.connect(world, request, user, device),
            Rest::Sync { user, cursors, recent } => {
                let question = database::Question::Sync { user, cursors, recent };
                self.ask_database(world, question, Purpose::Sync { request, user });
            }
            Rest::Send { channel, sender, name } => {
                let owner = self.owners.present();
                let message = NewMessage { channel, sender, name, id: world.names.message() };
                let question = database::Question::Append { message, owner };
                self.ask_database(world, question, Purpose::Append(request));
            }
            Rest::Change { channel, change } => {
                let owner = self.owners.present();
                let message_id = world.names.message();
                let question = database::Question::Change { channel, change, message_id, owner };
                self.ask_database(world, question, Purpose::Change(request));
            }
        }
    }

    fn connect(&mut self, world: &mut World, request: CallId, user: UserId, device: usize) {
        let mut ready: Vec<_> =
            self.view.ready().into_iter().map(|lease| super::streams::number_of(&lease.gateway)).collect();
        ready.shuffle(&mut world.chance);
        ready.truncate(CANDIDATES);
        if ready.is_empty() {
            return world.answer(request, RestAnswer::Unavailable);
        }
        let ticket = Ticket { number: world.names.number(), user, device };
        world.answer(request, RestAnswer::Connect { gateways: ready, ticket });
    }

    pub(super) fn database_answers(
        &mut self,
        world: &mut World,
        purpose: Purpose,
        answer: Result<database::Answer, Failure>,
        crash: &mut Crashing,
    ) {
        use database::Answer;
        match (purpose, answer) {
            (Purpose::Append(request), answer) => self.appended(world, request, false, answer, crash),
            (Purpose::Change(request), answer) => self.appended(world, request, true, answer, crash),
            (Purpose::Sync { request, user }, Ok(Answer::Synced(synced))) => {
                for (channel, seq) in &synced.right {
                    self.note_ack(user, *channel, *seq);
                }
                world.answer(request, RestAnswer::Synced(synced));
            }
            (Purpose::Sync { request, .. }, _) => world.answer(request, RestAnswer::Unavailable),
            (Purpose::Taken, Ok(Answer::Taken(taken))) => self.took(world, taken),
            (Purpose::Taken, Err(Failure::Unknown)) => self.doubt(world),
            (purpose, answer) => self.settled(world, purpose, answer),
        }
    }

    /// Rows may be claimed that nobody works on.
    fn doubt(&mut self, world: &mut World) {
        let fresh = world.names.uuid();
        self.owners.doubt(fresh, world.now);
    }

    fn appended(
        &mut self,
        world: &mut World,
        request: CallId,
        no_push: bool,
        answer: Result<database::Answer, Failure>,
        crash: &mut Crashing,
    ) {
        let appended = match answer {
            Ok(database::Answer::Appended(appended)) => appended,
            Ok(_) | Err(Failure::Refused) => return world.answer(request, RestAnswer::Unavailable),
            Err(Failure::Unknown) => {
                self.doubt(world);
                return world.answer(request, RestAnswer::Timeout);
            }
        };
        if crash.at(Crash::BeforeResponse) {
            return;
        }
        match appended {
            Appended::Stored { entry, members } => {
                world.answer(request, RestAnswer::Sent { seq: entry.seq, message: entry.message_id });
                if crash.at(Crash::AfterCommit) {
                    return;
                }
                self.begin(world, Waiting { entry, members, no_push, attempt: 1 });
            }
            Appended::Duplicate { seq, id } => world.answer(request, RestAnswer::Sent { seq, message: id }),
            Appended::NotAMember => world.answer(request, RestAnswer::Refused),
            Appended::Unchanged => world.answer(request, RestAnswer::Changed),
        }
    }
}
