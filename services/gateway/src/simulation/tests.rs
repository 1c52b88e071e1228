use super::*;
use touchline_ids::MessageId;

struct World {
    gateway: Gateway,
    now: Instant,
    user: UserId,
}

impl World {
    fn new(broken: Broken) -> Self {
        let now = Instant::now();
        Self { gateway: Gateway::new(IncarnationId::new(), 4, broken, now), now, user: UserId::new() }
    }

    fn hello(&mut self, socket: Socket, connection: i64) {
        let device = "phone".parse().expect("a device");
        self.gateway.hello(socket, self.user, device, ConnectionNumber(connection), self.now);
    }

    /// Everything that comes out, questions answered as by a registry without other gateways. What was asked is named.
    fn run(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(output) = self.gateway.next(self.now) {
            seen.push(match output {
                Output::Text(socket, text) => {
                    let frame: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    format!("{socket}: {}", frame["type"].as_str().expect("a type"))
                }
                Output::Ping(socket) => format!("{socket}: a ping"),
                Output::Closed(socket, code) => format!("{socket}: closed {}", code.unwrap_or_default()),
                Output::Answer(stream, _) => format!("{stream}: an answer"),
                Output::Ask(question, ask) => {
                    let (name, answer) = match ask {
                        Ask::Register(routes) => {
                            ("register", Answer::Registered(vec![Registered::Stored; routes.len()]))
                        }
                        Ask::TakeOver(..) => ("take over", Answer::TakenOver(true)),
                        Ask::Lives(_) => ("lives", Answer::Lives(false)),
                        Ask::Unregister(_) => ("unregister", Answer::Done),
                        Ask::Prune(_) => ("prune", Answer::Done),
                    };
                    self.gateway.answer(question, answer, self.now);
                    name.to_owned()
                }
            });
        }
        seen
    }

    fn push(&mut self, channel: ChannelId, seq: i64) -> Pushed {
        let id = || MessageId::new().as_bytes().to_vec();
        let (message_id, sender_id) = (id(), id());
        let message = Message {
            channel_id: channel.as_bytes().to_vec(),
            seq,
            message_id,
            sender_id,
            kind: "text".to_owned(),
            content: "{}".into(),
            created_at_ms: 0,
            prev: None,
        };
        self.gateway.push(&[self.user], &message, self.now)
    }
}

#[test]
fn a_session_lives_from_its_hello_to_its_end() {
    let (mut world, channel) = (World::new(Broken::default()), ChannelId::new());
    world.hello(1, 1);
    assert_eq!(world.run(), ["register", "1: ready"]);
    assert_eq!(world.push(channel, 1).taken, [world.user]);
    assert_eq!(world.run(), ["1: message"]);
    assert_eq!(world.gateway.has_acked(world.user, channel, Seq(1)), Some(false));
    let ack = format!(r#"{{"type":"ack","cursors":{{"{channel}":1}}}}"#);
    world.gateway.text(1, &ack, world.now);
    assert_eq!(world.gateway.has_acked(world.user, channel, Seq(1)), Some(true));
    assert_eq!(world.gateway.take_acks(), [(world.user, channel, Seq(1))]);
    world.gateway.cut(1, world.now);
    assert_eq!(world.run(), ["unregister"]);
    assert_eq!(world.push(channel, 2).gone, [world.user]);
    assert_eq!(world.run(), ["prune"]);
}

#[test]
fn a_newer_connection_takes_the_place_of_the_older() {
    let mut world = World::new(Broken::default());
    world.hello(1, 1);
    world.run();
    world.hello(2, 2);
    assert_eq!(world.run(), ["register", "2: ready", "1: closed 4009", "unregister"]);
    world.hello(3, 1);
    assert_eq!(world.run(), ["3: closed 4009"]);
}

#[test]
fn a_loss_is_made_good_and_the_client_is_told() {
    let mut world = World::new(Broken::default());
    world.hello(1, 1);
    world.run();
    world.gateway.lost(true, world.now);
    assert_eq!(world.run(), ["register", "1: ready"]);
    world.now += Duration::from_secs(10);
    assert_eq!(world.run(), ["register", "1: ready"]);
    world.gateway.resync(&[], world.now);
    assert_eq!(world.run(), ["1: ready"]);
}

#[test]
fn a_silent_client_is_pinged_and_given_up_when_time_says_so() {
    let mut world = World::new(Broken::default());
    world.hello(1, 1);
    world.run();
    let (begin, mut seen) = (world.now, Vec::new());
    while let Some(wake) = world.gateway.wake().filter(|wake| *wake <= begin + Duration::from_secs(61)) {
        world.now = wake;
        seen.extend(world.run());
    }
    assert_eq!(seen, ["1: a ping", "1: a ping", "1: closed 0", "unregister"]);
}

#[test]
fn a_client_that_does_not_read_is_slow() {
    let (mut world, channel) = (World::new(Broken::default()), ChannelId::new());
    world.hello(1, 1);
    world.run();
    world.gateway.set_writable(1, false, world.now);
    for seq in 1..=4 {
        assert_eq!(world.push(channel, seq).taken, [world.user]);
    }
    assert_eq!(world.push(channel, 5).slow, [world.user]);
    assert_eq!(world.run(), ["1: closed 4010", "unregister"]);
}

#[test]
fn rules_can_be_broken_on_purpose() {
    let mut world = World::new(Broken { ready_before_register: true, ..Broken::default() });
    world.hello(1, 1);
    assert_eq!(world.run(), ["1: ready", "register"]);
    let mut world = World::new(Broken { no_reregistration: true, ..Broken::default() });
    world.hello(1, 1);
    world.run();
    world.gateway.lost(true, world.now);
    assert_eq!(world.run(), Vec::<String>::new());
}
