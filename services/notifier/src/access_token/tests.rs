//! The token's life, in virtual time and with an issuer by script.

use super::*;
use crate::test_account::TestAccount;
use std::{
    future::Future,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Answers in order, the last one again and again, and counts.
#[derive(Clone)]
struct Script(Arc<Mutex<Vec<Step>>>, Arc<AtomicUsize>);

#[derive(Clone)]
enum Step {
    Lives(u64),
    Takes(u64, u64),
    Fails,
    Refuses,
    Panics,
}

impl Issuer for Script {
    fn ask(&self, _: &ServiceAccount) -> impl Future<Output = Result<Grant, Failure>> + Send {
        let number = self.1.fetch_add(1, Ordering::SeqCst) + 1;
        let mut steps = self.0.lock().unwrap();
        let step = if steps.len() > 1 { steps.remove(0) } else { steps[0].clone() };
        async move {
            let asked = Instant::now();
            let lifetime = match step {
                Step::Lives(lifetime) => lifetime,
                Step::Takes(seconds, lifetime) => {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    lifetime
                }
                Step::Fails => return Err(Failure::Unreachable("503".into())),
                Step::Panics => panic!("a bug"),
                Step::Refuses => return Err(Failure::Refused("400 invalid_grant".into())),
            };
            let header = HeaderValue::try_from(format!("Bearer {number}")).unwrap();
            Ok(Grant { header, lifetime: Duration::from_secs(lifetime), asked })
        }
    }
}

/// A keeper at work on `steps`, and what it needs to live.
struct Fixture {
    tokens: AccessTokens,
    asked: Arc<AtomicUsize>,
    file: tempfile::NamedTempFile,
    begin: Instant,
    life: Shutdown,
}

impl Fixture {
    fn new(steps: &[Step]) -> Self {
        let script = Script(Arc::new(Mutex::new(steps.to_vec())), Arc::default());
        let asked = Arc::clone(&script.1);
        let file = TestAccount::new().file("http://127.0.0.1:1/token");
        let account = ServiceAccount::read(file.path(), true).unwrap();
        let (life, metrics) = (Shutdown::new(), Arc::new(Metrics::new("test")));
        let tokens = AccessTokens::keep(account, file.path().to_owned(), true, script, metrics, &life);
        Self { tokens, asked, file, begin: Instant::now(), life }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn until(&self, second: u64) {
        tokio::time::sleep_until(self.begin + Duration::from_secs(second)).await;
    }

    fn token(&self) -> Result<String, String> {
        self.tokens.current().map(|token| token.header.to_str().unwrap().to_owned())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

#[tokio::test(start_paused = true)]
async fn one_token_serves_everybody_and_is_replaced_five_to_six_minutes_early() {
    let fixture = Fixture::new(&[Step::Lives(3_600)]);
    assert!(fixture.token().is_err());
    futures_util::future::join_all((0..100).map(|_| fixture.tokens.ready())).await;
    assert_eq!((fixture.token().as_deref(), fixture.asked()), (Ok("Bearer 1"), 1));
    fixture.until(3_600 - 361).await;
    assert_eq!(fixture.asked(), 1);
    fixture.until(3_600 - 299).await;
    assert_eq!((fixture.token().as_deref(), fixture.asked()), (Ok("Bearer 2"), 2));
}

#[tokio::test(start_paused = true)]
async fn a_short_lived_token_is_replaced_at_half_of_its_life() {
    let fixture = Fixture::new(&[Step::Lives(10)]);
    fixture.tokens.ready().await;
    fixture.until(4).await;
    assert_eq!(fixture.asked(), 1);
    fixture.until(51).await;
    assert_eq!(fixture.asked(), 11);
}

#[tokio::test(start_paused = true)]
async fn the_old_one_serves_while_the_new_one_takes_its_time() {
    let fixture = Fixture::new(&[Step::Lives(100), Step::Takes(30, 100)]);
    for second in (1..100).step_by(7) {
        fixture.until(second).await;
        assert!(fixture.token().is_ok(), "{second}");
    }
    assert_eq!(fixture.token().as_deref(), Ok("Bearer 2"));
}

#[tokio::test(start_paused = true)]
async fn while_the_endpoint_is_down_the_old_one_serves_to_its_end_and_then_pushes_wait() {
    let mut steps = vec![Step::Lives(100)];
    steps.extend(vec![Step::Fails; 6]);
    steps.push(Step::Lives(100));
    let fixture = Fixture::new(&steps);
    fixture.tokens.ready().await;
    fixture.until(99).await;
    assert_eq!(fixture.token().as_deref(), Ok("Bearer 1"));
    fixture.until(101).await;
    assert_eq!(fixture.token(), Err("the token endpoint does not give a token: 503".into()));
    fixture.tokens.ready().await;
    assert_eq!(fixture.token().as_deref(), Ok("Bearer 8"));
    assert!(fixture.begin.elapsed() < Duration::from_secs(50 + 6 * 38));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_fcm_refuses_is_replaced_once_however_many_saw_it() {
    let fixture = Fixture::new(&[Step::Lives(3_600), Step::Takes(1, 3_600)]);
    fixture.tokens.ready().await;
    let first = fixture.tokens.current().unwrap();
    let others = futures_util::future::join_all((0..100).map(|_| fixture.tokens.replace(&first))).await;
    assert!(others.iter().all(|other| *other == others[0] && *other != first));
    assert_eq!(fixture.asked(), 2);
    // Who comes late gets the new one at once.
    assert_eq!(fixture.tokens.replace(&first).await, others[0]);
    assert_eq!((fixture.asked(), fixture.begin.elapsed()), (2, Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_fcm_refuses_serves_nobody_from_then_on() {
    let fixture = Fixture::new(&[Step::Lives(100), Step::Takes(30, 100)]);
    fixture.tokens.ready().await;
    let first = fixture.tokens.current().unwrap();
    // The task is busy: it asks for the next one already.
    fixture.until(60).await;
    assert_eq!((fixture.token().as_deref(), fixture.asked()), (Ok("Bearer 1"), 2));
    assert!(fixture.tokens.replace(&first).now_or_never().is_none());
    assert_eq!(fixture.token(), Err(REFUSED.into()));
    fixture.tokens.ready().await;
    assert_eq!((fixture.token().as_deref(), fixture.asked()), (Ok("Bearer 2"), 2));
}

#[tokio::test(start_paused = true)]
async fn a_panic_does_not_end_the_task_and_the_old_token_serves_meanwhile() {
    let fixture = Fixture::new(&[Step::Panics, Step::Lives(100), Step::Panics, Step::Panics, Step::Lives(3_600)]);
    fixture.until(1).await;
    assert_eq!(fixture.token(), Err("the task that asks for access tokens failed".into()));
    fixture.tokens.ready().await;
    assert_eq!((fixture.token().as_deref(), fixture.begin.elapsed()), (Ok("Bearer 2"), AGAIN));
    fixture.until(5 + 51).await;
    assert_eq!((fixture.token().as_deref(), fixture.asked()), (Ok("Bearer 2"), 3));
    fixture.until(5 + 61).await;
    assert_eq!((fixture.token().as_deref(), fixture.asked()), (Ok("Bearer 5"), 5));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_refused_is_tried_each_minute_and_a_new_one_in_its_file_at_once() {
    let fixture = Fixture::new(&[Step::Refuses, Step::Refuses, Step::Refuses, Step::Lives(3_600)]);
    fixture.until(1).await;
    assert_eq!(fixture.token(), Err("the token endpoint refuses our key: 400 invalid_grant".into()));
    fixture.until(59).await;
    assert_eq!(fixture.asked(), 1);
    fixture.until(61).await;
    assert_eq!(fixture.asked(), 2);
    let text = std::fs::read_to_string(fixture.file.path()).unwrap();
    std::fs::write(fixture.file.path(), text.replace("key-1", "key-2")).unwrap();
    fixture.until(121).await;
    assert_eq!((fixture.asked(), fixture.token().as_deref()), (4, Ok("Bearer 4")));
}

#[test]
fn when_a_token_is_replaced() {
    let seconds =
        |lifetime, jitter| refresh_after(Duration::from_secs(lifetime), Duration::from_secs(jitter)).as_secs();
    assert_eq!((seconds(3_600, 0), seconds(3_600, 60)), (3_300, 3_240));
    assert_eq!((seconds(599, 60), seconds(600, 60)), (299, 240));
}
