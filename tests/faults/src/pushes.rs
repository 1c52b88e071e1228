//! Pushes at the fake FCM: who got one, how long it took, and whether the notifiers kept to FCM's rules.

use crate::{notices::Notified, outcome::Outcome, scenario::Context, stage::Stage};
use anyhow::{Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use touchline_fake_fcm::{Change, Entry, FakeFcm, KeyFiles, Options, Rules, Settings, newest_accepted};
use touchline_harness::{Builder, Stack};
use touchline_ids::{ChannelId, Seq, UserId};
use touchline_load::{Kind, Report};
use touchline_notifier::config;
use touchline_storage::{NewDevice, Platform, PutDevice, TargetKind};

/// Between two looks at the log.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A part of every text of a load. No push may carry it.
const NEEDLE: &str = "quick brown fox";
/// What was sent so shortly before a fault is not counted as undisturbed: the waits for an ack, and the 3 s between two
/// pushes.
const UNDISTURBED: Duration = Duration::from_secs(9);
/// The beginning of the way up after an outage, in seconds.
const BEGINNING_S: i64 = 10;

/// The push token of a user's good device.
pub(crate) fn ok_token(user: UserId) -> String {
    format!("ok-{user}")
}

/// Registers a device, or its new token.
///
/// # Errors
/// When that fails.
pub(crate) async fn register(stack: &Stack, user: UserId, device: &str, token: &str) -> Result<()> {
    let put = stack.storage().put_device(NewDevice {
        user_id: user,
        device_id: device.parse()?,
        platform: Platform::Android,
        target_kind: TargetKind::Token,
        push_token: token.to_owned(),
        login: None,
        now_ms: now_ms(),
    });
    ensure!(matches!(put.await?, PutDevice::Put(_)), "the device is not registered");
    Ok(())
}

/// A fake FCM, and what happened to it when.
pub(crate) struct Fcm {
    pub(crate) fake: FakeFcm,
    keys: KeyFiles,
    broken: bool,
    /// When it broke first.
    broke_ms: i64,
    /// When it broke last.
    last_ms: i64,
    /// When it was well last.
    well_ms: i64,
    well: Instant,
    _folder: TempDir,
}

impl Fcm {
    /// Starts one that looks for the load's text in every push.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start(settings: Settings) -> Result<Self> {
        let settings = Settings { needles: vec![NEEDLE.to_owned()], ..settings };
        let fake = FakeFcm::start(Options { settings, ..Options::default() }).await?;
        let folder = tempfile::tempdir()?;
        let keys = fake.write_keys(folder.path())?;
        Ok(Self {
            fake,
            keys,
            broken: false,
            broke_ms: 0,
            last_ms: 0,
            well_ms: 0,
            well: Instant::now(),
            _folder: folder,
        })
    }

    /// A stack with so many notifiers that push to it, over TLS.
    pub(crate) fn pushed_by(&self, notifiers: usize, stack: Builder, context: &Context, rate: u32) -> Builder {
        let fcm = config::Fcm {
            service_account_file: Some(self.keys.key.clone()),
            ca_file: Some(self.keys.ca.clone()),
            endpoint: self.fake.https(),
            rate,
            ..config::Fcm::default()
        };
        let stack = stack.notifiers(notifiers, |config| (config.provider, config.fcm) = (config::Kind::Fcm, fcm));
        if context.short {
            // The order of things is the same.
            return stack.api(|api| (api.ack_wait_ms, api.second_look_ms) = (1_000, 200));
        }
        stack
    }

    /// From now on it is not as it should be. Until it heals, other faults belong to the same one.
    pub(crate) fn breaks(&mut self, stage: &Stage, name: &str) {
        if !std::mem::replace(&mut self.broken, true) {
            stage.load.fault_began(name);
            self.last_ms = now_ms();
        }
        if self.broke_ms == 0 {
            self.broke_ms = now_ms();
        }
    }

    /// From now on it is.
    pub(crate) fn heals(&mut self, stage: &Stage) {
        stage.load.fault_healed();
        self.broken = false;
        (self.well_ms, self.well) = (now_ms(), Instant::now());
    }

    /// Waits until FCM has accepted a push to each of `users` for what others have sent until now.
    ///
    /// # Errors
    /// When the database is away.
    pub(crate) async fn reach(
        &self,
        stage: &Stage,
        users: &BTreeMap<UserId, Vec<ChannelId>>,
        patience: Duration,
    ) -> Result<Notified> {
        let (began, due) = (Instant::now(), stage.notices.due(users).await?);
        loop {
            let newest = self.fake.log().judge(|entries, _| newest_accepted(entries));
            let newest: HashMap<_, _> =
                newest.iter().map(|((token, channel), seq)| ((token.as_ref(), channel.as_ref()), *seq)).collect();
            let has = |user: UserId, channel: ChannelId, seq: Seq| {
                let (token, channel) = (ok_token(user), channel.to_string());
                newest.get(&(token.as_str(), channel.as_str())).is_some_and(|newest| *newest >= position(seq))
            };
            let yes = due.iter().filter(|((user, channel), seq)| has(*user, *channel, **seq)).count();
            let (no, after) = (due.len() - yes, began.elapsed());
            if no == 0 || after > patience {
                return Ok(Notified { yes, no, after });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until everybody who is absent is pushed to, and judges. `patience` counts from when it was well.
    ///
    /// # Errors
    /// When nothing can be judged.
    pub(crate) async fn close(&self, stage: Stage, patience: Duration, rules: &Rules) -> Result<(Outcome, Report)> {
        let absent = stage.users(Kind::Absent);
        let left = patience.saturating_sub(self.well.elapsed());
        let reached = self.reach(&stage, &absent, left).await?;
        let after_well = self.well.elapsed();
        let (mut outcome, report) = Box::pin(self.judged(stage, &absent, reached, rules)).await?;
        outcome.tell(format!("everybody was pushed to {:.1} s after FCM was well", after_well.as_secs_f64()));
        Ok((outcome, report))
    }

    /// The same without waiting, of `users` who were absent in some way.
    ///
    /// # Errors
    /// When nothing can be judged.
    pub(crate) async fn judged(
        &self,
        stage: Stage,
        users: &BTreeMap<UserId, Vec<ChannelId>>,
        reached: Notified,
        rules: &Rules,
    ) -> Result<(Outcome, Report)> {
        let messages = stage.stack.curtain().await?.messages().await?;
        let dead = stage.stack.storage().notification_letters(true, None, 10).await?;
        let live: BTreeSet<UserId> =
            stage.users(Kind::Steady).into_keys().filter(|user| !users.contains_key(user)).collect();
        let (mut outcome, report) = stage.close_with_report().await?;
        (outcome.notified, outcome.unnotified, outcome.notified_while_live) = (0, 0, 0);
        outcome.notify(reached);
        outcome.require(dead.is_empty(), format!("{} notifications were given up", dead.len()));
        self.keeps_rules(&mut outcome, rules);
        let entries = self.fake.log().all();
        let to = |entry: &&Entry| user_of(&entry.token).is_some_and(|user| live.contains(&user));
        outcome.notified_while_live = entries.iter().filter(|entry| entry.processed).filter(to).count();
        let share = outcome.notified_while_live as f64 / report.deliveries.shown.max(1) as f64;
        outcome.aim(share < 0.001, format!("{} pushes to who had acked", outcome.notified_while_live));
        self.tell_times(&mut outcome, &delays(&entries, &messages, users));
        let (peak, beginning) = self.peaks();
        outcome.tell(format!("afterwards at most {peak} pushes/s, in the first {BEGINNING_S} s {beginning}/s"));
        Ok((outcome, report))
    }

    /// FCM's rules: nothing too early, nothing in vain, nothing that tells.
    fn keeps_rules(&self, outcome: &mut Outcome, rules: &Rules) {
        let report = self.fake.check(rules);
        let said: Vec<_> = report.outcomes.iter().map(|(what, count)| format!("{count} {what:?}")).collect();
        outcome.tell(format!(
            "{} pushes accepted, {} of them twice ({})",
            report.delivered,
            report.duplicates,
            said.join(", ")
        ));
        outcome.tell(format!(
            "early retries {}, futile {}, to dead tokens {}, with text {}, closer than 3 s {}, out of order {}",
            report.early_retries,
            report.futile_retries,
            report.to_dead_tokens,
            report.leaks,
            report.too_close,
            report.out_of_order,
        ));
        let clean = report.is_clean() && report.too_close == 0;
        outcome.require(clean, format!("FCM's rules were broken: {:?}", report.findings));
    }

    /// From a message's acceptance to FCM's of the first push that covers it.
    fn tell_times(&self, outcome: &mut Outcome, delays: &[(i64, f64)]) {
        let undisturbed = self.broke_ms - i64::try_from(UNDISTURBED.as_millis()).unwrap_or_default();
        let of = |from: i64, until: i64| {
            let some = delays.iter().filter(|(sent_ms, _)| (from..until).contains(sent_ms));
            quantiles(some.map(|(_, took)| *took).collect())
        };
        outcome.tell(format!(
            "message → FCM p50/p99: {} before, {} during the last fault, {} afterwards",
            of(0, undisturbed),
            of(self.last_ms, self.well_ms),
            of(self.well_ms, i64::MAX),
        ));
    }

    /// The most requests in a second since it was well, and in the first ten seconds of that.
    pub(crate) fn peaks(&self) -> (u64, u64) {
        let mut seconds: BTreeMap<i64, u64> = BTreeMap::new();
        for entry in self.fake.log().all().iter().filter(|entry| milliseconds(entry) >= self.well_ms) {
            *seconds.entry((milliseconds(entry) - self.well_ms) / 1_000).or_default() += 1;
        }
        let beginning = seconds.range(..BEGINNING_S).map(|(_, count)| *count).max();
        (seconds.values().max().copied().unwrap_or_default(), beginning.unwrap_or_default())
    }
}

/// When each message for each of `users` was sent, and in how many seconds FCM had accepted a push that covers it; those
/// it never did are left out.
fn delays(
    entries: &[Entry],
    messages: &[(ChannelId, UserId, Seq, i64)],
    users: &BTreeMap<UserId, Vec<ChannelId>>,
) -> Vec<(i64, f64)> {
    // By (token, channel) and seq, when.
    let mut pushes: HashMap<(&str, &str), BTreeMap<u64, i64>> = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.processed) {
        if let (Some(channel), Some(seq)) = (&entry.channel, entry.seq) {
            let at = pushes.entry((&entry.token, channel)).or_default().entry(seq).or_insert(i64::MAX);
            *at = milliseconds(entry).min(*at);
        }
    }
    let mut delays = Vec::new();
    for (user, channels) in users {
        let token = ok_token(*user);
        for (channel, sender, seq, sent_ms) in messages {
            if sender == user || !channels.contains(channel) {
                continue;
            }
            let name = channel.to_string();
            let Some(pushes) = pushes.get(&(token.as_str(), name.as_str())) else { continue };
            // Pushes go out in order; the next one that reaches so far is the first.
            if let Some((_, at)) = pushes.range(position(*seq)..).next() {
                delays.push((*sent_ms, (at - sent_ms) as f64 / 1e3));
            }
        }
    }
    delays
}

fn quantiles(mut took: Vec<f64>) -> String {
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| took.get(took.len().saturating_sub(1) * percent / 100);
    match (at(50), at(99)) {
        (Some(half), Some(most)) => format!("{half:.1}/{most:.1} s"),
        _ => "-".into(),
    }
}

fn position(seq: Seq) -> u64 {
    u64::try_from(seq.0).unwrap_or_default()
}

fn milliseconds(entry: &Entry) -> i64 {
    i64::try_from(entry.at_ms).unwrap_or(i64::MAX)
}

/// Every token of ours ends with its user.
fn user_of(token: &str) -> Option<UserId> {
    token.get(token.len().checked_sub(36)?..)?.parse().ok()
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Changes a fake.
pub(crate) fn change(fake: &FakeFcm, change: impl FnOnce(&mut Change)) {
    let mut changes = Change::default();
    change(&mut changes);
    fake.change(changes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_whose_it_is() {
        let user = UserId::new();
        assert_eq!(user_of(&ok_token(user)), Some(user));
        assert_eq!(user_of("ok-somebody"), None);
    }

    #[test]
    fn quantiles_are_of_what_there_is() {
        assert_eq!(quantiles(vec![]), "-");
        assert_eq!(quantiles(vec![3.0, 1.0, 2.0]), "2.0/2.0 s");
    }
}
