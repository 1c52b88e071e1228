//! The one writer task of an api: it collects sends into micro-batches, so that one commit serves up to 64 of them,
//! and hands what was committed to the fan-out in log order.
//!
//! It never waits for a batch to fill: while one batch commits the next one collects, which batches exactly as much
//! as the load needs and adds no delay to a lone send. Nor does it wait for a channel's lock: what is for a locked
//! channel is passed over, and waits in a line of its own when the lock lasts ([`crate::lines`]).

use crate::{error::Error, lines::Lines, store::Store};
use std::{collections::HashMap, mem, sync::Arc, time::Duration};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::Instant,
};
use touchline_ids::{ChannelId, MessageId, Seq};
use touchline_mesh::Shutdown;
use touchline_storage::{Changed, ChannelChange, CreateChannel, Entry, Members, NewChannel, NewMessage, WhenLocked};

/// Most sends in one transaction.
const BATCH: usize = 64;
/// How long another api's batch holds a channel at most, about; whoever holds it longer is not waited for.
const SHORT_LOCK: Duration = Duration::from_millis(20);
/// Between tries of what was passed over, while nothing else is to do.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Most commands that are tried again with the next batch.
const PASSED_OVER: usize = 32;
/// How long a command may have waited when its batch is begun. Most requests are then answered before they are given up
/// after 10 s, when nobody would know what became of them.
const PATIENCE: Duration = Duration::from_secs(4);

/// What became of a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its position in the channel's log.
    pub seq: Seq,
    /// Its id.
    pub message_id: MessageId,
    /// When it was stored first, Unix milliseconds.
    pub created_at_ms: i64,
    /// Whether it had been stored before.
    pub duplicate: bool,
}

/// A committed entry on its way to its recipients.
pub struct Stored {
    /// The entry.
    pub entry: Entry,
    /// The members at its seq.
    pub members: Arc<Members>,
    /// Whether who is missed gets a notification.
    pub notify: bool,
    /// The sending request's trace context; may be empty.
    pub traceparent: String,
}

/// Where the answer to a command goes.
pub(crate) struct Reply<T> {
    to: oneshot::Sender<Result<T, Error>>,
    /// When it was asked for.
    asked: Instant,
}

impl<T> Reply<T> {
    /// One that is asked for now, and its answer.
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<T, Error>>) {
        let (to, answer) = oneshot::channel();
        (Self { to, asked: Instant::now() }, answer)
    }

    /// Answers, if somebody still waits for it.
    pub(crate) fn send(self, answer: Result<T, Error>) {
        let _ = self.to.send(answer);
    }
}

/// What the writer is asked to do.
pub(crate) enum Command {
    Send {
        message: NewMessage,
        traceparent: String,
        reply: Reply<Receipt>,
    },
    Change {
        change: ChannelChange,
        traceparent: String,
        reply: Reply<Changed>,
    },
    Create {
        channel: NewChannel,
        traceparent: String,
        reply: Reply<CreateChannel>,
    },
    /// Fail as a bug would make it.
    #[cfg(test)]
    Panic,
}

/// The way into the writer; clones share it.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Command>,
}

impl Writer {
    /// Stores a message: when this returns, it is committed.
    ///
    /// # Errors
    /// `Unavailable` when the queue is full or the database is away (nothing was stored), `NoSuchChannel` when the
    /// sender is not a member, `ClientMessageIdReused` when the id was used for another body.
    pub async fn send(&self, message: NewMessage, traceparent: String) -> Result<Receipt, Error> {
        self.ask(|reply| Command::Send { message, traceparent, reply }).await
    }

    /// Changes a channel: its name, members or roles.
    ///
    /// # Errors
    /// As [`send`](Self::send); what the rules refuse is in the answer.
    pub async fn change(&self, change: ChannelChange, traceparent: String) -> Result<Changed, Error> {
        self.ask(|reply| Command::Change { change, traceparent, reply }).await
    }

    /// Creates a channel with its first members.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn create(&self, channel: NewChannel, traceparent: String) -> Result<CreateChannel, Error> {
        self.ask(|reply| Command::Create { channel, traceparent, reply }).await
    }

    /// Makes the task panic.
    #[cfg(test)]
    pub async fn panic(&self) {
        self.queue.send(Command::Panic).await.expect("the task runs");
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = Reply::new();
        self.queue.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => Error::Unavailable { what: "too many sends are waiting" },
            TrySendError::Closed(_) => Error::Unavailable { what: "this server is stopping" },
        })?;
        // The task was stopped hard with the command in its hands: it may have committed.
        answer.await.map_err(|_| Error::Timeout)?
    }
}

impl Command {
    /// The channel whose lock it needs.
    pub(crate) fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Send { message, .. } => Some(message.channel_id),
            Self::Change { change, .. } => Some(change.channel_id),
            // Nobody else knows the channel.
            Self::Create { .. } => None,
            #[cfg(test)]
            Self::Panic => None,
        }
    }

    /// Answers that it was not done.
    pub(crate) fn refuse(self, error: Error) {
        match self {
            Self::Send { reply, .. } => reply.send(Err(error)),
            Self::Change { reply, .. } => reply.send(Err(error)),
            Self::Create { reply, .. } => reply.send(Err(error)),
            #[cfg(test)]
            Self::Panic => {}
        }
    }

    /// How long ago it was asked for.
    pub(crate) fn waited(&self) -> Duration {
        match self {
            Self::Send { reply, .. } => reply.asked.elapsed(),
            Self::Change { reply, .. } => reply.asked.elapsed(),
            Self::Create { reply, .. } => reply.asked.elapsed(),
            #[cfg(test)]
            Self::Panic => Duration::ZERO,
        }
    }

    /// Gives itself back, unless it has waited for so long that it is refused.
    fn in_time(self) -> Option<Self> {
        if self.waited() <= PATIENCE {
            return Some(self);
        }
        self.refuse(Error::Unavailable { what: "too many sends are waiting" });
        None
    }
}

/// The task behind [`Writer`].
pub struct WriterTask {
    store: Arc<Store>,
    commands: mpsc::Receiver<Command>,
}

/// A writer and its task, which carries out what is asked by `store`.
pub fn writer(store: Store, queue: usize) -> (Writer, WriterTask) {
    let (queue, commands) = mpsc::channel(queue);
    (Writer { queue }, WriterTask { store: Arc::new(store), commands })
}

/// Commands for a channel that another api just has locked, and since when.
#[derive(Default)]
struct PassedOver {
    commands: Vec<Command>,
    since: HashMap<ChannelId, Instant>,
}

impl WriterTask {
    /// Works until the stop, then through what is queued already.
    pub async fn run(self, shutdown: &Shutdown) {
        let Self { store, mut commands } = self;
        let mut stopping = std::pin::pin!(shutdown.stopping());
        let mut lines = Lines::new(Arc::clone(&store), shutdown.clone());
        let mut received = Vec::with_capacity(BATCH);
        let mut passed_over = PassedOver::default();
        let mut open = true;
        while open || !passed_over.commands.is_empty() {
            tokio::select! {
                biased;
                () = &mut stopping, if !commands.is_closed() => commands.close(),
                idle = lines.idle() => lines.end(&idle),
                count = commands.recv_many(&mut received, BATCH), if open => open = count > 0,
                () = tokio::time::sleep(LOOK_AGAIN), if !passed_over.commands.is_empty() => {}
            }
            // Those that wait already go first.
            let batch: Vec<_> = mem::take(&mut passed_over.commands)
                .into_iter()
                .chain(received.drain(..))
                .filter_map(|command| lines.follow(command).and_then(Command::in_time))
                .collect();
            if !batch.is_empty() {
                let undone = store.carry_out(batch, WhenLocked::PassOver).await;
                passed_over.keep(undone, &mut lines);
            }
        }
        lines.finish().await;
    }
}

impl PassedOver {
    /// Keeps commands for the next look, or has them wait in a line when the lock is not one of the short ones that
    /// every batch of another api takes, or so many wait for it that they would fill every batch.
    fn keep(&mut self, undone: Vec<Command>, lines: &mut Lines) {
        let now = Instant::now();
        let crowded = undone.len() > PASSED_OVER;
        let mut since = HashMap::new();
        for command in undone {
            let Some(channel) = command.channel() else { continue };
            let first = self.since.get(&channel).copied().unwrap_or(now);
            if crowded || now - first >= SHORT_LOCK {
                lines.wait(command);
            } else {
                since.insert(channel, first);
                self.commands.push(command);
            }
        }
        self.since = since;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{channel, database, message, user};
    use touchline_ids::UserId;

    /// A writer with room for one message in its fan-out, and a channel of its owner alone.
    async fn writer_with_channel(
        folder: &tempfile::TempDir,
        life: &Shutdown,
    ) -> (Writer, mpsc::Receiver<Stored>, ChannelId, UserId) {
        let (storage, _) = database(folder.path()).await;
        let owner = user(&storage).await;
        let (fan_out, mut stored) = mpsc::channel(1);
        let (writer, task) = writer(Store::new(storage, Arc::default(), 10, fan_out), 10);
        let inside = life.clone();
        life.spawn(async move { task.run(&inside).await });
        let channel = channel(owner);
        let id = channel.id;
        writer.create(channel, String::new()).await.unwrap();
        assert_eq!(stored.recv().await.unwrap().entry.seq, Seq(1));
        (writer, stored, id, owner)
    }

    #[tokio::test]
    async fn every_send_of_a_batch_is_answered_while_the_fan_out_is_full() {
        let (folder, life) = (tempfile::tempdir().unwrap(), Shutdown::new());
        let (writer, mut stored, id, owner) = writer_with_channel(&folder, &life).await;
        // On one thread all four are queued before the writer takes them, as one batch. Nobody takes what it hands on.
        let sends = ["1", "2", "3", "4"].map(|name| writer.send(message(id, owner, name), String::new()));
        let receipts = futures_util::future::join_all(sends);
        let receipts = tokio::time::timeout(std::time::Duration::from_secs(20), receipts).await.expect("four answers");
        let seqs: Vec<_> = receipts.into_iter().map(|receipt| receipt.unwrap().seq.0).collect();
        assert_eq!(seqs, [2, 3, 4, 5]);
        let mut another = std::pin::pin!(writer.send(message(id, owner, "5"), String::new()));
        let answered = tokio::time::timeout(std::time::Duration::from_millis(200), &mut another).await;
        assert!(answered.is_err(), "the writer waits, and so do the next senders");
        for seq in seqs {
            assert_eq!(stored.recv().await.unwrap().entry.seq.0, seq, "handed on in order");
        }
        assert_eq!(another.await.unwrap().seq, Seq(6));
        life.stop();
        life.wait(std::time::Duration::from_secs(20)).await;
    }

    #[tokio::test]
    async fn a_send_that_has_waited_for_too_long_is_refused_and_not_stored() {
        let (folder, life) = (tempfile::tempdir().unwrap(), Shutdown::new());
        let (writer, mut stored, id, owner) = writer_with_channel(&folder, &life).await;
        // Nobody takes what it hands on, so that it stands still.
        writer.send(message(id, owner, "1"), String::new()).await.unwrap();
        writer.send(message(id, owner, "2"), String::new()).await.unwrap();
        let late = writer.send(message(id, owner, "3"), String::new());
        let time_passes = async {
            tokio::time::pause();
            tokio::time::advance(PATIENCE + Duration::from_secs(1)).await;
            tokio::time::resume();
            stored.recv().await.unwrap();
            stored.recv().await.unwrap();
        };
        let (late, ()) = tokio::join!(late, time_passes);
        assert!(matches!(late, Err(Error::Unavailable { .. })), "{late:?}");
        assert_eq!(writer.send(message(id, owner, "4"), String::new()).await.unwrap().seq, Seq(4));
        life.stop();
        life.wait(std::time::Duration::from_secs(20)).await;
    }
}
