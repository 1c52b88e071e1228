//! A stack with notifiers that push to a fake FCM.

use anyhow::{Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use touchline_fake_fcm::{Entry, FakeFcm, Options, Report, Rules};
use touchline_harness::{Builder, Person, Stack, binary, eventually};
use touchline_ids::{ChannelId, Seq};
use touchline_notifier::config::{Config, Fcm, Kind};
use touchline_storage::PushOutcome;

pub(super) struct Scene {
    pub(super) fake: FakeFcm,
    pub(super) stack: Stack,
    _keys: TempDir,
}

impl Scene {
    /// An api, a gateway and so many notifiers.
    pub(super) async fn processes(notifiers: usize) -> Result<Self> {
        Self::start(Stack::processes(1, 1), notifiers, |_| {}).await
    }

    /// With one notifier that is configured like this.
    pub(super) async fn with(change: impl FnOnce(&mut Config)) -> Result<Self> {
        Self::start(Stack::processes(1, 1), 1, change).await
    }

    async fn start(stack: Builder, notifiers: usize, change: impl FnOnce(&mut Config)) -> Result<Self> {
        let (fake, keys) = (FakeFcm::start(Options::default()).await?, tempfile::tempdir()?);
        let files = fake.write_keys(keys.path())?;
        let fcm = Fcm {
            service_account_file: Some(files.key),
            ca_file: Some(files.ca),
            endpoint: fake.https(),
            ..Fcm::default()
        };
        let stack = stack
            // Sooner than by default; the order of things is the same.
            .api(|api| (api.ack_wait_ms, api.second_look_ms) = (500, 100))
            .notifiers(notifiers, |config| {
                (config.provider, config.fcm) = (Kind::Fcm, fcm);
                change(config);
            });
        let stack = stack.start().await?;
        Ok(Self { fake, stack, _keys: keys })
    }

    pub(super) async fn register(&self, person: &Person, platform: &str, token: &str) -> Result<()> {
        person.client().put_device(&"phone".parse()?, platform, "token", token).await?;
        Ok(())
    }

    /// A channel of so many people: its owner, and the others, who are away and have a phone each.
    pub(super) async fn channel_of(&self, count: usize) -> Result<(ChannelId, Person, Vec<Person>)> {
        let mut people = self.stack.crowd(count).await?;
        let channel = self.stack.channel(&people.iter().collect::<Vec<_>>()).await?;
        let owner = people.remove(0);
        for person in &people {
            self.register(person, "android", &format!("ok-{}", person.handle)).await?;
        }
        Ok((channel, owner, people))
    }

    /// Waits until a push of this message was accepted for the token.
    pub(super) async fn pushed(&self, token: &str, seq: Seq) -> Entry {
        let seq = u64::try_from(seq.0).ok();
        self.fake.log().wait_for(0, |entry| &*entry.token == token && entry.seq == seq && entry.processed).await
    }

    /// Waits until this came of a push to one of the person's devices.
    pub(super) async fn outcome(
        &self,
        person: &Person,
        channel: ChannelId,
        seq: Seq,
        outcome: PushOutcome,
    ) -> Result<()> {
        eventually(&format!("{} has {outcome:?}", person.handle), async || {
            let outcomes = self.stack.storage().push_outcomes(channel, seq).await?;
            Ok(outcomes.iter().any(|one| one.user == person.id && one.outcome == outcome))
        })
        .await
    }

    /// The message of a request.
    pub(super) fn message(&self, number: u64) -> Result<Value> {
        let body = self.fake.body(number).expect("the log keeps the newest bodies");
        let mut body: Value = serde_json::from_slice(&body)?;
        Ok(body["message"].take())
    }

    /// How often this token was tried.
    pub(super) fn tries(&self, token: &str) -> usize {
        self.fake.log().all().iter().filter(|entry| &*entry.token == token).count()
    }

    /// What `touchline notifications ARGUMENTS…` prints.
    pub(super) async fn notifications(&self, arguments: &[&str]) -> Result<String> {
        let ended = Command::new(binary()?)
            .arg("notifications")
            .args(arguments)
            .current_dir(self.stack.folder())
            .env_clear()
            .env("TOUCHLINE__DATABASE__URL", self.stack.database_url())
            .output()
            .await?;
        ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        Ok(String::from_utf8(ended.stdout)?)
    }

    pub(super) fn report(&self) -> Report {
        self.fake.check(&Rules::default())
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.stack.stop().await
    }
}
