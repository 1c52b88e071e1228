//! A whole gateway for a simulator: the rules of its sessions, its hub, its registrar and its way in, without sockets,
//! tasks or clocks. What clients, apis and the registry say goes in; what they are told comes out of
//! [`Gateway::next`]. One thread, no randomness: the same inputs at the same times give the same outputs.

mod pushes;
mod sockets;

use crate::{
    config::{Limits, Times},
    entry::Entry,
    frame,
    hub::{Handed, Hub, HubLimits, Member},
    queue::{Bounds, Order},
    registrar::{Candidate, Loss, Registrar, Work},
    session::Rules,
};
use pushes::Streams;
use sockets::Open;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use touchline_ids::{ChannelId, ConnectionNumber, DeviceId, IncarnationId, Seq, UserId};
use touchline_proto::push::{Message, PushAnswer};
use touchline_registry::{Registered, Registration};

/// Ways to break the rules on purpose, to see that a simulator notices. All off by default. (To remove routes without
/// comparing is the registry's to break.)
#[derive(Debug, Default, Clone, Copy)]
pub struct Broken {
    /// A client is told `ready`, and syncs, before its route is visible.
    pub ready_before_register: bool,
    /// Neither a loss nor time makes sessions register again.
    pub no_reregistration: bool,
}

pub use pushes::Stream;

/// A socket, named by the simulator.
pub type Socket = u64;

/// A question to the registry. Each is answered once, with [`Gateway::answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question(u64);

/// What a gateway asks the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// `Registry::register`; answer [`Answer::Registered`].
    Register(Vec<Registration>),
    /// `Registry::take_over`; answer [`Answer::TakenOver`].
    TakeOver(Registration, IncarnationId, ConnectionNumber),
    /// Whether this incarnation has a lease; answer [`Answer::Lives`].
    Lives(IncarnationId),
    /// `Registry::unregister` for each; answer [`Answer::Done`].
    Unregister(Vec<Registration>),
    /// `Registry::prune` of these users at this gateway's incarnation; answer [`Answer::Done`].
    Prune(Vec<UserId>),
}

/// What the registry answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One for each session.
    Registered(Vec<Registered>),
    /// Whether the entry was still there.
    TakenOver(bool),
    /// Whether it has a lease.
    Lives(bool),
    /// It is done.
    Done,
    /// No answer, or an error. What was asked may have been done all the same.
    Away,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A text frame to a client.
    Text(Socket, String),
    /// A WebSocket ping to a client, to be answered with [`Gateway::pong`].
    Ping(Socket),
    /// The socket ends, with this close code; without one, without a word.
    Closed(Socket, Option<u16>),
    /// An answer to an api.
    Answer(Stream, PushAnswer),
    /// A question to the registry.
    Ask(Question, Ask),
}

/// What became of a push.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushed {
    /// At least one session has it in its queue.
    pub taken: Vec<UserId>,
    /// Every session's queue was full.
    pub slow: Vec<UserId>,
    /// No session.
    pub gone: Vec<UserId>,
}

/// For whom a question was asked.
#[derive(Debug)]
enum Asker {
    Entering(Socket),
    Registering(Vec<Candidate>),
    Examining(Arc<Member>, ConnectionNumber, IncarnationId),
    TakingOver(Arc<Member>),
    Forgetting(Vec<Registration>),
    Pruning(Vec<UserId>),
}

/// A gateway. It starts with a lease; what becomes of that is the simulator's to say.
#[derive(Debug)]
pub struct Gateway {
    incarnation: IncarnationId,
    rules: Rules,
    hub: Hub,
    registrar: Registrar,
    /// The registrar is given one piece of work at a time.
    working: bool,
    broken: Broken,
    open: BTreeMap<Socket, Open>,
    streams: Streams,
    asked: BTreeMap<Question, Asker>,
    questions: u64,
    out: VecDeque<Output>,
    /// The earliest moment at which something may come out of itself.
    wake: Option<Instant>,
}

impl Gateway {
    /// A gateway without sessions; `queue_frames` may wait for each.
    pub fn new(incarnation: IncarnationId, queue_frames: usize, broken: Broken, now: Instant) -> Self {
        let settings = Limits::default();
        let queue = Bounds { frames: queue_frames, bytes: settings.queue_bytes };
        let limits = HubLimits { capacity: 10_000, sessions_per_user: settings.sessions_per_user as usize, queue };
        let mut registrar = Registrar::new(limits.capacity as usize, now);
        registrar.broken = broken;
        Self {
            incarnation,
            rules: Rules::new(&settings, &Times::default()),
            hub: Hub::new(limits),
            registrar,
            working: false,
            broken,
            open: BTreeMap::new(),
            streams: Streams::default(),
            asked: BTreeMap::new(),
            questions: 0,
            out: VecDeque::new(),
            wake: Some(now),
        }
    }

    /// A client said hello with a good ticket.
    pub fn hello(
        &mut self,
        socket: Socket,
        user: UserId,
        device: DeviceId,
        connection: ConnectionNumber,
        now: Instant,
    ) {
        let registration = Registration { user, device, incarnation: self.incarnation, connection };
        let mut entry = Entry::default();
        entry.broken = self.broken;
        self.open.insert(socket, Open::entering(registration, entry));
        self.step(socket, Entry::default().begin(), now);
    }

    /// A text frame came from a client.
    pub fn text(&mut self, socket: Socket, text: &str, now: Instant) {
        self.receive(socket, crate::session::Received::Text(text), now);
    }

    /// A WebSocket pong came from a client.
    pub fn pong(&mut self, socket: Socket, now: Instant) {
        self.receive(socket, crate::session::Received::Control, now);
    }

    /// A socket is gone.
    pub fn cut(&mut self, socket: Socket, now: Instant) {
        self.end(socket, now);
    }

    /// Whether anything can be written to this socket; it can until told otherwise.
    pub fn set_writable(&mut self, socket: Socket, writable: bool, now: Instant) {
        if let Some(open) = self.open.get_mut(&socket) {
            open.writable = writable;
        }
        self.wake = Some(now);
    }

    /// An api pushes a message.
    ///
    /// # Panics
    /// When the message cannot be shown to a client.
    pub fn push(&mut self, users: &[UserId], message: &Message, now: Instant) -> Pushed {
        let message = frame::message(message).expect("a message that can be shown");
        let mut pushed = Pushed::default();
        self.hub.hand(users.iter().copied(), &message, |user, handed, _| match handed {
            Handed::Taken => pushed.taken.push(user),
            Handed::Slow => pushed.slow.push(user),
            Handed::Gone => pushed.gone.push(user),
        });
        pushed.gone.iter().for_each(|user| self.registrar.stale(*user, now));
        self.wake = Some(now);
        pushed
    }

    /// Whether a device of the user acked `seq`: none when the user has no session here.
    pub fn has_acked(&self, user: UserId, channel: ChannelId, seq: Seq) -> Option<bool> {
        let mut acked = None;
        self.hub.find([user].into_iter(), |_, user| {
            acked = user.map(|user| self.hub.has_acked(user, channel, seq));
        });
        acked
    }

    /// What devices have acked and no api was told yet.
    pub fn take_acks(&mut self) -> Vec<(UserId, ChannelId, Seq)> {
        self.hub.take_acks().into_iter().map(|ack| (ack.user, ack.channel, ack.seq)).collect()
    }

    /// An api has these users' sessions told to sync; everybody's when there are none.
    pub fn resync(&mut self, users: &[UserId], now: Instant) {
        let members = if users.is_empty() { self.everybody() } else { self.hub.members_of(users) };
        self.registrar.resync(&self.hub, &members);
        self.wake = Some(now);
    }

    /// The lease was renewed and found to be missing (`certain`), or nobody can vouch for the routes.
    pub fn lost(&mut self, certain: bool, now: Instant) {
        self.registrar.lost(&self.hub, if certain { Loss::Certain } else { Loss::Possible }, now);
        self.wake = Some(now);
    }

    /// The gateway stops: every session is told to leave after so long.
    pub fn drain(&mut self, after: Duration, now: Instant) {
        self.everybody().iter().for_each(|member| member.queue.order(Order::Leave(after)));
        self.wake = Some(now);
    }

    /// Sessions now.
    pub fn sessions(&self) -> u32 {
        self.hub.sessions()
    }

    /// What happens next, if anything does by now.
    pub fn next(&mut self, now: Instant) -> Option<Output> {
        if self.out.is_empty() && self.wake.is_some_and(|wake| now >= wake) {
            self.wake = None;
            self.pump(now);
        }
        self.out.pop_front()
    }

    /// When to look again at the latest.
    pub fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// The registry's answer.
    ///
    /// # Panics
    /// When it is the answer to another question.
    pub fn answer(&mut self, question: Question, answer: Answer, now: Instant) {
        self.wake = Some(now);
        let Some(asker) = self.asked.remove(&question) else { return };
        match (asker, answer) {
            (Asker::Entering(socket), answer) => self.entered(socket, answer, now),
            (Asker::Registering(batch), answer) => {
                self.working = false;
                let answers = if let Answer::Registered(answers) = answer { Some(answers) } else { None };
                let followed = self.registrar.registered(&self.hub, batch, answers, now);
                followed.ready.iter().for_each(|member| member.queue.order(Order::Ready));
                for (member, newer) in followed.newer {
                    let asker = Asker::Examining(member, newer.connection, newer.incarnation);
                    self.ask(Ask::Lives(newer.incarnation), asker);
                }
            }
            (Asker::Examining(member, connection, incarnation), Answer::Lives(false)) => {
                let mine = member.registration.clone();
                self.ask(Ask::TakeOver(mine, incarnation, connection), Asker::TakingOver(member));
            }
            (Asker::TakingOver(member), Answer::TakenOver(true)) => member.queue.order(Order::Ready),
            (Asker::Examining(..) | Asker::TakingOver(_), _) => {}
            (Asker::Forgetting(routes), _) => {
                self.working = false;
                self.registrar.forgotten(&self.hub, &routes);
            }
            (Asker::Pruning(users), answer) => {
                self.working = false;
                self.registrar.pruned(&self.hub, &users, answer == Answer::Done);
            }
        }
    }

    fn ask(&mut self, ask: Ask, asker: Asker) {
        self.questions += 1;
        let question = Question(self.questions);
        self.asked.insert(question, asker);
        self.out.push_back(Output::Ask(question, ask));
    }

    fn everybody(&self) -> Vec<Arc<Member>> {
        let mut members = self.hub.members();
        members.sort_unstable_by_key(|member| member.session);
        members
    }

    /// Everything that is due.
    fn pump(&mut self, now: Instant) {
        let told = loop {
            match self.registrar.tell(now) {
                Ok(batch) => batch.iter().for_each(|member| member.queue.order(Order::Ready)),
                Err(until) => break until,
            }
        };
        let work = if self.working { None } else { self.work(now) };
        let mut until = work.into_iter().chain(self.serve_streams(now)).min();
        for socket in self.open.keys().copied().collect::<Vec<_>>() {
            let next = self.serve(socket, now);
            until = until.into_iter().chain(next).min();
        }
        // An answer, or any other event, may come before.
        self.wake = self.wake.into_iter().chain(told).chain(until).min();
    }

    /// The registrar's next piece of work.
    fn work(&mut self, now: Instant) -> Option<Instant> {
        let (ask, asker) = match self.registrar.next(&self.hub, now) {
            Work::Register(batch) => {
                let routes = batch.iter().map(|candidate| candidate.member.registration.clone()).collect();
                (Ask::Register(routes), Asker::Registering(batch))
            }
            Work::Forget(routes) => (Ask::Unregister(routes.clone()), Asker::Forgetting(routes)),
            Work::Prune(users) => (Ask::Prune(users.clone()), Asker::Pruning(users)),
            Work::Wait(until) => return until,
        };
        self.working = true;
        self.ask(ask, asker);
        None
    }
}

#[cfg(test)]
mod tests;
