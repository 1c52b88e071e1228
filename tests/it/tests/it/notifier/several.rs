//! Several notifiers, and their deaths.

use super::scene::Scene;
use anyhow::Result;
use std::collections::BTreeSet;
use touchline_fake_fcm::{Change, Latency, Rules};
use touchline_harness::NodeName;

const PEOPLE: usize = 120;

#[tokio::test(flavor = "multi_thread")]
async fn two_notifiers_share_the_work_and_when_one_is_killed_nobody_is_forgotten() -> Result<()> {
    let mut scene = Scene::processes(2).await?;
    let (channel, alice, others) = scene.channel_of(PEOPLE).await?;
    scene.fake.change(Change { latency: Some(Latency::fixed(700.0)), ..Change::default() });
    let sent = alice.send(channel, "hello").await?;
    // In the middle of it.
    scene.fake.log().wait_for(0, |entry| entry.number >= 20).await;
    scene.stack.kill(NodeName::Notifier(0)).await?;
    for person in &others {
        scene.pushed(&format!("ok-{}", person.handle), sent.seq).await;
    }
    // Its heir cannot know what it was told last.
    let report = scene.fake.check(&Rules { gone_ms: 0, ..Rules::default() });
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.different, others.len() as u64, "nobody was forgotten");
    assert!(report.duplicates <= 100, "no more than were under way: {report:?}");
    scene.stack.start_node(NodeName::Notifier(0)).await?;
    scene.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notifier_that_is_stopped_softly_leaves_nothing_undone_and_nothing_twice() -> Result<()> {
    let mut scene = Scene::processes(2).await?;
    let (channel, alice, others) = scene.channel_of(PEOPLE).await?;
    scene.fake.change(Change { latency: Some(Latency::fixed(300.0)), ..Change::default() });
    let mut seqs = BTreeSet::new();
    for notifier in 0..2 {
        let sent = alice.send(channel, "hello").await?;
        seqs.insert(sent.seq);
        let begun = scene.fake.log().next();
        scene.fake.log().wait_for(begun, |_| true).await;
        scene.stack.stop_node(NodeName::Notifier(notifier)).await?;
        scene.stack.start_node(NodeName::Notifier(notifier)).await?;
        for person in &others {
            scene.pushed(&format!("ok-{}", person.handle), sent.seq).await;
        }
    }
    let report = scene.report();
    assert!(report.is_clean() && report.duplicates == 0, "{report:?}");
    assert_eq!(report.delivered, (others.len() * seqs.len()) as u64);
    scene.stop().await
}
