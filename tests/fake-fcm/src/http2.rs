//! HTTP/2, with everything that can go wrong on a connection.

use crate::{
    answers,
    control::Orders,
    request::{Answer, Reply, Request, Way},
    send,
    wire::{Traffic, Wire},
    world::{Face, World},
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use h2::{
    Reason, RecvStream, SendStream,
    server::{Connection, SendResponse},
};
use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, sleep_until},
};

/// Far more than any message; what is longer is refused like one that is too big.
const BODY: usize = 256 * 1_024;
const WINDOW: u32 = 1_024 * 1_024;
/// After a GOAWAY with everything answered, for so long the client may close the connection itself.
const LINGER: Duration = Duration::from_secs(2);
/// A time that does not come.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// What Google's front ends write into a GOAWAY.
const TIMED_OUT: &str = "session_timed_out";
const TOO_MANY_STREAMS: &str = "exceeded_max_concurrent_streams";
const TOO_MANY_PINGS: &str = "too_many_pings";

type Accepted = (http::Request<RecvStream>, SendResponse<Bytes>);

struct Session<S> {
    world: Arc<World>,
    number: u32,
    h2: Connection<Wire<S>, Bytes>,
    traffic: Arc<Traffic>,
    orders: watch::Receiver<Orders>,
    streams: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Messages so far.
    sends: u64,
    /// The last stream that is served, once there was a GOAWAY.
    last: Option<u32>,
    /// When the connection is closed if nothing happens.
    close_at: Instant,
}

enum Event {
    Stream(Box<Accepted>),
    Closed,
    /// The last stream within the limit, and what else came.
    TooManyStreams(u32, Option<Box<Accepted>>),
    TooManyPings,
}

/// Serves one connection until its end. `socket` begins with the client's preface.
pub(crate) async fn serve<S>(world: Arc<World>, socket: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let traffic = Arc::new(Traffic::default());
    let orders = world.control.orders();
    let settings = world.control.settings();
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(settings.max_streams)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(Wire::new(socket, Arc::clone(&traffic)));
    let Ok(h2) = handshake.await else { return };
    let number = world.next_connection();
    let mut session = Session {
        number,
        h2,
        traffic,
        orders,
        streams: FuturesUnordered::new(),
        sends: 0,
        last: None,
        close_at: Instant::now(),
        world,
    };
    session.run(settings.max_streams).await;
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Session<S> {
    async fn run(&mut self, max_streams: u32) {
        let told = *self.orders.borrow_and_update();
        self.put_off_closing();
        loop {
            let limit = self.limit(max_streams);
            let leaving = self.last.is_some();
            tokio::select! {
                // Answers first: everything that is ready goes out with one write.
                biased;
                Some(()) = self.streams.next(), if !self.streams.is_empty() => self.put_off_closing(),
                event = next_event(&mut self.h2, &self.traffic, limit, leaving) => match event {
                    Event::Stream(accepted) => self.take(*accepted),
                    Event::Closed => return,
                    Event::TooManyStreams(last, accepted) => {
                        self.leave(last, Reason::PROTOCOL_ERROR, TOO_MANY_STREAMS);
                        if let Some(accepted) = accepted {
                            self.take(*accepted);
                        }
                    }
                    Event::TooManyPings => {
                        self.leave(self.traffic.newest(), Reason::ENHANCE_YOUR_CALM, TOO_MANY_PINGS);
                    }
                },
                Ok(()) = self.orders.changed() => {
                    let orders = *self.orders.borrow_and_update();
                    if orders.cuts != told.cuts {
                        return;
                    }
                    self.leave(self.traffic.newest(), Reason::NO_ERROR, TIMED_OUT);
                }
                () = sleep_until(self.close_at) => {
                    if leaving {
                        return;
                    }
                    self.leave(self.traffic.newest(), Reason::NO_ERROR, TIMED_OUT);
                }
            }
        }
    }

    /// How many open streams are too many: before the client knows the announced limit, h2's refusals are enough.
    fn limit(&self, announced: u32) -> usize {
        let settings = self.world.control.settings();
        let hidden = if settings.goaway_above > 0 { settings.goaway_above } else { u32::MAX };
        let announced = if self.traffic.settings_confirmed() { announced } else { u32::MAX };
        usize::try_from(hidden.min(announced)).unwrap_or(usize::MAX)
    }

    fn take(&mut self, (request, mut respond): Accepted) {
        let stream = respond.stream_id().as_u32();
        if self.last.is_some_and(|last| stream > last) {
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        if send::project(request.uri().path()).is_some() {
            self.sends += 1;
        }
        let way = Way { connection: self.number, stream };
        let (world, traffic) = (Arc::clone(&self.world), Arc::clone(&self.traffic));
        self.streams.push(Box::pin(serve_stream(world, traffic, way, request, respond)));
        self.put_off_closing();
        let close_after = self.world.control.settings().close_after;
        if self.last.is_none() && close_after > 0 && self.sends >= close_after {
            self.leave(stream, Reason::NO_ERROR, TIMED_OUT);
        }
    }

    /// Says GOAWAY. Streams up to `last` are served to their end, newer ones are refused.
    fn leave(&mut self, last: u32, reason: Reason, why: &str) {
        if self.last.is_none() {
            self.traffic.slip_goaway(last, reason.into(), why);
            self.last = Some(last);
            self.put_off_closing();
        }
    }

    fn put_off_closing(&mut self) {
        let idle = self.world.control.settings().idle_close_s;
        let wait = match self.last {
            Some(last) if !self.traffic.is_open_up_to(last) && self.streams.is_empty() => LINGER,
            None if idle > 0 && self.streams.is_empty() => Duration::from_secs(idle),
            _ => NEVER,
        };
        self.close_at = Instant::now() + wait;
    }
}

/// What happens next. Cancel-safe: whatever it has read stays in the connection.
async fn next_event<S>(h2: &mut Connection<Wire<S>, Bytes>, traffic: &Traffic, limit: usize, leaving: bool) -> Event
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| {
        let accepted = h2.poll_accept(cx);
        // What came was seen on the wire before h2 hands it out.
        if !leaving && let Some(last) = traffic.above(limit) {
            let accepted = match accepted {
                Poll::Ready(Some(Ok(accepted))) => Some(Box::new(accepted)),
                _ => None,
            };
            return Poll::Ready(Event::TooManyStreams(last, accepted));
        }
        if !leaving && traffic.too_many_pings() {
            return Poll::Ready(Event::TooManyPings);
        }
        match accepted {
            Poll::Ready(Some(Ok(accepted))) => Poll::Ready(Event::Stream(Box::new(accepted))),
            Poll::Ready(Some(Err(_)) | None) => Poll::Ready(Event::Closed),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Answers one request; ends when the client resets its stream.
async fn serve_stream(
    world: Arc<World>,
    traffic: Arc<Traffic>,
    way: Way,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let work = async {
        let (head, body) = request.into_parts();
        let Some(body) = read(body).await? else {
            return Some(answers::sample(400, answers::TOO_BIG));
        };
        let request = Request { method: head.method, uri: head.uri, headers: head.headers, body, way };
        Some(world.answer(Face::Google, &request).await)
    };
    let reply = tokio::select! {
        reply = work => reply,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    if let Some(reply) = reply {
        // An error here is a client that is gone.
        let _ = write(reply, &mut respond, &traffic, way.stream).await;
    }
}

/// The whole body. The outer None: the client is gone; the inner one: it is too long.
async fn read(mut body: RecvStream) -> Option<Option<Bytes>> {
    let Some(first) = body.data().await else { return Some(Some(Bytes::new())) };
    let first = first.ok()?;
    let _ = body.flow_control().release_capacity(first.len());
    if body.is_end_stream() {
        return Some(Some(first));
    }
    let mut whole = BytesMut::from(&first[..]);
    while let Some(more) = body.data().await {
        let more = more.ok()?;
        let _ = body.flow_control().release_capacity(more.len());
        if whole.len() + more.len() > BODY {
            return Some(None);
        }
        whole.extend_from_slice(&more);
    }
    Some(Some(whole.freeze()))
}

async fn write(
    reply: Reply,
    respond: &mut SendResponse<Bytes>,
    traffic: &Traffic,
    stream: u32,
) -> Result<(), h2::Error> {
    match reply {
        Reply::Whole(answer) => {
            let Answer { status, headers, body } = *answer;
            let mut head = http::Response::new(());
            *head.status_mut() = status;
            *head.headers_mut() = headers;
            let mut sending: SendStream<Bytes> = respond.send_response(head, body.is_empty())?;
            if !body.is_empty() {
                sending.send_data(body, true)?;
            }
        }
        Reply::HeadThenReset => {
            // A reset takes back what h2 has not written yet.
            traffic.await_head(stream);
            let mut sending = respond.send_response(http::Response::new(()), false)?;
            tokio::select! {
                () = traffic.head_is_written(stream) => {}
                _ = poll_fn(|cx| sending.poll_reset(cx)) => {}
            }
            sending.send_reset(Reason::INTERNAL_ERROR);
        }
        Reply::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
        Reply::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
        Reply::Never => std::future::pending().await,
    }
    Ok(())
}
