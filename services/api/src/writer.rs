//! The one writer task of an api: it collects sends into micro-batches, so that one commit serves up to 64 of them,
//! and hands what was committed to the fan-out in log order.
//!
//! It never waits for a batch to fill: while one batch commits the next one collects, which batches exactly as much
//! as the load needs and adds no delay to a lone send.

use crate::{claims::Claims, error::Error};
use std::{mem, sync::Arc};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};
use touchline_ids::{ChannelId, MessageId, Seq};
use touchline_mesh::Shutdown;
use touchline_storage::{
    Appended, Changed, ChannelChange, CreateChannel, Entry, MemberCache, Members, NewChannel, NewMessage, Storage,
    StorageError,
};

/// Most sends in one transaction.
const BATCH: usize = 64;

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

type Reply<T> = oneshot::Sender<Result<T, Error>>;

enum Command {
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
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => Error::Unavailable { what: "too many sends are waiting" },
            TrySendError::Closed(_) => Error::Unavailable { what: "this server is stopping" },
        })?;
        // The task was stopped hard with the command in its hands: it may have committed.
        answer.await.map_err(|_| Error::Timeout)?
    }
}

/// The task behind [`Writer`].
pub struct WriterTask {
    storage: Storage,
    /// Who owns the outbox rows it writes.
    claims: Arc<Claims>,
    max_members: usize,
    members: MemberCache,
    commands: mpsc::Receiver<Command>,
    fan_out: mpsc::Sender<Stored>,
}

/// A writer and its task; `fan_out` gets what was committed, in log order per channel.
pub fn writer(
    storage: Storage,
    claims: Arc<Claims>,
    max_members: usize,
    queue: usize,
    fan_out: mpsc::Sender<Stored>,
) -> (Writer, WriterTask) {
    let (queue, commands) = mpsc::channel(queue);
    let task = WriterTask { storage, claims, max_members, members: MemberCache::default(), commands, fan_out };
    (Writer { queue }, task)
}

impl WriterTask {
    /// Works until the stop, then through what is queued already.
    pub async fn run(mut self, shutdown: &Shutdown) {
        let mut stopping = std::pin::pin!(shutdown.stopping());
        let mut commands = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                () = &mut stopping, if !self.commands.is_closed() => self.commands.close(),
                received = self.commands.recv_many(&mut commands, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    self.carry_out(&mut commands).await;
                }
            }
        }
    }

    /// Carries commands out in order: runs of sends as one batch, everything else in a transaction of its own.
    async fn carry_out(&mut self, commands: &mut Vec<Command>) {
        let mut sends = Vec::with_capacity(commands.len());
        for command in commands.drain(..) {
            match command {
                Command::Send { message, traceparent, reply } => sends.push((message, traceparent, reply)),
                Command::Change { change, traceparent, reply } => {
                    self.append(mem::take(&mut sends)).await;
                    self.change(change, traceparent, reply).await;
                }
                Command::Create { channel, traceparent, reply } => {
                    self.append(mem::take(&mut sends)).await;
                    self.create(channel, traceparent, reply).await;
                }
                #[cfg(test)]
                Command::Panic => panic!("as a bug would"),
            }
        }
        self.append(sends).await;
    }

    async fn append(&mut self, sends: Vec<(NewMessage, String, Reply<Receipt>)>) {
        if sends.is_empty() {
            return;
        }
        let (messages, waiting): (Vec<_>, Vec<_>) =
            sends.into_iter().map(|(message, traceparent, reply)| (message, (traceparent, reply))).unzip();
        let batch = self.storage.append(messages.clone(), self.claims.owner(), &mut self.members).await;
        self.note(&batch);
        fail::fail_point!("after_commit", batch.is_ok(), |_| std::process::abort());
        let stored: Vec<_> = match batch {
            Ok(appended) => {
                let answers = appended.into_iter().zip(waiting);
                answers.filter_map(|(appended, (traceparent, reply))| answer(appended, traceparent, reply)).collect()
            }
            // One message the database refuses must not fail its neighbours: each is tried by itself.
            Err(StorageError::Database(error)) if messages.len() > 1 => {
                tracing::warn!(batch.size = messages.len(), %error, "batch refused, trying each send by itself");
                let mut stored = Vec::new();
                for (message, (traceparent, reply)) in messages.into_iter().zip(waiting) {
                    let alone = self.storage.append(vec![message], self.claims.owner(), &mut self.members).await;
                    self.note(&alone);
                    match alone.map(|mut appended| appended.pop()) {
                        Ok(Some(appended)) => stored.extend(answer(appended, traceparent, reply)),
                        Ok(None) => drop(reply),
                        Err(error) => drop(reply.send(Err(error.into()))),
                    }
                }
                stored
            }
            Err(error) => {
                tracing::warn!(batch.size = messages.len(), %error, "batch not stored");
                for (_, reply) in waiting {
                    let _ = reply.send(Err(Error::of_batch(&error)));
                }
                return;
            }
        };
        // Only now that everybody has an answer: this may wait.
        for stored in stored {
            self.hand_on(stored).await;
        }
    }

    async fn change(&mut self, change: ChannelChange, traceparent: String, reply: Reply<Changed>) {
        let owner = self.claims.owner();
        let changed = self.storage.change_channel(change, owner, &mut self.members, self.max_members).await;
        self.note(&changed);
        let stored = match &changed {
            Ok(Changed::Stored { entry, members }) => Some((entry.clone(), Arc::clone(members))),
            _ => None,
        };
        let _ = reply.send(changed.map_err(Into::into));
        if let Some((entry, members)) = stored {
            self.hand_on(Stored { entry, members, notify: false, traceparent }).await;
        }
    }

    async fn create(&mut self, channel: NewChannel, traceparent: String, reply: Reply<CreateChannel>) {
        let created = self.storage.create_channel(channel, self.claims.owner()).await;
        self.note(&created);
        let stored = match &created {
            Ok(CreateChannel::Created { entry, members, .. }) => Some((entry.clone(), Arc::clone(members))),
            _ => None,
        };
        let _ = reply.send(created.map_err(Into::into));
        if let Some((entry, members)) = stored {
            self.hand_on(Stored { entry, members, notify: false, traceparent }).await;
        }
    }

    /// What may have been committed without our knowing is not ours to fan out.
    fn note<T>(&self, result: &Result<T, StorageError>) {
        if let Err(StorageError::InDoubt(_)) = result {
            self.claims.doubt();
        }
    }

    /// A full fan-out holds the writer back, and so the senders: that is the back-pressure.
    async fn hand_on(&self, stored: Stored) {
        let (channel_id, seq): (ChannelId, Seq) = (stored.entry.channel_id, stored.entry.seq);
        if self.fan_out.send(stored).await.is_err() {
            // Its outbox row stays, and another api will take it.
            tracing::warn!(channel.id = %channel_id, message.seq = %seq, "stopped before the fan-out");
        }
    }
}

/// Answers one send; what was stored now is returned, to be handed on.
fn answer(appended: Appended, traceparent: String, reply: Reply<Receipt>) -> Option<Stored> {
    let (answer, stored) = match appended {
        Appended::Stored { entry, members, no_push } => {
            let (seq, message_id, created_at_ms) = (entry.seq, entry.message_id, entry.created_at_ms);
            let stored = Stored { entry, members, notify: !no_push, traceparent };
            (Ok(Receipt { seq, message_id, created_at_ms, duplicate: false }), Some(stored))
        }
        Appended::Duplicate { seq, message_id, created_at_ms } => {
            (Ok(Receipt { seq, message_id, created_at_ms, duplicate: true }), None)
        }
        Appended::Conflict => (Err(Error::ClientMessageIdReused), None),
        Appended::NotAMember => (Err(Error::NoSuchChannel), None),
    };
    // The caller may be gone; the message is stored all the same.
    let _ = reply.send(answer);
    stored
}

#[cfg(test)]
mod tests {
    use super::*;
    use touchline_ids::UserId;
    use touchline_storage::{NewUser, Settings};

    async fn storage(folder: &tempfile::TempDir) -> Storage {
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        let storage = Storage::connect(&Settings { url, max_connections: 1 }).await.unwrap();
        storage.migrate_up().await.unwrap();
        storage
    }

    fn message(channel_id: ChannelId, sender_id: UserId, name: &str) -> NewMessage {
        NewMessage {
            channel_id,
            sender_id,
            client_message_id: name.parse().unwrap(),
            content: "\"hi\"".to_owned(),
            body_hash: [0; 32],
            no_push: false,
            message_id: MessageId::new(),
            created_at_ms: 1,
        }
    }

    #[tokio::test]
    async fn every_send_of_a_batch_is_answered_while_the_fan_out_is_full() {
        let (folder, life) = (tempfile::tempdir().unwrap(), Shutdown::new());
        let storage = storage(&folder).await;
        let (owner, id) = (UserId::new(), ChannelId::new());
        let user = NewUser {
            id: owner,
            handle: "ann".to_owned(),
            display_name: "Ann".to_owned(),
            password_hash: None,
            external: None,
            created_at_ms: 1,
        };
        storage.create_user(user).await.unwrap();
        let (fan_out, mut stored) = mpsc::channel(1);
        let (writer, task) = writer(storage, Arc::default(), 10, 10, fan_out);
        let inside = life.clone();
        life.spawn(async move { task.run(&inside).await });
        let channel = NewChannel {
            id,
            name: "a channel".to_owned(),
            owner,
            member_ids: vec![],
            message_id: MessageId::new(),
            created_at_ms: 1,
        };
        writer.create(channel, String::new()).await.unwrap();
        assert_eq!(stored.recv().await.unwrap().entry.seq, Seq(1));

        // On one thread all four are queued before the writer takes them, as one batch. Nobody takes what it hands on.
        let sends = ["1", "2", "3", "4"].map(|name| writer.send(message(id, owner, name), String::new()));
        let receipts = futures_util::future::join_all(sends);
        let receipts = tokio::time::timeout(std::time::Duration::from_secs(20), receipts).await.expect("four answers");
        let seqs: Vec<_> = receipts.into_iter().map(|receipt| receipt.unwrap().seq.0).collect();
        assert_eq!(seqs, [2, 3, 4, 5]);
        for seq in seqs {
            assert_eq!(stored.recv().await.unwrap().entry.seq.0, seq, "handed on in order");
        }
        life.stop();
        life.wait(std::time::Duration::from_secs(20)).await;
    }
}
