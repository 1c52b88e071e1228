//! A device that follows its user's channels.

use crate::{
    Client, ClientError, Closed, Connect, Cursor, Event, Frame, GatewayAddress, Renewal, Socket, Synced,
    rules::{Action, Options, Ready, Rules},
    socket::{PING, ack, hello},
};
use futures_util::future::BoxFuture;
use rand::{SeedableRng as _, rngs::SmallRng};
use std::{
    fmt,
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use touchline_ids::{ConnectionNumber, DeviceId};

/// How a [`Device`] behaves.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// The installation's name for itself, kept. Of two devices with one name only one stays connected.
    pub device_id: DeviceId,
    /// The last connection number this name has used, see [`Device::connection`]; 0 for a new name.
    pub connection: ConnectionNumber,
    /// What the device holds already; without, every channel begins with its newest messages.
    pub cursors: Vec<Cursor>,
    /// With how many messages each channel begins (0 to 50).
    pub recent: u32,
    /// Whether to ack. A device that does not is taken for one that got nothing.
    pub ack: bool,
    /// Whether to show every frame as it came, as [`Event::Wire`].
    pub raw: bool,
    /// Where a new access token comes from; without, the device ends when the one it has is over.
    pub renewal: Option<Renewal>,
    /// How long to wait for an answer, of an api or of one gateway, before trying again; 10 s. Longer where calls wait
    /// for a place, see [`Client::at_most`].
    pub patience: Duration,
    /// The public address of the only gateway to use, in place of those the server names.
    pub gateway: Option<String>,
}

impl DeviceOptions {
    /// A new device: acks, begins every channel with its 20 newest messages, is not raw.
    pub fn new(device_id: DeviceId) -> Self {
        Self {
            device_id,
            connection: ConnectionNumber(0),
            cursors: Vec::new(),
            recent: 20,
            ack: true,
            raw: false,
            renewal: None,
            patience: Duration::from_secs(10),
            gateway: None,
        }
    }
}

/// A device that follows its user's channels by the client rules (PROTOCOL.md, section 6) and reconnects for ever,
/// until it is closed, or refused for good.
///
/// It has no task of its own: everything happens while somebody waits in [`next`](Self::next), so that an application
/// that is slow slows the socket and nothing piles up. Dropping it cuts its connection.
pub struct Device {
    client: Client,
    name: DeviceId,
    renewal: Option<Renewal>,
    gateway: Option<String>,
    rules: Rules,
    reading: bool,
    /// One, or two while it moves.
    sockets: Vec<(ConnectionNumber, Box<Socket>)>,
    opening: Option<(ConnectionNumber, Answer<Box<Socket>>)>,
    ticket: Option<(u64, Answer<Connect>)>,
    sync: Option<(u64, Answer<Synced>)>,
    token: Option<(u64, Answer<String>)>,
    /// The socket that is being left.
    goodbye: Option<BoxFuture<'static, ()>>,
    alarm: Option<Pin<Box<Sleep>>>,
}

/// A call under way. Boxed, and there only while it is: an idle device stays small.
type Answer<T> = BoxFuture<'static, Result<T, ClientError>>;

/// What the rules are told next.
enum Happened {
    Opened(ConnectionNumber, Result<Box<Socket>, ClientError>),
    Ticket(u64, Result<Connect, ClientError>),
    Synced(u64, Result<Synced, ClientError>),
    Token(u64, Result<String, ClientError>),
    Frame(ConnectionNumber, Frame),
    Closed(ConnectionNumber, Closed),
    Time,
}

impl Device {
    /// A device of the user that `client` is. Connects as soon as somebody waits in [`next`](Self::next).
    pub fn start(client: Client, options: DeviceOptions) -> Self {
        let DeviceOptions { device_id, connection, cursors, recent, ack, raw, renewal, patience, gateway } = options;
        let options = Options {
            connection,
            cursors,
            recent,
            ack,
            raw,
            renewable: renewal.is_some(),
            patience,
            #[cfg(feature = "simulation")]
            sabotage: crate::rules::Sabotage::default(),
        };
        Self {
            client,
            name: device_id,
            renewal,
            gateway,
            rules: Rules::new(options, SmallRng::from_os_rng(), Instant::now()),
            reading: true,
            sockets: Vec::new(),
            opening: None,
            ticket: None,
            sync: None,
            token: None,
            goodbye: None,
            alarm: None,
        }
    }

    /// The next event, none after [`Event::Ended`]. Cancelling it loses nothing. A message counts as held, and is
    /// acked, once the event after it was asked for.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(action) = self.rules.next_action() {
                if let Some(event) = self.perform(action) {
                    return Some(event);
                }
            }
            if self.rules.is_over() {
                return None;
            }
            // A flood of frames must not keep the clock from the rules: they are asked after each.
            if self.rules.next_wake().is_some_and(|wake| wake <= Instant::now()) {
                self.rules.on_time(Instant::now());
                continue;
            }
            let happened = poll_fn(|cx| self.poll(cx)).await;
            self.tell(happened);
        }
    }

    /// The device's name.
    pub fn device_id(&self) -> &DeviceId {
        &self.name
    }

    /// The greatest connection number used so far; keep it for the next life of this name.
    pub fn connection(&self) -> ConnectionNumber {
        self.rules.connection()
    }

    /// What was given out by [`next`](Self::next), by channel; keep it for the next life of this device.
    pub fn cursors(&self) -> Vec<Cursor> {
        self.rules.cursors()
    }

    /// Whether a socket is ready.
    pub fn is_online(&self) -> bool {
        self.rules.is_online()
    }

    /// Whether it waits for an answer of an api or a gateway. While nobody waits in [`next`](Self::next) the call stays
    /// where it is, and keeps its [place](Client::at_most).
    pub fn is_calling(&self) -> bool {
        self.opening.is_some() || self.ticket.is_some() || self.sync.is_some() || self.token.is_some()
    }

    /// Cuts the connection without a goodbye, as a network does; the device reconnects.
    pub fn cut(&mut self) {
        self.rules.cut(Instant::now());
    }

    /// Stops or goes on reading from the socket. What arrives meanwhile fills the buffers between here and the gateway;
    /// acks and pings go on.
    pub fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
        self.rules.set_reading(reading, Instant::now());
    }

    /// Says goodbye.
    pub async fn close(self) {
        for (_, socket) in self.sockets {
            socket.close().await;
        }
    }

    /// Does what the rules want, or gives what they tell.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Tell(event) => return Some(event),
            Action::RenewToken { call } => self.token = self.renewal.as_ref().map(|renewal| (call, renewal.renew())),
            Action::AskTicket { call } => {
                let (client, name) = (self.client.clone(), self.name.clone());
                self.ticket = Some((call, Box::pin(async move { client.connect(&name).await })));
            }
            Action::Open { connection, gateway, ticket } => {
                let name = self.name.clone();
                let open = async move { Socket::open(&gateway, &ticket.0, &name, connection).await.map(Box::new) };
                self.opening = Some((connection, Box::pin(open)));
            }
            Action::Sync { call, cursors, recent } => {
                let client = self.client.clone();
                self.sync = Some((call, Box::pin(async move { client.sync(&cursors, Some(recent)).await })));
            }
            Action::Ack { connection, cursors } => self.post(connection, ack(&cursors)),
            Action::Ping { connection } => self.post(connection, PING.to_owned()),
            Action::Renew { connection, ticket } => {
                let frame = hello(&ticket.0, &self.name, connection);
                self.post(connection, frame);
            }
            Action::Close { connection } => {
                self.goodbye = self.take_socket(connection).map(|socket| Box::pin(socket.close()) as _);
            }
            Action::Drop { connection } => {
                self.take_socket(connection);
                self.opening.take_if(|(opening, _)| *opening == connection);
            }
        }
        None
    }

    fn post(&mut self, connection: ConnectionNumber, frame: String) {
        let socket = self.sockets.iter_mut().find(|(number, _)| *number == connection);
        if let Some(Err(closed)) = socket.map(|(_, socket)| socket.post(frame)) {
            self.tell(Happened::Closed(connection, closed));
        }
    }

    fn take_socket(&mut self, connection: ConnectionNumber) -> Option<Box<Socket>> {
        let at = self.sockets.iter().position(|(number, _)| *number == connection)?;
        Some(self.sockets.swap_remove(at).1)
    }

    fn tell(&mut self, happened: Happened) {
        let now = Instant::now();
        match happened {
            Happened::Opened(connection, Ok(socket)) => {
                let (session, heartbeat, expires_in) = (socket.session(), socket.heartbeat(), socket.expires_in());
                self.sockets.push((connection, socket));
                self.rules.opened(connection, Ready { session, heartbeat, expires_in }, now);
            }
            Happened::Opened(connection, Err(error)) => self.rules.not_opened(connection, error, now),
            Happened::Ticket(call, mut result) => {
                if let (Ok(connect), Some(url)) = (&mut result, &self.gateway) {
                    connect.gateways = vec![GatewayAddress { url: url.clone() }];
                }
                self.rules.ticket(call, result, now);
            }
            Happened::Synced(call, result) => self.rules.synced(call, result, now),
            Happened::Token(call, result) => {
                let result = result.map(|token| self.client = self.client.as_user(&token));
                self.rules.token_renewed(call, result, now);
            }
            Happened::Frame(connection, frame) => self.rules.frame_in(connection, frame, now),
            Happened::Closed(connection, closed) => {
                self.take_socket(connection);
                self.rules.closed(connection, closed, now);
            }
            Happened::Time => self.rules.on_time(now),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        if let Some(goodbye) = &mut self.goodbye
            && goodbye.as_mut().poll(cx).is_ready()
        {
            self.goodbye = None;
        }
        if let Some((connection, result)) = poll_answer(&mut self.opening, cx) {
            return Poll::Ready(Happened::Opened(connection, result));
        }
        if let Some((call, result)) = poll_answer(&mut self.ticket, cx) {
            return Poll::Ready(Happened::Ticket(call, result));
        }
        if let Some((call, result)) = poll_answer(&mut self.token, cx) {
            return Poll::Ready(Happened::Token(call, result));
        }
        if let Some((call, result)) = poll_answer(&mut self.sync, cx) {
            return Poll::Ready(Happened::Synced(call, result));
        }
        for (connection, socket) in &mut self.sockets {
            match socket.poll_next(self.reading, cx) {
                Poll::Ready(Ok(frame)) => return Poll::Ready(Happened::Frame(*connection, frame)),
                Poll::Ready(Err(closed)) => return Poll::Ready(Happened::Closed(*connection, closed)),
                Poll::Pending => {}
            }
        }
        self.poll_alarm(cx).map(|()| Happened::Time)
    }

    /// Ready at the rules' next time. An alarm that is set earlier stays: they change their mind with every frame.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(wake) = self.rules.next_wake() else { return Poll::Pending };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(wake)));
        if wake < alarm.deadline() || alarm.is_elapsed() {
            alarm.as_mut().reset(wake);
        }
        alarm.as_mut().poll(cx)
    }
}

fn poll_answer<N: Copy, T>(
    call: &mut Option<(N, Answer<T>)>,
    cx: &mut Context<'_>,
) -> Option<(N, Result<T, ClientError>)> {
    let (name, answer) = call.as_mut()?;
    let (name, result) = (*name, answer.as_mut().poll(cx));
    let Poll::Ready(result) = result else { return None };
    *call = None;
    Some((name, result))
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).finish_non_exhaustive()
    }
}
