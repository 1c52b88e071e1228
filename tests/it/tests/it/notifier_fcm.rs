//! The notifier's FCM provider against the fake, over TLS and real HTTP/2.

use anyhow::Result;
use futures_util::{StreamExt as _, stream};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use touchline_fake_fcm::{Behaviour, Change, FakeFcm, Options, Outcome, Rules, Settings};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_mesh::Shutdown;
use touchline_notifier::{
    Answer, Config, Preview, Provider, Push,
    config::{Fcm, Kind},
};
use touchline_storage::{Platform, TargetKind};

/// A fake, and a provider that sends to it.
struct Pair {
    fake: FakeFcm,
    provider: Arc<dyn Provider>,
    life: Shutdown,
    _keys: TempDir,
}

impl Pair {
    async fn new(settings: Settings) -> Result<Self> {
        let fake = FakeFcm::start(Options { settings, ..Options::default() }).await?;
        let keys = tempfile::tempdir()?;
        let files = fake.write_keys(keys.path())?;
        let fcm = Fcm {
            service_account_file: Some(files.key),
            ca_file: Some(files.ca),
            endpoint: fake.https(),
            ..Fcm::default()
        };
        let life = Shutdown::new();
        let provider = touchline_notifier::open(&Config { provider: Kind::Fcm, fcm, ..Config::default() }, &life)?;
        Ok(Self { fake, provider, life, _keys: keys })
    }

    async fn send(&self, push: &Push) -> Answer {
        self.provider.ready().await;
        self.provider.send(push).await
    }

    /// Sends to so many devices at once, and collects the answers.
    async fn send_many(&self, name: &str, count: usize) -> Vec<Answer> {
        let pushes: Vec<_> = (0..count).map(|n| push(Platform::Android, &format!("{name}-{n}"))).collect();
        stream::iter(pushes).map(async |push| self.send(&push).await).buffer_unordered(100).collect().await
    }

    fn outcomes(&self, outcome: Outcome) -> u64 {
        self.fake.check(&Rules::default()).outcomes.get(&outcome).copied().unwrap_or_default()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

fn push(platform: Platform, token: &str) -> Push {
    Push {
        user: UserId::new(),
        device: "phone".parse().expect("a name"),
        platform,
        target_kind: TargetKind::Token,
        token: token.to_owned(),
        channel: ChannelId::new(),
        seq: Seq(1),
        count: 1,
        mentioned: true,
        badge: Some(1),
        preview: None,
        expires: SystemTime::now() + Duration::from_secs(86_400),
    }
}

fn accepted(answer: &Answer) -> bool {
    matches!(answer, Answer::Accepted { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn fcm_takes_what_we_compose_for_every_platform_over_tls() -> Result<()> {
    let pair = Pair::new(Settings::default()).await?;
    for platform in [Platform::Android, Platform::Ios, Platform::Web] {
        let plain = push(platform, "ok-1");
        let long = Preview { title: "\u{1f469}\u{200d}\u{1f680}".repeat(500), body: "\"\\\u{1}ä".repeat(5_000) };
        let shown = Push { preview: Some(long), ..push(platform, "ok-2") };
        let by_fid = Push { target_kind: TargetKind::Fid, ..push(platform, "ok-3") };
        for push in [plain, shown, by_fid] {
            let answer = pair.send(&push).await;
            assert!(accepted(&answer), "{answer:?} to {push:?}");
        }
    }
    assert_eq!(pair.fake.token_calls().len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_fcm_means_to_a_push_what_it_should() -> Result<()> {
    let pair = Pair::new(Settings::default()).await?;
    for (token, expected) in [
        ("unreg-1", "TokenVoid"),
        ("badtok-1", "TokenVoid"),
        ("badfield-1", "TokenVoid"),
        ("mismatch-1", "WrongSender"),
        ("quota-1", "Later { after: Some(60s)"),
        ("down-1", "Later"),
        ("internal-1", "Later"),
        ("html502-1", "Later"),
        ("empty500-1", "Later"),
        ("reset-1", "Later"),
        ("accept-then-reset-1", "Later"),
        ("ok-1", "Accepted"),
        ("expired-1", "Stopped"),
    ] {
        let answer = format!("{:?}", pair.send(&push(Platform::Android, token)).await);
        assert!(answer.starts_with(expected), "{token}: {answer}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_go_away_lose_and_repeat_nothing() -> Result<()> {
    let pair = Pair::new(Settings { close_after: 50, ..Settings::default() }).await?;
    let answers = pair.send_many("ok", 2_000).await;
    let others: Vec<_> = answers.iter().filter(|answer| !accepted(answer)).collect();
    assert!(others.is_empty(), "{others:?}");
    let report = pair.fake.check(&Rules::default());
    assert_eq!((report.delivered, report.duplicates), (2_000, 0));
    assert!(pair.fake.connections() > 20, "{}", pair.fake.connections());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stream_is_sent_again_at_once() -> Result<()> {
    let pair = Pair::new(Settings::default()).await?;
    pair.fake.script("ok-1", Behaviour::Refuse, 2);
    assert!(accepted(&pair.send(&push(Platform::Android, "ok-1")).await));
    pair.fake.script("ok-2", Behaviour::Refuse, 3);
    let answer = pair.send(&push(Platform::Android, "ok-2")).await;
    assert!(matches!(answer, Answer::Later { .. }), "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_streams_than_ours_are_respected() -> Result<()> {
    let pair = Pair::new(Settings { max_streams: 5, ..Settings::default() }).await?;
    let answers = pair.send_many("slow20", 400).await;
    let others: Vec<_> = answers.iter().filter(|answer| !accepted(answer)).collect();
    assert!(others.is_empty(), "{others:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_that_ends_fails_no_push() -> Result<()> {
    let pair = Pair::new(Settings { access_token_life_s: 2, ..Settings::default() }).await?;
    while pair.fake.token_calls().len() < 4 {
        let answers = pair.send_many("ok", 50).await;
        assert!(answers.iter().all(accepted), "{answers:?}");
    }
    assert_eq!(pair.outcomes(Outcome::Unauthenticated), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_is_left_alone_and_comes_back() -> Result<()> {
    let pair = Pair::new(Settings::default()).await?;
    pair.fake.mode(Behaviour::Html502);
    pair.provider.ready().await;
    let mut answer = Answer::Accepted { id: String::new() };
    while !matches!(answer, Answer::Stopped { .. }) {
        answer = pair.provider.send(&push(Platform::Android, "ok-1")).await;
    }
    let failed = pair.outcomes(Outcome::ServerError);
    pair.fake.change(Change { mode: Some(Default::default()), ..Change::default() });
    // A probe goes through after ten seconds.
    assert_eq!(pair.provider.ready().await, 1);
    assert!(accepted(&pair.provider.send(&push(Platform::Android, "ok-2")).await));
    let report = pair.fake.check(&Rules::default());
    assert_eq!(report.outcomes[&Outcome::ServerError], failed);
    Ok(())
}
