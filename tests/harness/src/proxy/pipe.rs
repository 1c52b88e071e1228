//! One direction of one connection: bytes in, held as the rules say, bytes out.

use super::rules::Way;
use bytes::Bytes;
use rand::Rng as _;
use std::{collections::VecDeque, io, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{ReadHalf, WriteHalf},
    sync::watch,
    time::{Instant, sleep_until},
};

/// What one direction may hold; who sends more waits, as with a full window.
const HOLDS: usize = 256 * 1024;
/// What is read at once.
const CHUNK: usize = 16 * 1024;
/// A rate is kept to by chunks of so much time.
const SLICES_PER_SECOND: u32 = 10;

/// Bytes on their way; none are the end of the stream.
struct Chunk {
    due: Instant,
    bytes: Bytes,
}

pub(super) struct Pipe {
    way: Way,
    /// How many may still pass before the cut.
    left: Option<u64>,
    held: VecDeque<Chunk>,
    holds: usize,
    last_due: Instant,
    ended: bool,
}

impl Pipe {
    /// `early` came before there was a pipe.
    pub(super) fn new(way: Way, early: Bytes) -> Self {
        let mut pipe =
            Self { way, left: way.cut_after, held: VecDeque::new(), holds: 0, last_due: Instant::now(), ended: false };
        if !early.is_empty() {
            pipe.hold(early);
        }
        pipe
    }

    /// Carries bytes until the sender ends the stream, which is passed on too.
    ///
    /// # Errors
    /// When the connection is to be cut, or one side broke it.
    pub(super) async fn run(
        mut self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        mut rules: watch::Receiver<Way>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let open = !self.way.black_hole;
            let room = self.room();
            let head = self.held.front().map(|chunk| (chunk.due, chunk.bytes.clone()));
            tokio::select! {
                changed = rules.changed() => {
                    changed.map_err(io::Error::other)?;
                    self.change(*rules.borrow_and_update());
                }
                read = from.read(&mut buffer[..room]), if open && room > 0 && !self.ended => {
                    self.hold(Bytes::copy_from_slice(&buffer[..read?]));
                }
                passed = pass(head, self.left, &mut to), if open && !self.held.is_empty() => match passed? {
                    0 => return to.shutdown().await,
                    passed => self.passed(passed),
                },
            }
        }
    }

    /// What is held comes out at once, or when the new delay is over.
    fn change(&mut self, way: Way) {
        if self.way == way {
            return;
        }
        self.left = way.cut_after;
        self.way = way;
        let latest = Instant::now() + way.delay;
        self.held.iter_mut().for_each(|chunk| chunk.due = chunk.due.min(latest));
        self.last_due = self.last_due.min(latest);
    }

    /// A throttled direction takes a second's worth ahead, in slices.
    fn room(&self) -> usize {
        let Some(rate) = self.way.bytes_per_second else { return CHUNK.min(HOLDS.saturating_sub(self.holds)) };
        let (second, slice) = (rate.max(1) as usize, (rate / SLICES_PER_SECOND).max(1) as usize);
        slice.min(CHUNK).min(second.min(HOLDS).saturating_sub(self.holds))
    }

    fn hold(&mut self, bytes: Bytes) {
        let jitter = rand::rng().random_range(Duration::ZERO..=self.way.jitter);
        let mut due = (Instant::now() + self.way.delay + jitter).max(self.last_due);
        if let Some(rate) = self.way.bytes_per_second {
            due = due.max(self.last_due + Duration::from_secs_f64(bytes.len() as f64 / f64::from(rate.max(1))));
        }
        self.last_due = due;
        self.ended = bytes.is_empty();
        self.holds += bytes.len();
        self.held.push_back(Chunk { due, bytes });
    }

    fn passed(&mut self, count: usize) {
        self.holds -= count;
        self.left = self.left.map(|left| left - count as u64);
        let head = self.held.front_mut().expect("it passed");
        let _ = head.bytes.split_to(count);
        if head.bytes.is_empty() {
            self.held.pop_front();
        }
    }
}

/// Waits until the head is due and writes some of it; 0 is the end of the stream. Nothing is lost when it is dropped
/// half-way: a write that did not finish wrote nothing.
async fn pass(head: Option<(Instant, Bytes)>, left: Option<u64>, to: &mut WriteHalf<'_>) -> io::Result<usize> {
    let Some((due, bytes)) = head else { return std::future::pending().await };
    sleep_until(due).await;
    if bytes.is_empty() {
        return Ok(0);
    }
    let may = left.map_or(bytes.len(), |left| bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
    if may == 0 {
        return Err(io::Error::new(io::ErrorKind::ConnectionReset, "cut here"));
    }
    to.write(&bytes[..may]).await
}
