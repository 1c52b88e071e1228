//! Watches the frames of one HTTP/2 connection (RFC 9113, section 4.1) as they pass, and slips a GOAWAY in between.
//! The h2 library keeps both to itself: pings it answers unseen, and its GOAWAY says neither which stream is the last nor
//! why.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use std::{
    collections::{BTreeSet, HashSet},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// What an HTTP/2 client says first.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
/// ACK of SETTINGS and PING.
const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;

/// Pings on an idle connection come at most this often …
const PING_INTERVAL: Duration = Duration::from_secs(60);
/// … but for two.
const PING_STRIKES: u32 = 2;

/// What was seen of a connection.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    state: Mutex<State>,
    head_written: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Streams of which neither side has said the last word.
    open: BTreeSet<u32>,
    newest: u32,
    settings_confirmed: bool,
    last_ping: Option<Instant>,
    strikes: u32,
    awaited_heads: HashSet<u32>,
    /// To be written at the next boundary between two frames.
    slip: Bytes,
}

impl Traffic {
    /// The newest stream the client opened.
    pub(crate) fn newest(&self) -> u32 {
        self.state().newest
    }

    /// When more than `limit` streams are open, the last one within the limit.
    pub(crate) fn above(&self, limit: usize) -> Option<u32> {
        let state = self.state();
        let last = limit.checked_sub(1).and_then(|before| state.open.iter().nth(before));
        (state.open.len() > limit).then(|| last.copied().unwrap_or(0))
    }

    /// Whether a stream up to `last` is open.
    pub(crate) fn is_open_up_to(&self, last: u32) -> bool {
        self.state().open.first().is_some_and(|stream| *stream <= last)
    }

    /// Whether the client has said that it knows our settings.
    pub(crate) fn settings_confirmed(&self) -> bool {
        self.state().settings_confirmed
    }

    /// Whether the client sends pings too often.
    pub(crate) fn too_many_pings(&self) -> bool {
        self.state().strikes > PING_STRIKES
    }

    /// Writes a GOAWAY as soon as the frame that is being written is complete.
    pub(crate) fn slip_goaway(&self, last_stream: u32, code: u32, why: &str) {
        let mut frame = BytesMut::with_capacity(HEAD + 8 + why.len());
        frame.put_uint(8 + why.len() as u64, 3);
        frame.put_slice(&[GOAWAY, 0]);
        frame.put_u32(0);
        frame.put_u32(last_stream);
        frame.put_u32(code);
        frame.put_slice(why.as_bytes());
        self.state().slip = frame.freeze();
    }

    /// To be called before an answer's head is given to h2; its end is waited for with [`Self::head_is_written`].
    pub(crate) fn await_head(&self, stream: u32) {
        self.state().awaited_heads.insert(stream);
    }

    pub(crate) async fn head_is_written(&self, stream: u32) {
        loop {
            let mut written = std::pin::pin!(self.head_written.notified());
            written.as_mut().enable();
            if !self.state().awaited_heads.contains(&stream) {
                return;
            }
            written.await;
        }
    }

    fn read(&self, kind: u8, flags: u8, stream: u32) {
        let mut state = self.state();
        match kind {
            HEADERS if stream > state.newest => {
                state.newest = stream;
                state.open.insert(stream);
            }
            RST_STREAM => {
                state.open.remove(&stream);
            }
            SETTINGS if flags & ACK != 0 => state.settings_confirmed = true,
            PING if flags & ACK == 0 && state.open.is_empty() => {
                let now = Instant::now();
                let early = state.last_ping.is_some_and(|last| now < last + PING_INTERVAL);
                state.strikes += u32::from(early);
                state.last_ping = Some(now);
            }
            _ => {}
        }
    }

    fn written(&self, kind: u8, flags: u8, stream: u32) {
        let mut state = self.state();
        let ends = match kind {
            HEADERS | DATA => flags & END_STREAM != 0,
            RST_STREAM => true,
            _ => false,
        };
        if ends {
            state.open.remove(&stream);
        }
        if kind == HEADERS && state.awaited_heads.remove(&stream) {
            drop(state);
            self.head_written.notify_waiters();
        }
    }

    fn take_slip(&self) -> Bytes {
        std::mem::take(&mut self.state().slip)
    }

    fn has_slip(&self) -> bool {
        !self.state().slip.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds the frames in a stream of bytes.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes to skip: of the preface, or of a payload.
    skip: usize,
    head: Vec<u8>,
}

impl Frames {
    /// Tells kind, flags and stream of every frame whose head is complete with these bytes.
    fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(u8, u8, u32)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.head.len() == HEAD {
                let mut head = &self.head[..];
                self.skip = usize::try_from(head.get_uint(3)).unwrap_or(usize::MAX);
                let (kind, flags) = (head.get_u8(), head.get_u8());
                tell(kind, flags, head.get_u32() & 0x7fff_ffff);
                self.head.clear();
            }
        }
    }

    /// How many bytes one may pass on without going beyond the next boundary (or the end of a head); 0 at a boundary.
    fn to_boundary(&self) -> usize {
        match (self.skip, self.head.len()) {
            (0, 0) => 0,
            (0, read) => HEAD - read,
            (skip, _) => skip,
        }
    }
}

/// The connection itself.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    socket: S,
    traffic: Arc<Traffic>,
    reading: Frames,
    writing: Frames,
    slipping: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(socket: S, traffic: Arc<Traffic>) -> Self {
        let reading = Frames { skip: PREFACE.len(), ..Frames::default() };
        Self { socket, traffic, reading, writing: Frames::default(), slipping: Bytes::new() }
    }

    /// Between two frames, writes what is to be slipped in.
    fn poll_slip(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.slipping.is_empty() && self.writing.to_boundary() == 0 {
            self.slipping = self.traffic.take_slip();
        }
        while !self.slipping.is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.slipping))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.slipping.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        let traffic = &this.traffic;
        this.reading.feed(&buf.filled()[before..], |kind, flags, stream| traffic.read(kind, flags, stream));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_slip(cx))?;
        let mut buf = buf;
        // Stop at the boundary, for the slip's sake.
        if this.traffic.has_slip() {
            let room = this.writing.to_boundary();
            buf = &buf[..room.min(buf.len())];
        }
        let written = ready!(Pin::new(&mut this.socket).poll_write(cx, buf))?;
        let traffic = &this.traffic;
        this.writing.feed(&buf[..written], |kind, flags, stream| traffic.written(kind, flags, stream));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_slip(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let stream = [&[0, 0, 3, DATA, END_STREAM, 0, 0, 0, 5, 1, 2, 3][..], &[0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]];
        let stream = stream.concat();
        for size in 1..=stream.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for part in stream.chunks(size) {
                frames.feed(part, |kind, flags, stream| seen.push((kind, flags, stream)));
            }
            assert_eq!(seen, [(DATA, END_STREAM, 5), (SETTINGS, ACK, 0)]);
            assert_eq!(frames.to_boundary(), 0);
        }
    }

    #[test]
    fn the_oldest_streams_are_within_the_limit() {
        let traffic = Traffic::default();
        for stream in [1, 3, 5, 7] {
            traffic.read(HEADERS, 0, stream);
        }
        traffic.read(RST_STREAM, 0, 3);
        assert_eq!([traffic.above(3), traffic.above(2), traffic.above(0)], [None, Some(5), Some(0)]);
        assert!(traffic.is_open_up_to(1) && !traffic.is_open_up_to(0));
    }

    #[test]
    fn pings_on_an_idle_connection_are_counted() {
        let traffic = Traffic::default();
        traffic.read(HEADERS, 0, 1);
        for _ in 0..10 {
            traffic.read(PING, 0, 0);
        }
        assert!(!traffic.too_many_pings(), "a stream is open");
        traffic.written(DATA, END_STREAM, 1);
        for _ in 0..3 {
            traffic.read(PING, 0, 0);
        }
        assert!(!traffic.too_many_pings());
        traffic.read(PING, 0, 0);
        assert!(traffic.too_many_pings());
    }
}
