//! Channels that somebody else holds locked for longer: the commands for each wait in a line of their own, so that
//! only they wait. Bounded: in lines, in commands a line, in lines that occupy a connection, and in time.

use crate::{error::Error, store::Store, writer::Command};
use std::{collections::HashMap, iter::Peekable, sync::Arc, time::Duration, vec};
use tokio::{
    sync::{
        Semaphore,
        mpsc::{self, error::TrySendError},
    },
    task::JoinHandle,
};
use touchline_ids::ChannelId;
use touchline_mesh::Shutdown;
use touchline_storage::WhenLocked;

/// Channels that may wait at the same time.
const LINES: usize = 256;
/// Commands that may wait for one channel.
const IN_LINE: usize = 256;
/// Most of them in one transaction.
const BATCH: usize = 64;
/// Lines that hold a connection while they wait for a lock; the others wait for them.
const AT_WORK: usize = 2;
/// How long a command may have waited when its turn comes. With the 2 s that the database waits for a lock it is
/// answered within 5 s.
const PATIENCE: Duration = Duration::from_secs(3);

/// The lines.
pub struct Lines {
    store: Arc<Store>,
    life: Shutdown,
    lines: HashMap<ChannelId, Line>,
    at_work: Arc<Semaphore>,
    idle: mpsc::Receiver<Idle>,
    say_idle: mpsc::Sender<Idle>,
}

struct Line {
    queue: mpsc::Sender<Command>,
    /// Commands put into it so far.
    put: u64,
    task: JoinHandle<Option<()>>,
}

/// A line has carried out everything that was in it.
pub struct Idle {
    channel: ChannelId,
    done: u64,
}

impl Lines {
    /// No lines; those to come live in `life`.
    pub fn new(store: Arc<Store>, life: Shutdown) -> Self {
        let (say_idle, idle) = mpsc::channel(LINES);
        Self { store, life, lines: HashMap::new(), at_work: Arc::new(Semaphore::new(AT_WORK)), idle, say_idle }
    }

    /// Takes a command for a channel that waits already; any other one is given back.
    pub fn follow(&mut self, command: Command) -> Option<Command> {
        let Some(channel) = command.channel() else { return Some(command) };
        let Some(line) = self.lines.get_mut(&channel) else { return Some(command) };
        match line.queue.try_send(command) {
            Ok(()) => line.put += 1,
            Err(TrySendError::Full(command)) => refuse(command),
            // Its task has panicked.
            Err(TrySendError::Closed(command)) => {
                self.lines.remove(&channel);
                return Some(command);
            }
        }
        None
    }

    /// Takes a command for a channel that is locked.
    pub fn wait(&mut self, command: Command) {
        let Some(channel) = command.channel() else { return };
        if !self.lines.contains_key(&channel) {
            if self.lines.len() == LINES {
                return refuse(command);
            }
            tracing::warn!(channel.id = %channel, "somebody holds this channel locked: its sends wait by themselves");
            let (queue, commands) = mpsc::channel(IN_LINE);
            let turns = Turns { channel, store: Arc::clone(&self.store), at_work: Arc::clone(&self.at_work) };
            let task = self.life.spawn(turns.run(commands, self.say_idle.clone()));
            self.lines.insert(channel, Line { queue, put: 0, task });
        }
        if let Some(command) = self.follow(command) {
            refuse(command);
        }
    }

    /// The next line that has nothing left to do.
    pub async fn idle(&mut self) -> Idle {
        match self.idle.recv().await {
            Some(idle) => idle,
            None => std::future::pending().await,
        }
    }

    /// Ends a line, unless something was put into it since it said that it is idle.
    pub fn end(&mut self, idle: &Idle) {
        if self.lines.get(&idle.channel).is_some_and(|line| line.put == idle.done) {
            self.lines.remove(&idle.channel);
        }
    }

    /// Waits until every line has come to its end.
    pub async fn finish(self) {
        let Self { lines, idle, .. } = self;
        drop(idle); // Nobody listens any more, and nobody waits to be heard.
        for (_, Line { queue, task, .. }) in lines {
            drop(queue);
            let _ = task.await;
        }
    }
}

fn refuse(command: Command) {
    command.refuse(Error::Unavailable { what: "too many sends are waiting for this channel" });
}

/// The task of a line.
struct Turns {
    channel: ChannelId,
    store: Arc<Store>,
    at_work: Arc<Semaphore>,
}

impl Turns {
    async fn run(self, mut queue: mpsc::Receiver<Command>, say_idle: mpsc::Sender<Idle>) {
        let mut turn = Vec::with_capacity(BATCH);
        let mut done = 0;
        while queue.recv_many(&mut turn, BATCH).await > 0 {
            done += turn.len() as u64;
            let Ok(_place) = self.at_work.acquire().await else { return };
            let mut turn = turn.drain(..).peekable();
            while turn.peek().is_some() {
                self.carry_out_next(&mut turn).await;
            }
            if queue.is_empty() {
                let _ = say_idle.send(Idle { channel: self.channel, done }).await;
            }
        }
    }

    /// Carries out what makes one transaction: it may wait for the lock as long as the database lets it, so whoever
    /// has waited for long is told first.
    async fn carry_out_next(&self, turn: &mut Peekable<vec::Drain<'_, Command>>) {
        let mut transaction: Vec<_> = turn.next().into_iter().collect();
        while matches!(transaction.first(), Some(Command::Send { .. }))
            && let Some(send) = turn.next_if(|command| matches!(command, Command::Send { .. }))
        {
            transaction.push(send);
        }
        let (late, in_time): (Vec<_>, Vec<_>) =
            transaction.into_iter().partition(|command| command.waited() > PATIENCE);
        for command in late {
            command.refuse(Error::Unavailable { what: "this channel is busy" });
        }
        self.store.carry_out(in_time, WhenLocked::Wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures, writer::Reply};
    use tokio::{sync::oneshot, time::timeout};
    use touchline_ids::UserId;

    type Answer = oneshot::Receiver<Result<crate::writer::Receipt, Error>>;

    fn send(channel_id: ChannelId) -> (Command, Answer) {
        let (reply, answer) = Reply::new();
        let message = fixtures::message(channel_id, UserId::new(), "1");
        (Command::Send { message, traceparent: String::new(), reply }, answer)
    }

    fn wait(lines: &mut Lines, channel: ChannelId) -> Answer {
        let (command, answer) = send(channel);
        lines.wait(command);
        answer
    }

    fn is_refused(mut answer: Answer) -> bool {
        matches!(answer.try_recv(), Ok(Err(Error::Unavailable { .. })))
    }

    #[tokio::test]
    async fn so_many_channels_wait_and_so_many_commands_for_each_and_the_rest_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (storage, _) = fixtures::database(folder.path()).await;
        let (fan_out, _stored) = mpsc::channel(1);
        let (store, life) = (Store::new(storage, Arc::default(), 10, fan_out), Shutdown::new());
        let mut lines = Lines::new(Arc::new(store), life.clone());
        // Two lines wait for locks: the others wait for them. Nothing runs before this test waits for something.
        let at_work = Arc::clone(&lines.at_work).acquire_many_owned(AT_WORK as u32).await.unwrap();
        let channel = ChannelId::new();
        let mut answers: Vec<_> = (0..IN_LINE).map(|_| wait(&mut lines, channel)).collect();
        assert!(is_refused(wait(&mut lines, channel)));
        let (command, answer) = send(channel);
        assert!(lines.follow(command).is_none() && is_refused(answer));
        answers.extend((1..LINES).map(|_| wait(&mut lines, ChannelId::new())));
        assert!(is_refused(wait(&mut lines, ChannelId::new())));
        assert!(lines.follow(send(ChannelId::new()).0).is_some(), "whatever does not wait passes by");

        drop(at_work);
        for answer in answers {
            timeout(Duration::from_secs(20), answer).await.expect("each is answered").unwrap().unwrap_err();
        }
        while !lines.lines.is_empty() {
            let idle = lines.idle().await;
            lines.end(&idle);
        }
        let _takes_a_place = wait(&mut lines, ChannelId::new());
        assert_eq!(lines.lines.len(), 1);
        life.stop_now();
    }
}
