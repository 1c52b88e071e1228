//! What happens to FCM, and what FCM says.

use crate::{
    notices::Notified,
    outcome::Outcome,
    pushes::{Fcm, change, register},
    scenario::{Context, Scenario, scenario},
    stage::{Scene, Stage},
};
use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tokio::time::{Instant, interval, sleep, timeout};
use touchline_fake_fcm::{
    Behaviour, FakeFcm, Latency, Outcome as Said, RetryAfter, Rules, Settings, TokenBehaviour, TokenMode,
    newest_accepted,
};
use touchline_harness::{Link, LinkKind, Rules as LinkRules, Stack};
use touchline_ids::{ChannelId, UserId};
use touchline_load::{Kind, Mix};

pub(super) const ROWS: &[Scenario] = &[
    scenario!(2, half_open_devices_get_their_push, "everybody is pushed to within 10 s: 3 + 2 s and the pace", false),
    scenario!(21, what_fcm_puts_off_comes_when_it_asked_for_it, "early retries 0; lost 0", true),
    scenario!(22, an_outage_of_fcm_loses_no_notification, "lost 0; the way up is gentle", true),
    scenario!(23, dead_tokens_are_forgotten_and_good_ones_are_not, "sends after a 404 0; good ones forgotten 0", true),
    scenario!(24, short_lived_access_tokens_cost_no_push, "401s ≤ 1 per process; parked without a token", true),
    scenario!(25, broken_connections_to_fcm_lose_no_notification, "lost 0; duplicates only where FCM accepted", true),
];

/// After the longest wait for a retry (10 s and 10 to 40 s of jitter), some to catch up.
const LATE: Duration = Duration::from_secs(75);
/// FCM's 60 s, and the same.
const LATE_AFTER_QUOTA: Duration = Duration::from_secs(150);
/// Of each notifier; see its configuration.
pub(super) const RATE: u32 = 8_000;

/// Half of the people away, two notifiers.
pub(super) async fn open(fcm: &Fcm, notifiers: usize, context: &Context) -> Result<Stage> {
    let mut scene = Scene::new(context);
    (scene.mix, scene.pushed, scene.before) = (AWAY, true, context.seconds(4, 25));
    scene.open(fcm.pushed_by(notifiers, Stack::processes(2, 2), context, RATE), context).await
}

const AWAY: Mix = Mix { steady: 1, flappy: 0, slow: 0, half_open: 0, absent: 1 };

/// Nothing passes between clients and gateways any more, though every socket is open.
async fn half_open_devices_get_their_push(context: Context) -> Result<Outcome> {
    let mut fcm = Fcm::start(Settings::default()).await?;
    let mut scene = Scene::new(&context);
    (scene.people, scene.channels, scene.mix, scene.pushed) = (40, 8, Mix::steady(), true);
    let builder = Stack::processes(2, 2).proxied(&[LinkKind::ClientGateway]);
    let stage = scene.open(fcm.pushed_by(2, builder, &context, RATE), &context).await?;
    let everybody = stage.users(Kind::Steady);
    let whole = [LinkRules::black_hole_down(), LinkRules::black_hole_up(), LinkRules::black_hole()];
    let mut notified = Notified::default();
    for rules in context.pick(&whole[2..], &whole[..]) {
        fcm.breaks(&stage, "half-open");
        set_all(&stage.stack, *rules)?;
        sleep(Duration::from_secs(3)).await;
        let some = fcm.reach(&stage, &everybody, Duration::from_secs(20)).await?;
        notified =
            Notified { yes: notified.yes + some.yes, no: notified.no + some.no, after: some.after.max(notified.after) };
        set_all(&stage.stack, LinkRules::default())?;
        fcm.heals(&stage);
        stage.recover().await;
        // The last second look is over. An ack takes a notification away, and with it when its last push was: who is
        // back and away again within 3 s may be pushed to sooner than that.
        sleep(Duration::from_secs(8)).await;
    }
    let begun = fcm.fake.log().next();
    sleep(context.seconds(5, 10)).await;
    let late = fcm.fake.log().since(begun, usize::MAX).entries.len();
    let (mut outcome, _) = Box::pin(fcm.judged(stage, &everybody, notified, &Rules::default())).await?;
    outcome.tell(format!("the last one was pushed to {:.1} s after its message", notified.after.as_secs_f64()));
    outcome.aim(notified.after <= Duration::from_secs(10), "pushes came late");
    outcome.require(late == 0, format!("{late} pushes to who was back"));
    Ok(outcome)
}

fn set_all(stack: &Stack, rules: LinkRules) -> Result<()> {
    (0..stack.gateways()).try_for_each(|gateway| {
        stack.link(Link::ClientGateway(gateway))?.set(rules);
        Ok(())
    })
}

/// 429 to everything for a while: with seconds, with a date, with nothing.
async fn what_fcm_puts_off_comes_when_it_asked_for_it(context: Context) -> Result<Outcome> {
    let mut fcm = Fcm::start(Settings::default()).await?;
    let stage = open(&fcm, 2, &context).await?;
    // More than the 10 s that are waited anyway.
    let whole = [RetryAfter::Seconds(15), RetryAfter::Date(15), RetryAfter::Absent];
    for retry_after in context.pick(&whole[1..2], &whole[..]) {
        fcm.breaks(&stage, &format!("{retry_after:?}"));
        fcm.fake.mode(Behaviour::Quota { retry_after: *retry_after });
        sleep(context.seconds(3, 20)).await;
        fcm.fake.mode(Behaviour::Ok);
        fcm.heals(&stage);
        let all = fcm.reach(&stage, &stage.users(Kind::Absent), LATE_AFTER_QUOTA).await?;
        ensure!(all.no == 0, "after {retry_after:?} {} got no push", all.no);
    }
    Ok(fcm.close(stage, LATE_AFTER_QUOTA, &Rules::default()).await?.0)
}

/// 503, 500, a page of HTML and nothing at all, for minutes; then the way up from what the pace begins with.
async fn an_outage_of_fcm_loses_no_notification(context: Context) -> Result<Outcome> {
    const NOTIFIERS: usize = 2;
    let mut fcm = Fcm::start(Settings::default()).await?;
    let mut scene = Scene::new(&context);
    // Many to notify, and a rate that they need a part of.
    (scene.people, scene.channels) = context.pick((60, 12), (300, 60));
    let rate = context.pick(RATE, 200);
    scene.mix = context.pick(AWAY, Mix { absent: 4, ..AWAY });
    (scene.pushed, scene.before) = (true, context.seconds(4, 25));
    let stage = scene.open(fcm.pushed_by(NOTIFIERS, Stack::processes(2, 2), &context, rate), &context).await?;
    let unavailable = Behaviour::Unavailable { retry_after: RetryAfter::Absent };
    let whole = [unavailable, Behaviour::Internal, Behaviour::Html502, Behaviour::Empty500];
    let begun = fcm.fake.log().next();
    for behaviour in context.pick(&whole[2..3], &whole[..]) {
        fcm.breaks(&stage, &format!("{behaviour:?}"));
        fcm.fake.mode(behaviour.clone());
        sleep(context.seconds(4, 75)).await;
    }
    let asked = fcm.fake.log().next() - begun;
    fcm.fake.mode(Behaviour::Ok);
    fcm.heals(&stage);
    let (mut outcome, _) = fcm.close(stage, LATE_AFTER_QUOTA, &Rules::default()).await?;
    outcome
        .tell(format!("{asked} requests while FCM was down; {rate} pushes/s allowed to each of {NOTIFIERS} notifiers"));
    let (_, beginning) = fcm.peaks();
    // Within ten seconds the pace climbs to less than a fifth.
    let gentle = beginning <= u64::from(rate) * NOTIFIERS as u64 * 3 / 10;
    outcome.aim(gentle, format!("{beginning} pushes in a second just after the outage"));
    Ok(outcome)
}

/// Everybody who is away gets devices with dead, invalid and foreign tokens, and one whose token is replaced while a
/// push to it is under way.
async fn dead_tokens_are_forgotten_and_good_ones_are_not(context: Context) -> Result<Outcome> {
    let mut fcm = Fcm::start(Settings::default()).await?;
    let stage = open(&fcm, 2, &context).await?;
    let absent = stage.users(Kind::Absent);
    change(&fcm.fake, |change| change.latency = Some(Latency::fixed(700.0)));
    fcm.breaks(&stage, "dead tokens");
    for user in absent.keys() {
        for (device, kind) in [("gone", "unreg"), ("wrong", "badtok"), ("foreign", "mismatch"), ("moved", "unreg-old")]
        {
            register(&stage.stack, *user, device, &format!("{kind}-{user}")).await?;
        }
    }
    let replaced = try_join_all(absent.keys().map(|user| replace(&fcm.fake, &stage.stack, *user)));
    timeout(Duration::from_secs(60), replaced).await.context("not every dead token was tried")??;
    sleep(context.seconds(3, 20)).await;
    fcm.heals(&stage);
    let reached = fcm.reach(&stage, &absent, LATE).await?;
    let moved = reach_moved(&fcm.fake, &stage, &absent).await?;
    let wrong = wrong_devices(&stage.stack, &absent).await?;
    let late = sends_to_bad(&fcm.fake);
    // Answers take longer here: so may what was under way.
    let (mut outcome, _) =
        Box::pin(fcm.judged(stage, &absent, reached, &Rules { under_way_ms: 2_000, ..Rules::default() })).await?;
    outcome.tell(format!("{} tokens replaced under way, {moved} of them pushed to", absent.len()));
    outcome.require(moved == absent.len(), "a new token was forgotten with the old one");
    outcome.require(wrong.is_empty(), format!("devices are not as they should be: {wrong:?}"));
    outcome.require(late == 0, format!("{late} sends to tokens that were called invalid"));
    Ok(outcome)
}

/// Waits for the push to the old token, and registers the new one before it is answered.
async fn replace(fake: &FakeFcm, stack: &Stack, user: UserId) -> Result<()> {
    let old = format!("unreg-old-{user}");
    fake.log().wait_for(0, |entry| *entry.token == *old).await;
    register(stack, user, "moved", &format!("ok-new-{user}")).await
}

/// How many of the replaced tokens get what is sent now.
async fn reach_moved(fake: &FakeFcm, stage: &Stage, users: &BTreeMap<UserId, Vec<ChannelId>>) -> Result<usize> {
    let (due, began) = (stage.notices.due(users).await?, Instant::now());
    loop {
        let newest = fake.log().judge(|entries, _| newest_accepted(entries));
        let has = |user: &UserId| {
            due.iter().filter(|((of, _), _)| of == user).all(|((_, channel), seq)| {
                let key = (format!("ok-new-{user}").into(), channel.to_string().into());
                newest.get(&key).is_some_and(|newest| i64::try_from(*newest).is_ok_and(|newest| newest >= seq.0))
            })
        };
        let reached = users.keys().filter(|user| has(user)).count();
        if reached == users.len() || began.elapsed() > LATE {
            return Ok(reached);
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// Users whose devices are not the good ones and the foreign one, which is suspect.
async fn wrong_devices(stack: &Stack, users: &BTreeMap<UserId, Vec<ChannelId>>) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for user in users.keys() {
        let devices = stack.storage().devices_of(*user).await?;
        let names: Vec<_> = devices.iter().map(|device| device.device_id.as_str()).collect();
        let suspect: Vec<_> = devices.iter().map(|device| device.suspect_since_ms.is_some()).collect();
        if names != ["foreign", "moved", "phone"] || suspect != [true, false, false] {
            wrong.push(format!("{names:?} suspect {suspect:?}"));
        }
    }
    Ok(wrong)
}

/// Sends to a token more than two seconds after a 400 called it invalid.
fn sends_to_bad(fake: &FakeFcm) -> usize {
    let mut ended = HashMap::new();
    let entries = fake.log().all();
    for entry in entries.iter().filter(|entry| entry.outcome == Said::BadToken) {
        ended.entry(&entry.token).or_insert(entry.ended_us);
    }
    let late = |begun: u64, ended: Option<u64>| ended.is_some_and(|ended| begun > ended + 2_000_000);
    entries.iter().filter(|entry| ended.get(&entry.token).is_some_and(|ended| late(entry.begun_us, *ended))).count()
}

/// Access tokens that live for 5 s; then none are given for a while.
async fn short_lived_access_tokens_cost_no_push(context: Context) -> Result<Outcome> {
    const LIFE: u64 = 5;
    let mut fcm = Fcm::start(Settings { access_token_life_s: LIFE, ..Settings::default() }).await?;
    let stage = open(&fcm, 2, &context).await?;
    sleep(context.seconds(4, 30)).await;
    fcm.breaks(&stage, "no access tokens");
    let token = |behaviour| change(&fcm.fake, |change| change.token = Some(TokenMode { behaviour, times: None }));
    token(TokenBehaviour::Internal);
    // The last ones end.
    sleep(Duration::from_secs(LIFE + 1)).await;
    let parked = fcm.fake.log().next();
    sleep(context.seconds(4, 60)).await;
    let parked = fcm.fake.log().next() - parked;
    token(TokenBehaviour::Ok);
    let calls = fcm.fake.token_calls();
    fcm.heals(&stage);
    let unauthenticated = |fake: &FakeFcm| {
        fake.log().judge(|entries, _| entries.iter().filter(|entry| entry.outcome == Said::Unauthenticated).count())
    };
    let (given, refused) = (calls.iter().filter(|call| call.issued.is_some()).count(), unauthenticated(&fcm.fake));
    let (mut outcome, _) = fcm.close(stage, LATE, &Rules::default()).await?;
    let asked = calls.len();
    outcome
        .tell(format!("{given} access tokens given, {asked} asked for; 401s {refused}; {parked} pushes without one"));
    outcome.require(refused <= 2, format!("{refused} pushes with an access token that had ended"));
    outcome.require(parked == 0, format!("{parked} pushes were tried without an access token"));
    Ok(outcome)
}

/// GOAWAYs, cuts, answers that never come, and resets before and after FCM accepted.
async fn broken_connections_to_fcm_lose_no_notification(context: Context) -> Result<Outcome> {
    let mut fcm = Fcm::start(Settings::default()).await?;
    let stage = open(&fcm, 2, &context).await?;
    // So that each meets some under way.
    change(&fcm.fake, |change| change.latency = Some(Latency::fixed(200.0)));
    fcm.breaks(&stage, "GOAWAY");
    each_half_second(context.seconds(2, 20), || change(&fcm.fake, |change| change.goaway = true)).await;
    let after_goaways = fcm.fake.check(&Rules::default());
    fcm.breaks(&stage, "cut");
    each_half_second(context.seconds(2, 20), || change(&fcm.fake, |change| change.cut = true)).await;
    let whole = [Behaviour::AcceptThenReset, Behaviour::Reset, Behaviour::Hang];
    for behaviour in context.pick(&whole[..1], &whole[..]) {
        fcm.breaks(&stage, &format!("{behaviour:?}"));
        fcm.fake.mode(behaviour.clone());
        sleep(context.seconds(3, 20)).await;
        fcm.fake.mode(Behaviour::Ok);
    }
    if !context.short {
        fcm.breaks(&stage, "away");
        change(&fcm.fake, |change| change.away = Some(true));
        sleep(Duration::from_secs(20)).await;
        change(&fcm.fake, |change| change.away = Some(false));
    }
    fcm.heals(&stage);
    let reconnects = fcm.fake.connections();
    let (mut outcome, _) = fcm.close(stage, LATE_AFTER_QUOTA, &Rules::default()).await?;
    outcome.tell(format!("{reconnects} connections; {} pushes twice after GOAWAYs alone", after_goaways.duplicates));
    outcome.require(after_goaways.duplicates == 0, "a GOAWAY made duplicates");
    Ok(outcome)
}

async fn each_half_second(length: Duration, mut what: impl FnMut()) {
    let (mut ticks, end) = (interval(Duration::from_millis(500)), Instant::now() + length);
    while Instant::now() < end {
        ticks.tick().await;
        what();
    }
}
