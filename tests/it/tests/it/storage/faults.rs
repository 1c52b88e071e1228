//! A database behind a link that falls silent or breaks at the worst moment.

use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};
use touchline_harness::TestDatabase;
use touchline_ids::{ChannelId, MessageId, UserId};
use touchline_storage::{
    Appended, CreateChannel, CreateUser, MemberCache, NewChannel, NewMessage, NewUser, Settings, Storage, StorageError,
    WhenLocked,
};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_in_doubt_and_a_retry_tells() {
    let scene = Scene::new().await;
    let message = scene.message();
    scene.link.fault(Fault::CutAtCommit);
    let answer = scene.append(&message).await;
    assert!(matches!(answer, Err(StorageError::InDoubt(_))), "{answer:?}");
    assert!(*scene.link.fault.borrow() == Fault::Cut);

    scene.link.fault(Fault::None);
    let answer = until_it_answers(|| scene.append(&message)).await;
    assert!(matches!(answer, Appended::Duplicate { .. }), "{answer:?}");
    let channel = scene.storage.channel_for(scene.user, scene.channel).await.unwrap().unwrap();
    assert_eq!(channel.last_seq.0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_breaks_off_before_the_commit_has_stored_nothing() {
    let scene = Scene::new().await;
    // Two, so that their INSERT has a text which no connection has prepared yet.
    let batch = vec![scene.message(), scene.message()];
    scene.link.fault(Fault::CutAtInsert);
    let cache = MemberCache::default();
    let answer = scene.storage.append(batch.clone(), Uuid::nil(), &cache, WhenLocked::Wait).await;
    assert!(matches!(answer, Err(StorageError::Unavailable(_))), "{answer:?}");
    assert!(*scene.link.fault.borrow() == Fault::Cut);

    scene.link.fault(Fault::None);
    for message in &batch {
        let answer = until_it_answers(|| scene.append(message)).await;
        assert!(matches!(answer, Appended::Stored { .. }), "{answer:?}");
    }
}

/// The connections stay silent for ever, as through a network that lost them: what heals is that new ones are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_is_unavailable_and_comes_back_by_new_connections() {
    let scene = Scene::new().await;
    scene.link.silence();
    let (a, b) = (scene.message(), scene.message());
    let (a, b, c) = tokio::join!(scene.append(&a), scene.append(&b), scene.storage.ping());
    for answer in [a.map(drop), b.map(drop), c] {
        assert!(matches!(answer, Err(StorageError::Unavailable(_))), "{answer:?}");
    }
    let message = scene.message();
    let answer = until_it_answers(|| scene.append(&message)).await;
    assert!(matches!(answer, Appended::Stored { .. }), "{answer:?}");
}

async fn until_it_answers<F: Future<Output = Result<Appended, StorageError>>>(
    mut attempt: impl FnMut() -> F,
) -> Appended {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt().await {
            Ok(answer) => return answer,
            Err(StorageError::Unavailable(_)) if Instant::now() < deadline => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A user in a channel, in a database behind a link.
struct Scene {
    storage: Storage,
    link: Link,
    user: UserId,
    channel: ChannelId,
    _database: TestDatabase,
}

impl Scene {
    async fn new() -> Self {
        let database = TestDatabase::create().await.expect("a database");
        let (link, url) = Link::to(&database.url()).await;
        let storage = Storage::connect(&Settings { url, max_connections: 2, ..Settings::default() })
            .await
            .expect("the database answers");
        storage.migrate_up().await.expect("an empty database");
        let user = NewUser {
            id: UserId::new(),
            handle: "ada".to_owned(),
            display_name: "Ada".to_owned(),
            password_hash: None,
            external: None,
            created_at_ms: 0,
        };
        let channel = NewChannel {
            id: ChannelId::new(),
            name: "talk".to_owned(),
            owner: user.id,
            member_ids: Vec::new(),
            message_id: MessageId::new(),
            created_at_ms: 0,
        };
        let (user_id, channel_id) = (user.id, channel.id);
        assert!(matches!(storage.create_user(user).await, Ok(CreateUser::Created(_))));
        assert!(matches!(storage.create_channel(channel, Uuid::nil()).await, Ok(CreateChannel::Created { .. })));
        Self { storage, link, user: user_id, channel: channel_id, _database: database }
    }

    fn message(&self) -> NewMessage {
        NewMessage {
            channel_id: self.channel,
            sender_id: self.user,
            client_message_id: Uuid::now_v7().to_string().parse().expect("a client message id"),
            content: "\"hello\"".to_owned(),
            body_hash: [1; 32],
            no_push: false,
            mentions: Vec::new(),
            message_id: MessageId::new(),
            created_at_ms: 0,
        }
    }

    async fn append(&self, message: &NewMessage) -> Result<Appended, StorageError> {
        let batch = vec![message.clone()];
        let answers = self.storage.append(batch, Uuid::nil(), &MemberCache::default(), WhenLocked::Wait).await?;
        Ok(answers.into_iter().next().expect("one answer a message"))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Breaks every connection once the server has the client's COMMIT, before it can answer.
    CutAtCommit,
    /// Breaks every connection instead of passing an INSERT on.
    CutAtInsert,
    Cut,
    /// Passes nothing on, on the connections numbered below this.
    SilentBelow(usize),
}

/// A relay in front of the database.
struct Link {
    fault: watch::Sender<Fault>,
    opened: watch::Receiver<usize>,
    _relay: JoinSet<()>,
}

impl Link {
    /// A link to `url`, and the URL to go through it.
    async fn to(url: &str) -> (Self, String) {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let (authority, path) = rest.split_once('/').expect("a database in the URL");
        let (user, server) = authority.rsplit_once('@').unwrap_or(("postgres", authority));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("{scheme}://{user}@{}/{path}", listener.local_addr().expect("a bound address"));
        let (fault, _) = watch::channel(Fault::None);
        let (count, opened) = watch::channel(0);
        let mut relay = JoinSet::new();
        relay.spawn(accept(listener, server.to_owned(), fault.clone(), count));
        (Self { fault, opened, _relay: relay }, url)
    }

    fn fault(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Silences the connections that are open, for ever; later ones work.
    fn silence(&self) {
        self.fault(Fault::SilentBelow(*self.opened.borrow()));
    }
}

async fn accept(listener: TcpListener, server: String, fault: watch::Sender<Fault>, count: watch::Sender<usize>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("a client");
        let number = *count.borrow();
        count.send_replace(number + 1);
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = TcpStream::connect(&server).await.expect("the server is up").into_split();
        connections.spawn(relay(number, client_in, server_out, fault.clone()));
        connections.spawn(relay(number, server_in, client_out, fault.clone()));
    }
}

async fn relay(number: usize, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fault: watch::Sender<Fault>) {
    let mut faults = fault.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = faults.wait_for(|fault| *fault == Fault::Cut) => return,
        };
        if read == 0 {
            return;
        }
        let says = |word: &[u8]| buffer[..read].windows(word.len()).any(|part| part == word);
        let now = *faults.borrow();
        match now {
            Fault::Cut => return,
            Fault::SilentBelow(below) if number < below => return std::future::pending().await,
            Fault::CutAtInsert if says(b"INSERT INTO") => {
                fault.send_replace(Fault::Cut);
            }
            Fault::CutAtCommit if says(b"COMMIT") => {
                // In this order, so that the way back ends before the server can answer.
                fault.send_replace(Fault::Cut);
                let _ = to.write_all(&buffer[..read]).await;
            }
            _ => {
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
