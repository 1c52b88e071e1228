use super::*;

/// A log of made-up requests of one token, "t", about one channel, "c", each answered 10 ms after it came.
#[derive(Default)]
struct Story(Vec<Entry>);

impl Story {
    fn send(mut self, at_s: f64, seq: u64, outcome: Outcome) -> Self {
        let begun_us = (at_s * 1e6) as u64;
        self.0.push(Entry {
            number: self.0.len() as u64,
            at_ms: begun_us / 1_000,
            begun_us,
            ended_us: Some(begun_us + 10_000),
            connection: 1,
            stream: 1,
            bearer: 1,
            token: "t".into(),
            channel: Some("c".into()),
            seq: Some(seq),
            n: Some(1),
            body_hash: 0,
            bytes: 100,
            leaked: false,
            processed: outcome == Outcome::Accepted,
            outcome,
            status: None,
            retry_after: None,
        });
        self
    }

    /// Changes the last request.
    fn but(mut self, change: impl FnOnce(&mut Entry)) -> Self {
        change(self.0.last_mut().unwrap());
        self
    }

    fn judged(&self) -> Report {
        check(&self.0, 0, &Rules::default())
    }
}

use Outcome::{Accepted, Gone, Pending, Quota, Refused, Reset, ServerError, Unauthenticated, Unregistered};

fn story() -> Story {
    Story::default()
}

#[test]
fn a_good_run_is_clean_and_counted() {
    let report = story()
        .send(0.0, 1, ServerError)
        .send(10.02, 1, Accepted)
        .send(13.1, 2, Accepted)
        .send(13.2, 5, Accepted)
        .but(|entry| entry.channel = Some("other".into()))
        .judged();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!([report.requests, report.delivered, report.different, report.duplicates], [4, 3, 3, 0]);
    assert_eq!([report.too_close, report.peak_per_s, report.peak_delivered_per_s, report.span_ms], [0, 2, 2, 13_200]);
    assert_eq!(report.outcomes[&ServerError], 1);
}

#[test]
fn delivered_twice_is_a_duplicate_also_when_the_sender_could_not_know() {
    let reset = story().send(0.0, 1, Reset).but(|entry| entry.processed = true);
    let report = reset.send(20.0, 1, Accepted).judged();
    assert_eq!([report.delivered, report.different, report.duplicates, report.early_retries], [2, 1, 1, 0]);
}

#[test]
fn a_retry_within_ten_seconds_of_a_failure_is_early() {
    for outcome in [ServerError, Reset, Gone] {
        let early = |at| story().send(0.0, 1, outcome).send(at, 1, Accepted).judged().early_retries;
        assert_eq!([early(10.0), early(10.011)], [1, 0], "{outcome:?}");
    }
    // Also with news: the row of that channel is the same. What is older is another's.
    assert_eq!(story().send(0.0, 5, ServerError).send(5.0, 6, Accepted).judged().early_retries, 1);
    assert_eq!(story().send(0.0, 5, ServerError).send(5.0, 4, Accepted).judged().early_retries, 0);
    // An earlier failure goes on to count.
    let report = story().send(0.0, 1, Quota).send(61.0, 1, ServerError).send(66.0, 1, Accepted).judged();
    assert_eq!((report.early_retries, report.findings[0].after_ms), (1, Some(4_990)));
}

#[test]
fn a_quota_asks_for_its_retry_after_or_a_minute() {
    let early = |at, asked| {
        let first = story().send(0.0, 1, Quota).but(|entry| entry.retry_after = asked);
        first.send(at, 1, Accepted).judged().early_retries
    };
    assert_eq!([early(59.9, None), early(60.02, None)], [1, 0]);
    assert_eq!([early(6.9, Some(7)), early(7.02, Some(7))], [1, 0]);
    let unavailable = story().send(0.0, 1, ServerError).but(|entry| entry.retry_after = Some(30));
    assert_eq!(unavailable.send(29.0, 1, Accepted).judged().early_retries, 1);
}

#[test]
fn what_the_server_never_looked_at_may_be_sent_again_at_once() {
    let report = story().send(0.0, 1, Refused).send(0.1, 1, Accepted).judged();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.duplicates, 0);
}

#[test]
fn two_tries_under_way_at_once_are_no_retry() {
    let report = story().send(0.0, 1, Pending).but(|entry| entry.ended_us = None).send(1.0, 1, Accepted).judged();
    assert_eq!(report.early_retries, 0);
}

#[test]
fn a_401_allows_one_try_at_once_with_another_access_token() {
    let again =
        |bearer| story().send(0.0, 1, Unauthenticated).send(0.1, 1, Accepted).but(|entry| entry.bearer = bearer);
    assert_eq!([again(1).judged().early_retries, again(2).judged().early_retries], [1, 0]);
    let third = story()
        .send(0.0, 1, Unauthenticated)
        .send(0.1, 1, Unauthenticated)
        .but(|entry| entry.bearer = 2)
        .send(0.2, 1, Accepted)
        .but(|entry| entry.bearer = 3);
    assert_eq!(third.judged().early_retries, 1);
}

#[test]
fn an_answer_that_no_try_can_change_forbids_the_same_message() {
    for outcome in [Outcome::Invalid, Outcome::BadToken, Outcome::WrongSender, Outcome::PlatformKey] {
        assert_eq!(story().send(0.0, 1, outcome).send(900.0, 1, Accepted).judged().futile_retries, 1);
        assert_eq!(story().send(0.0, 1, outcome).send(900.0, 2, Accepted).judged().futile_retries, 0);
    }
}

#[test]
fn a_dead_token_gets_only_what_was_under_way() {
    let after = |at| story().send(0.0, 1, Unregistered).send(at, 2, Unregistered).judged().to_dead_tokens;
    assert_eq!([after(0.5), after(1.1)], [0, 1]);
    let other = story().send(0.0, 1, Unregistered).send(5.0, 2, Accepted).but(|entry| entry.token = "u".into());
    assert_eq!(other.judged().to_dead_tokens, 0);
}

#[test]
fn needles_distance_and_order_are_counted() {
    let report = story()
        .send(0.0, 2, Accepted)
        .send(2.0, 1, Accepted)
        .but(|entry| entry.leaked = true)
        .send(4.95, 3, Accepted)
        .judged();
    assert_eq!([report.leaks, report.too_close, report.out_of_order], [1, 1, 1]);
    let finding = Finding { what: "leaks".to_owned(), number: 1, earlier: None, after_ms: None };
    assert_eq!(report.findings[0], finding);
}

#[test]
fn a_device_takes_240_in_any_minute() {
    let every = |ms: u64, count: u64| {
        (0..count).fold(story(), |story, n| {
            story.send((n * ms) as f64 / 1_000.0, n, Accepted).but(|entry| entry.channel = Some(n.to_string().into()))
        })
    };
    assert_eq!(every(250, 1_000).judged().above_device_rate, 0);
    assert_eq!(every(200, 245).judged().above_device_rate, 5);
}

#[test]
fn the_newest_delivered_seq_is_known_for_each_token_and_channel() {
    let story = story().send(0.0, 4, Accepted).send(5.0, 9, Accepted).send(9.0, 12, ServerError);
    let newest = newest_accepted(&story.0);
    assert_eq!(newest[&("t".into(), "c".into())], 9);
}

#[test]
fn a_report_survives_json() {
    let report = story().send(0.0, 1, ServerError).send(1.0, 1, Accepted).judged();
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}
