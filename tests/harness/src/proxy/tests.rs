//! Each rule on a connection of its own. Times are only held to what a rule makes impossible, never to what is quick.

use super::{Proxy, Rules, Way};
use rand::{SeedableRng as _, rngs::StdRng};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

/// Long enough for bytes that are free to pass, short enough to wait for those that are not.
const A_WHILE: Duration = Duration::from_millis(150);

/// A proxy, what it leads to, and one connection through it.
struct Link {
    proxy: Proxy,
    listener: TcpListener,
    near: TcpStream,
    far: TcpStream,
}

impl Link {
    async fn open() -> Self {
        Self::through(Proxy::open().await.unwrap()).await
    }

    async fn through(proxy: Proxy) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        proxy.lead_to(listener.local_addr().unwrap());
        let near = TcpStream::connect(proxy.address()).await.unwrap();
        let far = listener.accept().await.unwrap().0;
        Self { proxy, listener, near, far }
    }

    async fn another(&self) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(self.proxy.address()).await.unwrap();
        (near, self.listener.accept().await.unwrap().0)
    }
}

async fn passes(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
    from.write_all(text.as_bytes()).await.unwrap();
    assert_eq!(take(to, text.len()).await, text);
}

async fn take(from: &mut TcpStream, count: usize) -> String {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Nothing comes, not even the end.
async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(A_WHILE, stream.read_u8()).await.is_err()
}

async fn is_reset(stream: &mut TcpStream) -> bool {
    stream.read_u8().await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn without_rules_bytes_pass_both_ways_and_so_does_the_end() {
    let mut link = Link::open().await;
    passes(&mut link.near, &mut link.far, "up").await;
    passes(&mut link.far, &mut link.near, "down").await;
    assert_eq!((link.proxy.connections(), link.proxy.dialled()), (1, 1));
    // Half closed: the answer still comes.
    link.near.shutdown().await.unwrap();
    assert_eq!(link.far.read(&mut [0]).await.unwrap(), 0);
    passes(&mut link.far, &mut link.near, "late").await;
    link.far.shutdown().await.unwrap();
    assert_eq!(link.near.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_delay_holds_each_byte_for_so_long_in_the_named_direction() {
    let mut link = Link::open().await;
    let delay = Duration::from_millis(80);
    link.proxy.set(Rules { up: Way { delay, ..Way::default() }, ..Rules::default() });
    let sent = Instant::now();
    passes(&mut link.near, &mut link.far, "slowly").await;
    assert!(sent.elapsed() >= delay);
    passes(&mut link.far, &mut link.near, "the other way").await;
}

#[tokio::test]
async fn jitter_keeps_the_order_of_the_stream() {
    let link = Link::open().await;
    link.proxy.set(Rules::slow(Duration::ZERO, Duration::from_millis(20)));
    let text: String = (0..200).map(|number| format!("{number},")).collect();
    let (mut send, mut receive) = (link.near, link.far);
    let write = async {
        for part in text.split_inclusive(',') {
            send.write_all(part.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (came, ()) = tokio::join!(take(&mut receive, text.len()), write);
    assert_eq!(came, text);
}

#[tokio::test]
async fn a_rate_is_not_exceeded() {
    let mut link = Link::open().await;
    link.proxy.set(Rules::both(Way { bytes_per_second: Some(1_000), ..Way::default() }));
    let sent = Instant::now();
    passes(&mut link.near, &mut link.far, &"x".repeat(300)).await;
    assert!(sent.elapsed() >= Duration::from_millis(250), "{:?}", sent.elapsed());
}

#[tokio::test]
async fn what_was_throttled_comes_out_at_once_when_it_no_longer_is() {
    let mut link = Link::open().await;
    link.proxy.set(Rules::both(Way { bytes_per_second: Some(1), ..Way::default() }));
    passes(&mut link.near, &mut link.far, "x").await;
    link.near.write_all(&[b'y'; 100]).await.unwrap();
    link.proxy.heal();
    assert_eq!(take(&mut link.far, 100).await, "y".repeat(100));
}

#[tokio::test]
async fn who_sends_into_a_full_pipe_waits() {
    let mut link = Link::open().await;
    link.proxy.set(Rules::both(Way { bytes_per_second: Some(1), ..Way::default() }));
    let mut written = 0;
    while let Ok(more) = timeout(A_WHILE, link.near.write(&[0; 65_536])).await {
        written += more.unwrap();
        assert!(written < 64 << 20, "nobody holds so much");
    }
}

#[tokio::test]
async fn a_black_hole_swallows_everything_and_gives_it_back_when_it_closes() {
    let mut link = Link::open().await;
    link.proxy.set(Rules::black_hole());
    link.near.write_all(b"up").await.unwrap();
    link.far.write_all(b"down").await.unwrap();
    link.far.shutdown().await.unwrap();
    assert!(is_silent(&mut link.near).await && is_silent(&mut link.far).await);
    link.proxy.heal();
    assert_eq!(take(&mut link.far, 2).await, "up");
    assert_eq!(take(&mut link.near, 4).await, "down");
    assert_eq!(link.near.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_black_hole_of_one_direction_lets_the_other_pass() {
    let mut link = Link::open().await;
    link.proxy.set(Rules::black_hole_up());
    passes(&mut link.far, &mut link.near, "down").await;
    link.near.write_all(b"up").await.unwrap();
    assert!(is_silent(&mut link.far).await);
    link.proxy.set(Rules::black_hole_down());
    assert_eq!(take(&mut link.far, 2).await, "up");
    link.far.write_all(b"down").await.unwrap();
    assert!(is_silent(&mut link.near).await);
}

#[tokio::test]
async fn who_dials_into_a_black_hole_hangs_until_it_closes_or_gives_up() {
    let mut link = Link::open().await;
    link.proxy.set(Rules::black_hole_down());
    let mut hanging = TcpStream::connect(link.proxy.address()).await.unwrap();
    let mut impatient = TcpStream::connect(link.proxy.address()).await.unwrap();
    impatient.write_all(b"hello").await.unwrap();
    hanging.write_all(b"hello").await.unwrap();
    assert!(timeout(A_WHILE, link.listener.accept()).await.is_err() && is_silent(&mut hanging).await);
    assert_eq!(link.proxy.connections(), 3);
    drop(impatient);
    while link.proxy.connections() > 2 {
        tokio::task::yield_now().await;
    }
    link.proxy.heal();
    let mut far = link.listener.accept().await.unwrap().0;
    assert_eq!(take(&mut far, 5).await, "hello");
    passes(&mut link.near, &mut link.far, "still open").await;
}

#[tokio::test]
async fn a_reset_reaches_both_sides() {
    let mut link = Link::open().await;
    passes(&mut link.near, &mut link.far, "open").await;
    assert_eq!(link.proxy.reset_all(), 1);
    assert!(is_reset(&mut link.near).await && is_reset(&mut link.far).await);
    let (mut near, mut far) = link.another().await;
    passes(&mut near, &mut far, "a new one is fine").await;
}

#[tokio::test]
async fn a_share_of_the_connections_can_be_reset() {
    let link = Link::open().await;
    let mut others = Vec::new();
    for _ in 0..31 {
        others.push(link.another().await);
    }
    let mut random = StdRng::seed_from_u64(7);
    let reset = link.proxy.reset(0.5, &mut random);
    assert!((5..27).contains(&reset), "{reset}");
    while link.proxy.connections() > 32 - reset {
        tokio::task::yield_now().await;
    }
    assert!(link.proxy.reset_one(&mut random));
    while link.proxy.connections() > 31 - reset {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_reset_of_one_side_is_passed_on_to_the_other() {
    let mut link = Link::open().await;
    link.far.set_zero_linger().unwrap();
    drop(link.far);
    assert!(is_reset(&mut link.near).await);
}

#[tokio::test]
async fn who_dials_is_refused_while_it_is_so_and_open_connections_stay() {
    let mut link = Link::open().await;
    link.proxy.refuse(true);
    let mut refused = TcpStream::connect(link.proxy.address()).await.unwrap();
    assert!(is_reset(&mut refused).await);
    passes(&mut link.near, &mut link.far, "still open").await;
    link.proxy.refuse(false);
    let (mut near, mut far) = link.another().await;
    passes(&mut near, &mut far, "taken again").await;
}

#[tokio::test]
async fn a_connection_is_cut_after_exactly_so_many_bytes() {
    let mut link = Link::open().await;
    passes(&mut link.far, &mut link.near, "not counted").await;
    link.proxy.set(Rules { down: Way { cut_after: Some(4), ..Way::default() }, ..Rules::default() });
    // The rule is there when what is sent after it in the other direction has passed.
    passes(&mut link.near, &mut link.far, "request").await;
    link.far.write_all(b"answer").await.unwrap();
    assert_eq!(take(&mut link.near, 4).await, "answ");
    assert!(is_reset(&mut link.near).await && is_reset(&mut link.far).await);
}

#[tokio::test]
async fn an_answer_that_is_cut_leaves_its_request_done() {
    let mut link = Link::open().await;
    link.proxy.set(Rules::cut_answer());
    passes(&mut link.near, &mut link.far, "request").await;
    link.far.write_all(b"answer").await.unwrap();
    assert!(is_reset(&mut link.near).await);
}

#[tokio::test]
async fn a_target_can_move_and_without_one_nobody_is_taken() {
    let proxy = Proxy::open().await.unwrap();
    let mut early = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(is_reset(&mut early).await);
    let mut link = Link::through(proxy).await;
    let moved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    link.proxy.lead_to(moved.local_addr().unwrap());
    let mut near = TcpStream::connect(link.proxy.address()).await.unwrap();
    let mut far = moved.accept().await.unwrap().0;
    passes(&mut near, &mut far, "there").await;
    passes(&mut link.near, &mut link.far, "here").await;
}

#[tokio::test]
async fn a_rule_for_one_process_holds_for_what_it_dials() {
    let mut link = Link::through(Proxy::open_telling_diallers_apart().await.unwrap()).await;
    // Another process than this one: nothing happens to us.
    link.proxy.set_for(1, Rules::black_hole());
    passes(&mut link.near, &mut link.far, "not meant").await;
    link.proxy.set_for(std::process::id(), Rules::black_hole());
    link.near.write_all(b"meant").await.unwrap();
    assert!(is_silent(&mut link.far).await);
    link.proxy.set_for(std::process::id(), Rules::default());
    assert_eq!(take(&mut link.far, 5).await, "meant");
}

#[tokio::test]
async fn dropping_a_proxy_cuts_everything() {
    let mut link = Link::open().await;
    let address = link.proxy.address();
    drop(link.proxy);
    assert!(link.near.read(&mut [0]).await.map_or(true, |read| read == 0));
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
