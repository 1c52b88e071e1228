//! Carrying out what the writer collected: one transaction for a run of sends, one for everything else; an answer to
//! everybody, and what was stored to the fan-out in log order.

use crate::{
    claims::Claims,
    error::Error,
    writer::{Command, Receipt, Reply, Stored},
};
use std::{collections::HashSet, mem, sync::Arc};
use tokio::sync::mpsc;
use touchline_ids::{ChannelId, Seq};
use touchline_storage::{
    Appended, Changed, ChannelChange, CreateChannel, MemberCache, NewChannel, NewMessage, Storage, StorageError,
    WhenLocked,
};

/// What commands are carried out with; shared by the writer and the lines of channels that wait for their locks.
pub struct Store {
    storage: Storage,
    /// Who owns the outbox rows it writes.
    claims: Arc<Claims>,
    max_members: usize,
    members: MemberCache,
    fan_out: mpsc::Sender<Stored>,
}

/// One send of a batch.
struct Send {
    message: NewMessage,
    traceparent: String,
    reply: Reply<Receipt>,
}

/// One pass over commands: what was left undone, because its channel is locked.
struct Pass {
    when_locked: WhenLocked,
    undone: Vec<Command>,
    locked: HashSet<ChannelId>,
}

impl Store {
    /// `fan_out` gets what was committed, in log order per channel.
    pub fn new(storage: Storage, claims: Arc<Claims>, max_members: usize, fan_out: mpsc::Sender<Stored>) -> Self {
        Self { storage, claims, max_members, members: MemberCache::default(), fan_out }
    }

    /// Carries commands out in order: runs of sends as one batch, everything else in a transaction of its own. Given
    /// back, in their order, are those for channels that somebody else holds locked, if they are to be passed over.
    pub async fn carry_out(
        &self,
        commands: impl IntoIterator<Item = Command>,
        when_locked: WhenLocked,
    ) -> Vec<Command> {
        let mut pass = Pass { when_locked, undone: Vec::new(), locked: HashSet::new() };
        let mut sends = Vec::new();
        for command in commands {
            match command {
                Command::Send { message, traceparent, reply } => sends.push(Send { message, traceparent, reply }),
                Command::Change { change, traceparent, reply } => {
                    self.append(mem::take(&mut sends), &mut pass).await;
                    self.change(change, traceparent, reply, &mut pass).await;
                }
                Command::Create { channel, traceparent, reply } => {
                    self.append(mem::take(&mut sends), &mut pass).await;
                    self.create(channel, traceparent, reply).await;
                }
                #[cfg(test)]
                Command::Panic => panic!("as a bug would"),
            }
        }
        self.append(sends, &mut pass).await;
        pass.undone
    }

    async fn append(&self, sends: Vec<Send>, pass: &mut Pass) {
        // Behind a command for the same channel that has to wait.
        let (wait, sends): (Vec<_>, Vec<_>) =
            sends.into_iter().partition(|send| pass.locked.contains(&send.message.channel_id));
        pass.undone.extend(wait.into_iter().map(Command::from));
        if sends.is_empty() {
            return;
        }
        let messages: Vec<_> = sends.iter().map(|send| send.message.clone()).collect();
        let batch = self.storage.append(messages, self.claims.owner(), &self.members, pass.when_locked).await;
        self.note(&batch);
        fail::fail_point!("after_commit", batch.is_ok(), |_| std::process::abort());
        let stored = match batch {
            Ok(appended) => pass.answer(sends, appended),
            // One message the database refuses must not fail its neighbours: each is tried by itself.
            Err(StorageError::Database(error)) if sends.len() > 1 => {
                tracing::warn!(batch.size = sends.len(), %error, "batch refused, trying each send by itself");
                self.append_each(sends, pass).await
            }
            Err(error) => {
                tracing::warn!(batch.size = sends.len(), %error, "batch not stored");
                for send in sends {
                    send.reply.send(Err(Error::of_batch(&error)));
                }
                return;
            }
        };
        // Only now that everybody has an answer: this may wait.
        for stored in stored {
            self.hand_on(stored).await;
        }
    }

    async fn append_each(&self, sends: Vec<Send>, pass: &mut Pass) -> Vec<Stored> {
        let mut stored = Vec::new();
        for send in sends {
            let alone = vec![send.message.clone()];
            let alone = self.storage.append(alone, self.claims.owner(), &self.members, pass.when_locked).await;
            self.note(&alone);
            match alone {
                Ok(appended) => stored.extend(pass.answer(vec![send], appended)),
                Err(error) => send.reply.send(Err(error.into())),
            }
        }
        stored
    }

    async fn change(&self, change: ChannelChange, traceparent: String, reply: Reply<Changed>, pass: &mut Pass) {
        let channel = change.channel_id;
        if pass.locked.contains(&channel) {
            return pass.undone.push(Command::Change { change, traceparent, reply });
        }
        let (owner, members) = (self.claims.owner(), &self.members);
        let changed =
            self.storage.change_channel(change.clone(), owner, members, self.max_members, pass.when_locked).await;
        self.note(&changed);
        let stored = match &changed {
            Ok(Changed::Locked) => {
                pass.locked.insert(channel);
                return pass.undone.push(Command::Change { change, traceparent, reply });
            }
            Ok(Changed::Stored { entry, members }) => Some((entry.clone(), Arc::clone(members))),
            _ => None,
        };
        reply.send(changed.map_err(Into::into));
        if let Some((entry, members)) = stored {
            self.hand_on(Stored { entry, members, notify: false, traceparent }).await;
        }
    }

    async fn create(&self, channel: NewChannel, traceparent: String, reply: Reply<CreateChannel>) {
        let created = self.storage.create_channel(channel, self.claims.owner()).await;
        self.note(&created);
        let stored = match &created {
            Ok(CreateChannel::Created { entry, members, .. }) => Some((entry.clone(), Arc::clone(members))),
            _ => None,
        };
        reply.send(created.map_err(Into::into));
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

impl Pass {
    /// Answers sends; what was stored now is returned, to be handed on.
    fn answer(&mut self, sends: Vec<Send>, appended: Vec<Appended>) -> Vec<Stored> {
        let mut stored = Vec::with_capacity(sends.len());
        for (send, appended) in sends.into_iter().zip(appended) {
            if appended == Appended::Locked {
                self.locked.insert(send.message.channel_id);
                self.undone.push(send.into());
            } else {
                stored.extend(answer(appended, send.traceparent, send.reply));
            }
        }
        stored
    }
}

impl From<Send> for Command {
    fn from(Send { message, traceparent, reply }: Send) -> Self {
        Self::Send { message, traceparent, reply }
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
        Appended::Locked => (Err(Error::Unavailable { what: "this channel is busy" }), None),
    };
    // The caller may be gone; the message is stored all the same.
    reply.send(answer);
    stored
}
