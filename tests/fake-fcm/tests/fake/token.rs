use crate::sender::{Sender, claims, clear_client, exchange, exchange_form, now, sign, within};
use reqwest::header;
use serde_json::{Value, json};
use std::time::Duration;
use touchline_fake_fcm::{Change, FakeFcm, Options, Settings, TokenBehaviour, TokenMode};

#[tokio::test]
async fn a_good_assertion_gets_an_access_token_that_lives_as_long_as_it_says() {
    let settings = Settings { access_token_life_s: 1_800, ..Settings::default() };
    let fake = FakeFcm::start(Options { settings, ..Options::default() }).await.unwrap();
    let (client, base) = (clear_client(), fake.http());
    let assertion = sign(&fake.service_account(&base), &claims(&fake, &base));
    let answer = exchange(&client, &base, &assertion).await.json();
    assert!(answer["access_token"].as_str().unwrap().starts_with("ya29."));
    assert_eq!([&answer["expires_in"], &answer["token_type"]], [&json!(1_800), &json!("Bearer")]);
    assert_ne!(exchange(&client, &base, &assertion).await.json()["access_token"], answer["access_token"]);

    let calls = fake.token_calls();
    assert_eq!(
        calls.iter().map(|call| (call.status, call.issued)).collect::<Vec<_>>(),
        [(Some(200), Some(1)), (Some(200), Some(2))]
    );
}

#[tokio::test]
async fn a_wrong_assertion_is_refused_as_google_does() {
    let fake = FakeFcm::start(Options::default()).await.unwrap();
    let (client, base) = (clear_client(), fake.http());
    let with = |name: &str, value: Value| {
        let mut claims = claims(&fake, &base);
        claims[name] = value;
        claims
    };
    let timeframe = "reasonable timeframe";
    let cases = [
        (with("iss", json!("somebody@else")), 400, "invalid_grant", "account not found"),
        (with("sub", json!("user@example.com")), 401, "unauthorized_client", "unauthorized"),
        (with("aud", json!("https://example.com/token")), 400, "invalid_grant", "audience"),
        (with("scope", json!("https://www.googleapis.com/auth/drive")), 400, "invalid_scope", "scope"),
        (with("exp", json!(now() + 3_700)), 400, "invalid_grant", timeframe),
        (with("exp", json!(now() - 10)), 400, "invalid_grant", timeframe),
        (with("exp", Value::Null), 400, "invalid_grant", timeframe),
        (with("iat", json!(now() - 400)), 400, "invalid_grant", timeframe),
        (with("iat", json!(now() + 400)), 400, "invalid_grant", timeframe),
    ];
    for (claims, status, error, why) in cases {
        let answer = exchange(&client, &base, &sign(&fake.service_account(&base), &claims)).await;
        assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(error)), "{claims}");
        assert!(answer.json()["error_description"].as_str().unwrap().contains(why), "{claims}: {}", answer.text);
    }
    let google = with("aud", json!("https://oauth2.googleapis.com/token"));
    let cloud = with("scope", json!("https://www.googleapis.com/auth/cloud-platform"));
    for claims in [google, cloud, with("iat", json!(now() - 290))] {
        // What began earlier ends earlier.
        let mut claims = claims;
        claims["exp"] = json!(claims["iat"].as_u64().unwrap() + 3_600);
        assert_eq!(exchange(&client, &base, &sign(&fake.service_account(&base), &claims)).await.status, 200);
    }
}

#[tokio::test]
async fn a_forged_assertion_is_refused() {
    let fake = FakeFcm::start(Options::default()).await.unwrap();
    let other = FakeFcm::start(Options::default()).await.unwrap();
    let (client, base) = (clear_client(), fake.http());
    let claims = claims(&fake, &base);
    let mut strange: Value = serde_json::from_str(&other.service_account(&base)).unwrap();
    strange["private_key_id"] = Value::Null;
    let good = sign(&fake.service_account(&base), &claims);
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let (_, other_claims) = good.split_once('.').unwrap();
    let cases = [
        (sign(&other.service_account(&base), &claims), "Invalid JWT Signature."),
        (sign(&strange.to_string(), &claims), "Invalid JWT Signature."),
        (format!("{head}.eyJpc3MiOiJ4In0.{signature}"), "Invalid JWT Signature."),
        (other_claims.to_owned(), "Invalid JWT: Failed to parse the assertion."),
    ];
    for (assertion, why) in cases {
        let answer = exchange(&client, &base, &assertion).await;
        assert_eq!((answer.status, answer.json()["error_description"].as_str()), (400, Some(why)), "{assertion}");
    }
    assert!(fake.token_calls().iter().all(|call| call.issued.is_none() && call.error.is_some()));
}

#[tokio::test]
async fn another_form_is_refused() {
    let fake = FakeFcm::start(Options::default()).await.unwrap();
    let (client, base) = (clear_client(), fake.http());
    let cases = [
        ("grant_type=authorization_code&assertion=x", "unsupported_grant_type"),
        ("assertion=x", "invalid_request"),
        ("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer", "invalid_request"),
    ];
    for (form, error) in cases {
        let answer = exchange_form(&client, &base, form.to_owned()).await;
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some(error)), "{form}");
    }
    let json = client.post(format!("{base}/token")).json(&json!({})).send().await.unwrap();
    assert_eq!(json.status(), 400);
    assert_eq!(client.get(format!("{base}/token")).send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn the_token_endpoint_fails_when_told_to() {
    let sender = Sender::start(Settings::default()).await;
    let (fake, base) = (&sender.fake, &sender.base);
    let assertion = sign(&fake.service_account(base), &claims(fake, base));
    let set = |behaviour, times| {
        fake.change(Change { token: Some(TokenMode { behaviour, times }), ..Change::default() });
    };
    for (behaviour, status) in
        [(TokenBehaviour::Internal, 500), (TokenBehaviour::Unavailable, 503), (TokenBehaviour::InvalidGrant, 400)]
    {
        set(behaviour, Some(1));
        assert_eq!(exchange(&sender.client, base, &assertion).await.status, status);
        assert_eq!(exchange(&sender.client, base, &assertion).await.status, 200);
    }
    set(TokenBehaviour::Slow { ms: 30 }, Some(1));
    assert_eq!(exchange(&sender.client, base, &assertion).await.status, 200);

    set(TokenBehaviour::Hang, None);
    let form = format!("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion={assertion}");
    let request = sender.client.post(format!("{base}/token")).body(form);
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let error = request.timeout(Duration::from_millis(100)).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(fake.token_calls().last().unwrap().status, None);
}

#[tokio::test]
async fn the_clock_can_be_wrong_and_says_so() {
    let sender = Sender::start(Settings::default()).await;
    sender.fake.change(Change { clock_ahead_s: Some(3_000), ..Change::default() });
    let assertion = sign(&sender.fake.service_account(&sender.base), &claims(&sender.fake, &sender.base));
    assert_eq!(exchange(&sender.client, &sender.base, &assertion).await.status, 400);
    let answer = within(sender.push("ok-1", 1)).await.unwrap();
    let date = answer.headers()[header::DATE].to_str().unwrap();
    let date = httpdate::parse_http_date(date).unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(date.as_secs().abs_diff(now() + 3_000) < 60);
}
