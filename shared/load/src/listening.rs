//! The devices: each a task that shows what comes, behaves as its kind does, and writes down what it saw.

use crate::{
    board::{Board, count},
    checker::Sighting,
    clock::micros,
    findings::Kind as Broke,
    judge::Seen,
    plan::Kind,
    seat::Seat,
    text,
    track::{Fit, Track},
};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use touchline_client::{Client, Device, DeviceOptions, Event, Frame, Message, SyncCause, Trouble};
use touchline_ids::{ChannelId, Seq, UserId};

/// Each channel begins with its newest message: what was there before the load is nobody's concern.
const RECENT: u32 = 1;
/// A slow device reads for so long …
const READS: Duration = Duration::from_millis(100);
/// … and then rests, at most.
const RESTS: Duration = Duration::from_secs(4);
/// Before one that calls an api may rest.
const SOON: Duration = Duration::from_millis(50);
/// An answer is waited for so long, the wait for a place included.
const PATIENCE: Duration = Duration::from_secs(60);
/// Saying goodbye may take this long.
const GOODBYE: Duration = Duration::from_secs(2);

/// Up to where each user's devices must come in the end.
pub(crate) type Targets = HashMap<UserId, Vec<(ChannelId, Seq)>>;

/// What the devices are asked to do.
#[derive(Debug, Clone, Default)]
pub(crate) enum Phase {
    /// Behave as your kind does.
    #[default]
    Load,
    /// Everybody comes back and reads, up to here.
    Settle(Arc<Targets>),
    /// Say goodbye.
    End,
}

/// One device at work.
struct Listener {
    board: Arc<Board>,
    at: usize,
    user: UserId,
    device: Device,
    tracks: HashMap<ChannelId, Track>,
    phase: watch::Receiver<Phase>,
    targets: Option<Arc<Targets>>,
    rng: SmallRng,
    /// When its kind does something next.
    turn: Option<Instant>,
    reads: bool,
}

/// Connects the device of this seat after `delay` and listens until the end.
pub(crate) async fn listen(
    board: Arc<Board>,
    at: usize,
    client: Client,
    mut phase: watch::Receiver<Phase>,
    delay: Duration,
) -> Seen {
    let seat = &board.seats[at];
    let user = if seat.is_canary { &board.plan.canaries[seat.user] } else { &board.plan.users[seat.user] };
    let (id, from_start) = (user.id, seat.kind != Kind::Absent);
    let absent = async |phase: &mut watch::Receiver<Phase>| {
        if !from_start {
            let _ = phase.wait_for(|phase| !matches!(phase, Phase::Load)).await;
        }
        sleep(delay).await;
    };
    absent(&mut phase).await;
    let options = DeviceOptions {
        recent: RECENT,
        raw: true,
        renewal: user.renewal.clone(),
        // In a storm they wait for a place first.
        patience: PATIENCE,
        ..DeviceOptions::new(format!("{}-{}", board.run, seat.name).parse().expect("made of letters and digits"))
    };
    let rng = SmallRng::seed_from_u64(board.plan.seed ^ (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let device = Device::start(client.as_user(&user.access_token), options);
    let (board, tracks) = (Arc::clone(&board), HashMap::new());
    let (targets, turn, reads) = (None, None, true);
    let listener = Listener { board, at, user: id, device, tracks, phase, targets, rng, turn, reads };
    listener.run(from_start).await
}

impl Listener {
    async fn run(mut self, from_start: bool) -> Seen {
        self.phase.mark_changed();
        loop {
            let turn = self.turn;
            let its_turn = async {
                match turn {
                    Some(turn) => sleep_until(turn).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.phase.changed() => {
                    let phase = self.phase.borrow_and_update().clone();
                    match phase {
                        _ if changed.is_err() => break,
                        Phase::Load => {}
                        Phase::Settle(targets) => self.settle(targets),
                        Phase::End => break,
                    }
                }
                event = self.device.next(), if self.reads => match event {
                    Some(event) => self.take(event),
                    None => self.reads = false,
                },
                () = its_turn => self.act(),
            }
        }
        let device = self.seat().name.clone();
        self.seat().set_online(false);
        let _ = timeout(GOODBYE, self.device.close()).await;
        Seen { device, user: self.user, tracks: self.tracks, from_start }
    }

    fn seat(&self) -> &Seat {
        &self.board.seats[self.at]
    }

    /// No more games: read, and stay.
    fn settle(&mut self, targets: Arc<Targets>) {
        self.targets = Some(targets);
        self.turn = None;
        self.reads = !self.seat().ended.load(Ordering::Relaxed);
        self.check_targets();
    }

    fn check_targets(&self) {
        let Some(targets) = &self.targets else { return };
        let reached = |(channel, head): &(ChannelId, Seq)| {
            let track = self.tracks.get(channel).filter(|track| track.follows());
            track.and_then(|track| track.runs().last()).is_some_and(|run| run.last >= *head)
        };
        if targets.get(&self.user).is_none_or(|targets| targets.iter().all(reached)) {
            self.seat().at_head.store(true, Ordering::Relaxed);
        }
    }

    /// What its kind does now and then.
    fn act(&mut self) {
        let now = Instant::now();
        match self.seat().kind {
            Kind::Steady | Kind::Absent => self.turn = None,
            // It would keep its place from the others.
            Kind::Slow | Kind::HalfOpen if self.reads && self.device.is_calling() => self.turn = Some(now + SOON),
            Kind::Flappy => {
                self.device.cut();
                self.turn = Some(now + self.moment(self.board.plan.devices.flap_within));
            }
            // A device that nobody asks does nothing at all: no reading, no answering, no ack.
            Kind::Slow => {
                self.reads = !self.reads;
                self.turn = Some(now + if self.reads { READS } else { self.moment(RESTS) });
            }
            Kind::HalfOpen => {
                self.reads = false;
                self.turn = None;
            }
        }
    }

    /// A random part of it, but not too short a one.
    fn moment(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.random_range(0.1..1.0))
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Wire(Frame::Message(message)) => self.came(&message),
            Event::Message(message) => self.show(&message),
            Event::Reset { channel_id, held, .. } => {
                let track = self.tracks.entry(channel_id).or_default();
                if held.is_some() && track.reset() {
                    count(&self.board.counts.resets);
                }
            }
            Event::Gone(channel) => {
                self.tracks.entry(channel).or_default().gone();
                self.seat().gone(channel);
            }
            Event::Online { .. } => {
                self.seat().set_online(true);
                count(&self.board.counts.connects);
            }
            Event::CaughtUp { cause: SyncCause::Ready, took } => self.caught_up(took),
            Event::Offline { why, .. } => self.went_offline(&why),
            Event::SyncFailed { why, .. } => self.board.trouble(why.to_string()),
            Event::Ended(why) => {
                let seat = self.seat();
                seat.set_online(false);
                seat.ended.store(true, Ordering::Relaxed);
                self.board.trouble(format!("{} ended: {why}", seat.name));
            }
            Event::CaughtUp { .. } | Event::Complaint { .. } | Event::Wire(_) => {}
        }
    }

    fn went_offline(&self, why: &Trouble) {
        let (board, seat) = (&self.board, self.seat());
        seat.set_online(false);
        if seat.kind == Kind::Steady {
            count(&board.counts.disconnects);
            if let Some(fault) = board.faults.at(board.clock.now()) {
                count(&fault.disconnects);
            }
            board.ended_because(why.to_string());
            board.trouble(why.to_string());
        }
    }

    fn caught_up(&mut self, took: Duration) {
        if self.seat().settled.swap(true, Ordering::Relaxed) {
            self.board.resume.record(micros(took));
        } else if self.targets.is_none() && self.seat().kind != Kind::Steady {
            self.turn = Some(Instant::now() + self.moment(self.board.plan.devices.flap_within));
        }
        self.check_targets();
    }

    /// A message frame, as it came.
    fn came(&mut self, message: &Message) {
        count(&self.board.counts.frames);
        let newest = self.tracks.get(&message.channel_id).and_then(|track| track.runs().last());
        if newest.is_some_and(|run| message.seq <= run.last) {
            count(&self.board.counts.repeated);
        }
        let seat = self.seat();
        if seat.is_canary {
            let (name, channel, seq) = (&seat.name, message.channel_id, message.seq);
            self.board.broke(Broke::Canary, || format!("{channel}/{seq} reached {name}"));
        }
    }

    /// A message as the application gets it.
    fn show(&mut self, message: &Message) {
        let board = &*self.board;
        let (seat, now) = (&board.seats[self.at], board.clock.now());
        let Message { channel_id: channel, seq, .. } = *message;
        count(&board.counts.shown);
        let where_shown = || format!("{channel}/{seq} at {}", seat.name);
        if seat.is_canary {
            board.broke(Broke::Canary, where_shown);
            return;
        }
        if !board.has(channel) {
            board.broke(Broke::Foreign, where_shown);
            return;
        }
        let fit = self.tracks.entry(channel).or_default().show(seq);
        match fit {
            Fit::Next | Fit::Ahead => seat.showed(channel, seq),
            Fit::Late => board.broke(Broke::OutOfOrder, where_shown),
            Fit::Again => board.broke(Broke::Duplicated, where_shown),
        }
        let text = text::read(&message.content, &board.run);
        let said = agree(board, seat, message.into(), text.map(|text| text.number));
        if let Some(text) = text.filter(|_| seat.kind == Kind::Steady && fit != Fit::Again) {
            let took = now.saturating_sub(text.sent);
            board.delivery.record(took);
            board.after_answer.record(if said == 0 { 0 } else { now.saturating_sub(said) });
            if let Some(fault) = board.faults.at(text.sent) {
                fault.times.record(took);
            }
        }
        seat.last_shown.store(now, Ordering::Relaxed);
        self.check_targets();
    }
}

/// Holds a sighting against what others said; gives when its sender was answered.
fn agree(board: &Board, seat: &Seat, sighting: Sighting, number: Option<u64>) -> u64 {
    let mut said = board.ledger.shown(sighting, number);
    if !said.agrees && board.plan.resets_expected {
        // The log lost its tail and gave the position again: from now on this stands there.
        board.ledger.forget(sighting.channel, sighting.seq);
        said = board.ledger.shown(sighting, number);
    }
    if !said.agrees {
        let example = || format!("{}/{} at {} differs from elsewhere", sighting.channel, sighting.seq, seat.name);
        board.broke(Broke::Conflicting, example);
    }
    said.answered
}
