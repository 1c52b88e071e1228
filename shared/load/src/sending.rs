//! The senders: a pace, and for each message the tries until it is known what became of it.

use crate::{
    board::{Board, count},
    judge::{End, Outcome},
    plan::Pace,
    text::{self, Text},
};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until, timeout},
};
use touchline_client::{Client, ClientError, NewMessage, Sent};
use touchline_ids::{ChannelId, MessageId, Seq};
use touchline_mesh::Shutdown;

/// An answer that takes longer is none: the outcome is unknown.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest first rest before a try is repeated; it doubles.
const REST: Duration = Duration::from_millis(100);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// Who sends, and to where.
pub(crate) struct Senders {
    board: Arc<Board>,
    /// One per api, as nobody.
    apis: Vec<Client>,
    next_api: AtomicUsize,
}

/// One message on its way.
struct Message {
    number: u64,
    channel: ChannelId,
    sender: usize,
    new: NewMessage,
    sent: u64,
    again: bool,
}

/// What one try came to.
enum Try {
    Accepted(Sent),
    /// Not stored, and it will not be by repeating.
    Refused(ClientError),
    /// Not stored; later perhaps.
    Later(Duration),
    Unknown,
}

impl Senders {
    pub(crate) fn new(board: Arc<Board>, apis: Vec<Client>) -> Self {
        Self { board, apis, next_api: AtomicUsize::new(0) }
    }

    /// Sends at the plan's pace until `life` stops or the plan's time is over; returns when everything is answered.
    pub(crate) async fn run(self: Arc<Self>, life: Shutdown) {
        let (plan, start) = (&self.board.plan, Instant::now());
        let end = plan.duration.map(|duration| start + duration);
        let over = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let tasks = life.child();
        tokio::select! {
            () = self.pace(start, &tasks) => {}
            () = over => {}
            () = life.stopping() => {}
        }
        // Each ends by its own patience; a hard stop of `life` is passed on to them.
        tasks.wait(plan.sending.patience + ANSWER * 2).await;
    }

    async fn pace(self: &Arc<Self>, start: Instant, tasks: &Shutdown) {
        let sending = &self.board.plan.sending;
        let mut rng = SmallRng::seed_from_u64(self.board.plan.seed);
        let places = match sending.pace {
            Pace::Closed(at_a_time) => at_a_time,
            Pace::Even(_) | Pace::Poisson(_) => sending.in_flight,
        };
        let places = Arc::new(Semaphore::new(places.max(1)));
        let mut due = 0.0;
        for number in 0.. {
            let place = match sending.pace {
                Pace::Closed(_) => Arc::clone(&places).acquire_owned().await.ok(),
                Pace::Even(rate) | Pace::Poisson(rate) => {
                    sleep_until(start + Duration::from_secs_f64(due)).await;
                    let distance = 1.0 / rate;
                    let is_even = matches!(sending.pace, Pace::Even(_));
                    due += if is_even { distance } else { -(1.0 - rng.random::<f64>()).ln() * distance };
                    Arc::clone(&places).try_acquire_owned().ok()
                }
            };
            match place {
                Some(place) => self.begin(number, &mut rng, place, tasks),
                None => count(&self.board.counts.dropped),
            }
        }
    }

    fn begin(self: &Arc<Self>, number: u64, rng: &mut SmallRng, place: OwnedSemaphorePermit, tasks: &Shutdown) {
        let plan = &self.board.plan;
        let channel = &plan.channels[rng.random_range(0..plan.channels.len())];
        let senders = channel.members.iter().filter(|member| **member < plan.sending.senders).count();
        let chosen = rng.random_range(0..senders.max(1));
        let sender = channel.members.iter().filter(|member| **member < plan.sending.senders).nth(chosen);
        let sender = *sender.unwrap_or(&channel.members[0]);
        let again = rng.random_bool(plan.sending.twice.clamp(0.0, 1.0));
        let (this, channel) = (Arc::clone(self), channel.id);
        tasks.spawn(async move {
            this.send(number, channel, sender, again).await;
            drop(place);
        });
    }

    async fn send(&self, number: u64, channel: ChannelId, sender: usize, again: bool) {
        let board = &self.board;
        let sent = board.clock.now();
        let content = text::write(&board.run, Text { number, sent }, board.plan.sending.text_bytes);
        let id = format!("{}-{number}", board.run).parse().expect("made of letters and digits");
        let new = NewMessage { client_message_id: id, content, no_push: false, mentions: Vec::new() };
        let message = Message { number, channel, sender, new, sent, again };
        count(&board.counts.messages);
        let end = self.until_known(&message).await;
        count(match end {
            End::Accepted { .. } => &board.counts.accepted,
            End::Refused => &board.counts.refused,
            End::Unresolved => &board.counts.unresolved,
        });
        board.ended(Outcome { number, channel, end });
        if let End::Accepted { seq, message: id, .. } = end
            && message.again
        {
            self.send_again(&message, seq, id).await;
        }
    }

    /// Tries until it is known what became of the message, or patience ends.
    async fn until_known(&self, message: &Message) -> End {
        let board = &self.board;
        let deadline = Instant::now() + board.plan.sending.patience;
        let (mut unknown, mut rest, mut tries) = (false, REST, 0);
        loop {
            tries += 1;
            board.counts.most_tries.fetch_max(tries, Ordering::Relaxed);
            let wait = match self.attempt(message).await {
                Try::Accepted(sent) => return self.accepted(message, &sent, unknown),
                // What an earlier try did is not undone by it.
                Try::Refused(why) => {
                    board.trouble(format!("a send was refused: {why}"));
                    return if unknown { End::Unresolved } else { End::Refused };
                }
                Try::Later(wait) => {
                    count(&board.counts.deferred);
                    wait
                }
                Try::Unknown => {
                    count(&board.counts.unknown);
                    unknown = true;
                    Duration::ZERO
                }
            };
            let wait = wait + rest.mul_f64(rand::rng().random());
            rest = (rest * 2).min(LONGEST_REST);
            if Instant::now() + wait > deadline {
                return if unknown { End::Unresolved } else { End::Refused };
            }
            sleep(wait).await;
        }
    }

    fn accepted(&self, message: &Message, sent: &Sent, unknown: bool) -> End {
        let (board, answered) = (&self.board, self.board.clock.now());
        board.answer.record(answered.saturating_sub(message.sent));
        board.answered(sent.into(), message.number, answered);
        if unknown {
            count(&board.counts.resolved);
        }
        End::Accepted { seq: sent.seq, message: sent.message_id, sent: message.sent, answered }
    }

    /// A double tap: it must come to the same place.
    async fn send_again(&self, message: &Message, seq: Seq, id: MessageId) {
        count(&self.board.counts.twice);
        if let Try::Accepted(sent) = self.attempt(message).await {
            let same = (sent.seq, sent.message_id) == (seq, id);
            if !same {
                let number = message.number;
                let example = || format!("number {number} is at {seq}, and at {} when it was repeated", sent.seq);
                self.board.broke(crate::findings::Kind::TwiceInLog, example);
            }
        }
    }

    async fn attempt(&self, message: &Message) -> Try {
        let board = &self.board;
        count(&board.counts.attempts);
        let api = &self.apis[self.next_api.fetch_add(1, Ordering::Relaxed) % self.apis.len()];
        let client = api.as_user(&board.token(message.sender));
        let error = match timeout(ANSWER, client.send(message.channel, &message.new)).await {
            Ok(Ok(sent)) => {
                if sent.duplicate {
                    count(&board.counts.duplicates);
                }
                return Try::Accepted(sent);
            }
            Ok(Err(error)) => error,
            Err(_) => return Try::Unknown,
        };
        match &error {
            // It never left.
            ClientError::NoAnswer(why) if why.is_connect() => return Try::Later(Duration::ZERO),
            error if error.is_unknown() => return Try::Unknown,
            _ => {}
        }
        if let Some(refusal) = error.refusal().filter(|refusal| refusal.is_temporary()) {
            return Try::Later(refusal.retry_after.unwrap_or_default());
        }
        if error.status() == Some(401) && board.renew(message.sender).await {
            return Try::Later(Duration::ZERO);
        }
        Try::Refused(error)
    }
}
