//! Tables of tokens that must not be believed: forged by others, or ours with one thing changed. Each table starts from
//! a token that *is* believed, so that a row fails for its own reason only.

use crate::{
    AccessTokens, AuthError, IdentityProvider, IdentityProviders, KeySet, Refusal, SigningKey, TicketVerifier,
    test_keys::{Folder, Outside, jwks, now, ours, token, unsigned, write_jwks},
};
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const ISSUER: &str = "touchline";
const USER: &str = "0190b3c8-7d3e-7c61-9b1a-2f6f0a6b8e11";

/// Our key both as we keep it and as an attacker with the private half would use it.
struct Ours {
    key: Arc<SigningKey>,
    encoding: EncodingKey,
    keys: KeySet,
}

impl Ours {
    fn new() -> Self {
        let (key, pem) = SigningKey::generate().unwrap();
        let keys = KeySet::from_jwks(&jwks(&[key.public_jwk()])).unwrap();
        Self { key: Arc::new(key), encoding: EncodingKey::from_ed_pem(pem.as_bytes()).unwrap(), keys }
    }

    fn header(&self, typ: &str) -> Value {
        json!({"alg": "EdDSA", "typ": typ, "kid": self.key.kid()})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        token(header, claims, &self.encoding, Algorithm::EdDSA)
    }

    fn access(&self) -> AccessTokens {
        AccessTokens::new(Arc::clone(&self.key), self.keys.clone(), ISSUER, Duration::from_secs(900)).unwrap()
    }

    fn tickets(&self) -> TicketVerifier {
        TicketVerifier::new(self.keys.clone())
    }
}

fn access_claims() -> Value {
    let now = now();
    json!({"iss": ISSUER, "aud": "touchline", "sub": USER, "sid": USER, "iat": now, "nbf": now, "exp": now + 900})
}

fn ticket_claims() -> Value {
    let now = now();
    json!({
        "iss": "touchline-api", "aud": "touchline-gateway", "sub": USER, "dev": "phone-1", "jti": "abcdefghijklmnopqrst_-",
        "iat": now, "nbf": now, "exp": now + 30, "sx": now + 900,
    })
}

/// `value` with one member set, or taken away by null.
fn with(value: &Value, member: &str, to: &Value) -> Value {
    let mut changed = value.clone();
    let members = changed.as_object_mut().unwrap();
    if to.is_null() {
        members.remove(member);
    } else {
        members.insert(member.to_owned(), to.clone());
    }
    changed
}

fn reason<T: std::fmt::Debug>(result: Result<T, AuthError>) -> Refusal {
    result.unwrap_err().refusal().unwrap()
}

#[tokio::test]
async fn a_forged_access_token_is_refused() {
    let ours = Ours::new();
    let (access, header, claims) = (ours.access(), ours.header("at+jwt"), access_claims());
    let good = ours.sign(&header, &claims);
    access.verify(&good).await.unwrap();

    let (message, signature) = good.rsplit_once('.').unwrap();
    let public = ours.key.public_jwk();
    let x = public["x"].as_str().unwrap();
    let hs256 = |secret: &[u8]| {
        let message = unsigned(&with(&header, "alg", &json!("HS256")), &claims);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    // A key of the attacker's own, named in every way a header can name a key.
    let attacker = Ours::new();
    let named = |member: &str, value: Value| attacker.sign(&with(&header, member, &value), &claims);
    let none = |alg: &str| format!("{}.", unsigned(&with(&header, "alg", &json!(alg)), &claims));
    let with_kid = |kid: Value| ours.sign(&with(&header, "kid", &kid), &claims);
    let other_family = Outside::ec("k");
    let es256 = token(&with(&header, "alg", &json!("ES256")), &claims, &other_family.private, Algorithm::ES256);
    let swapped = format!("{}.{signature}", unsigned(&header, &with(&claims, "sub", &json!(uuid::Uuid::nil()))));

    let table = [
        ("none", none("none"), Refusal::Malformed),
        ("None", none("None"), Refusal::Malformed),
        ("no alg", format!("{}.", unsigned(&with(&header, "alg", &Value::Null), &claims)), Refusal::Malformed),
        ("none, with a signature", format!("{}{signature}", none("none")), Refusal::Malformed),
        ("HS256 by the public key's bytes", hs256(&URL_SAFE_NO_PAD.decode(x).unwrap()), Refusal::Algorithm),
        ("HS256 by the public key's text", hs256(x.as_bytes()), Refusal::Algorithm),
        ("HS256 by the JWK", hs256(public.to_string().as_bytes()), Refusal::Algorithm),
        ("HS256 by nothing", hs256(b""), Refusal::Algorithm),
        ("ES256", es256, Refusal::Algorithm),
        ("EdDSA named otherwise", ours.sign(&with(&header, "alg", &json!("eddsa")), &claims), Refusal::Malformed),
        ("another's key", attacker.sign(&header, &claims), Refusal::Signature),
        ("another's key in jwk", named("jwk", attacker.key.public_jwk()), Refusal::Signature),
        ("another's key behind jku", named("jku", json!("https://evil.example/keys")), Refusal::Signature),
        ("another's key behind x5u", named("x5u", json!("https://evil.example/cert")), Refusal::Signature),
        ("another's key in x5c", named("x5c", json!(["MIIB"])), Refusal::Signature),
        ("another's kid", attacker.sign(&attacker.header("at+jwt"), &claims), Refusal::UnknownKey),
        ("empty signature", format!("{message}."), Refusal::Signature),
        ("no signature", message.to_owned(), Refusal::Malformed),
        (
            "signature cut",
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(&URL_SAFE_NO_PAD.decode(signature).unwrap()[..60])),
            Refusal::Signature,
        ),
        ("signature of zeros", format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 64])), Refusal::Signature),
        ("another user under the same signature", swapped, Refusal::Signature),
        ("no kid", with_kid(Value::Null), Refusal::UnknownKey),
        ("empty kid", with_kid(json!("")), Refusal::UnknownKey),
        ("a path for a kid", with_kid(json!("../../../../dev/null")), Refusal::UnknownKey),
        ("SQL for a kid", with_kid(json!("x' UNION SELECT 'AAAA' --")), Refusal::UnknownKey),
        ("a command for a kid", with_kid(json!("|/bin/sh -c id")), Refusal::UnknownKey),
        ("a zero byte in kid", with_kid(json!(format!("{}\0", ours.key.kid()))), Refusal::UnknownKey),
        ("a long kid", with_kid(json!("k".repeat(4000))), Refusal::UnknownKey),
        ("a number for a kid", with_kid(json!(0)), Refusal::Malformed),
        ("crit", ours.sign(&with(&header, "crit", &json!(["exp"])), &claims), Refusal::Critical),
        (
            "crit b64",
            ours.sign(&with(&with(&header, "crit", &json!(["b64"])), "b64", &json!(false)), &claims),
            Refusal::Critical,
        ),
        ("crit empty", ours.sign(&with(&header, "crit", &json!([])), &claims), Refusal::Critical),
        ("typ JWT", ours.sign(&with(&header, "typ", &json!("JWT")), &claims), Refusal::Type),
        ("no typ", ours.sign(&with(&header, "typ", &Value::Null), &claims), Refusal::Type),
        ("a ticket's typ", ours.sign(&ours.header("ticket+jwt"), &claims), Refusal::Type),
        ("four parts", format!("{good}.x"), Refusal::Malformed),
        ("padding", format!("{good}="), Refusal::Malformed),
        ("a space", format!(" {good}"), Refusal::Malformed),
        ("a line break", format!("{good}\n"), Refusal::Malformed),
        ("too long", ours.sign(&header, &with(&claims, "pad", &json!("x".repeat(9000)))), Refusal::Malformed),
        ("claims that are no object", ours.sign(&header, &json!([])), Refusal::Claims),
        ("nothing", String::new(), Refusal::Malformed),
        ("two dots", "..".to_owned(), Refusal::Malformed),
        ("not ASCII", "é.é.é".to_owned(), Refusal::Malformed),
    ];
    for (what, forged, expected) in table {
        assert_eq!(reason(access.verify(&forged).await), expected, "{what}");
        // A ticket's verifier must not believe it either, whatever its reason.
        reason(ours.tickets().verify(&forged).await);
    }
}

#[tokio::test]
async fn hints_at_other_keys_are_ignored_in_a_good_token() {
    let ours = Ours::new();
    let hinted =
        [("jku", json!("https://evil.example")), ("jwk", Ours::new().key.public_jwk()), ("x5c", json!(["MIIB"]))];
    for (member, value) in hinted {
        let token = ours.sign(&with(&ours.header("at+jwt"), member, &value), &access_claims());
        ours.access().verify(&token).await.unwrap();
    }
}

#[tokio::test]
async fn an_access_token_with_one_claim_changed_is_refused() {
    let ours = Ours::new();
    let (access, header, claims, now) = (ours.access(), ours.header("at+jwt"), access_claims(), now());
    let expires = access.verify(&ours.sign(&header, &claims)).await.unwrap().expires;
    assert_eq!(crate::token::unix_seconds(expires), now + 900);

    let table = [
        ("exp", json!(now - 120), Refusal::Expired),
        ("exp", json!(0), Refusal::Expired),
        ("exp", json!(-5), Refusal::Claims),
        ("exp", json!("9999999999"), Refusal::Claims),
        ("exp", json!(1e300), Refusal::Claims),
        ("exp", Value::Null, Refusal::Claims),
        ("nbf", json!(now + 120), Refusal::NotYet),
        ("nbf", json!("0"), Refusal::Claims),
        ("nbf", Value::Null, Refusal::Claims),
        ("iss", json!("touchline2"), Refusal::Issuer),
        ("iss", json!(""), Refusal::Issuer),
        ("iss", json!(["touchline"]), Refusal::Claims),
        ("iss", Value::Null, Refusal::Claims),
        ("aud", json!("touchline-gateway"), Refusal::Audience),
        ("aud", json!("touchlin"), Refusal::Audience),
        ("aud", json!(["touchline", "other"]), Refusal::Claims),
        ("aud", Value::Null, Refusal::Claims),
        ("sub", json!("root"), Refusal::Claims),
        ("sub", json!(1), Refusal::Claims),
        ("sub", Value::Null, Refusal::Claims),
        ("sid", json!(""), Refusal::Claims),
        ("sid", Value::Null, Refusal::Claims),
        ("iat", json!("now"), Refusal::Claims),
    ];
    for (claim, value, expected) in table {
        let token = ours.sign(&header, &with(&claims, claim, &value));
        assert_eq!(reason(access.verify(&token).await), expected, "{claim} = {value}");
    }
    // A claim that comes twice has no meaning.
    let twice = claims.to_string().replacen('{', r#"{"exp":9999999999,"#, 1);
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(twice));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &ours.encoding, Algorithm::EdDSA).unwrap();
    assert_eq!(reason(access.verify(&format!("{message}.{signature}")).await), Refusal::Claims);
}

#[tokio::test]
async fn clocks_may_differ_by_the_leeway_and_no_more() {
    let ours = Ours::new();
    let (now, access, tickets) = (now(), ours.access(), ours.tickets());
    // Not at the very edge: the clock runs on while the test does.
    for (off, good) in [(50, true), (70, false)] {
        for (claim, value) in [("exp", now - off), ("nbf", now + off)] {
            let token = ours.sign(&ours.header("at+jwt"), &with(&access_claims(), claim, &json!(value)));
            assert_eq!(access.verify(&token).await.is_ok(), good, "{claim} {off}");
        }
    }
    for (off, good) in [(4, true), (20, false)] {
        for (claim, value) in [("exp", now - off), ("nbf", now + off)] {
            let ticket = ours.sign(&ours.header("ticket+jwt"), &with(&ticket_claims(), claim, &json!(value)));
            assert_eq!(tickets.verify(&ticket).await.is_ok(), good, "{claim} {off}");
        }
    }
}

#[tokio::test]
async fn a_ticket_with_one_thing_changed_is_refused() {
    let ours = Ours::new();
    let (tickets, header, claims, now) = (ours.tickets(), ours.header("ticket+jwt"), ticket_claims(), now());
    tickets.verify(&ours.sign(&header, &claims)).await.unwrap();
    let table = [
        ("exp", json!(now - 60), Refusal::Expired),
        ("exp", Value::Null, Refusal::Claims),
        ("nbf", json!(now + 60), Refusal::NotYet),
        ("nbf", Value::Null, Refusal::Claims),
        ("iss", json!(ISSUER), Refusal::Issuer),
        ("iss", Value::Null, Refusal::Claims),
        ("aud", json!("touchline"), Refusal::Audience),
        ("aud", Value::Null, Refusal::Claims),
        ("sub", json!("root"), Refusal::Claims),
        ("sub", Value::Null, Refusal::Claims),
        ("dev", json!(""), Refusal::Claims),
        ("dev", json!("a b"), Refusal::Claims),
        ("dev", json!("x".repeat(65)), Refusal::Claims),
        ("dev", Value::Null, Refusal::Claims),
        ("jti", json!(""), Refusal::Claims),
        ("jti", json!("short"), Refusal::Claims),
        ("jti", json!("abcdefghijklmnop:*\r\nxx"), Refusal::Claims),
        ("jti", Value::Null, Refusal::Claims),
        ("sx", json!("later"), Refusal::Claims),
        ("sx", Value::Null, Refusal::Claims),
    ];
    for (claim, value, expected) in table {
        let ticket = ours.sign(&header, &with(&claims, claim, &value));
        assert_eq!(reason(tickets.verify(&ticket).await), expected, "{claim} = {value}");
    }
    let headers = [
        ("typ", json!("at+jwt"), Refusal::Type),
        ("typ", json!("JWT"), Refusal::Type),
        ("typ", Value::Null, Refusal::Type),
        ("crit", json!(["exp"]), Refusal::Critical),
        ("kid", Value::Null, Refusal::UnknownKey),
        ("alg", json!("none"), Refusal::Malformed),
        ("alg", json!("HS256"), Refusal::Algorithm),
    ];
    for (member, value, expected) in headers {
        let ticket = ours.sign(&with(&header, member, &value), &claims);
        assert_eq!(reason(tickets.verify(&ticket).await), expected, "{member} = {value}");
    }
}

#[tokio::test]
async fn a_token_is_no_ticket_and_a_ticket_no_token() {
    let ours = Ours::new();
    let (access, tickets) = (ours.access(), ours.tickets());
    let user = USER.parse().unwrap();
    let token = access.issue(user, uuid::Uuid::now_v7()).unwrap();
    let signer = crate::TicketSigner::new(Arc::clone(&ours.key));
    let ticket = signer.sign(user, &"phone".parse().unwrap(), std::time::SystemTime::now()).unwrap();
    assert_eq!(reason(tickets.verify(&token).await), Refusal::Type);
    assert_eq!(reason(access.verify(&ticket).await), Refusal::Type);
    // Not even with the other's typ, or the other's audience.
    let dressed = ours.sign(&ours.header("ticket+jwt"), &access_claims());
    assert_eq!(reason(tickets.verify(&dressed).await), Refusal::Claims);
    let dressed = ours.sign(&ours.header("at+jwt"), &ticket_claims());
    assert_eq!(reason(access.verify(&dressed).await), Refusal::Claims);
}

const OUTSIDE: &str = "https://id.example/realm";

fn outside_claims() -> Value {
    let now = now();
    json!({
        "iss": OUTSIDE, "aud": ["account", "chat"], "sub": "f:42", "exp": now + 300, "nbf": now - 1,
        "preferred_username": "Ann", "name": "Ann A.",
    })
}

async fn providers(folder: &Folder, keys: &[&Outside], algorithms: &[&str]) -> IdentityProviders {
    let file = folder.path("outside.json");
    write_jwks(&file, &keys.iter().map(|key| key.public.clone()).collect::<Vec<_>>());
    let one = IdentityProvider {
        issuer: OUTSIDE.to_owned(),
        audience: "chat".to_owned(),
        jwks_file: Some(file),
        jwks_url: None,
        algorithms: algorithms.iter().map(|&name| name.to_owned()).collect(),
    };
    IdentityProviders::open(&[one]).await.unwrap()
}

#[tokio::test]
async fn an_outside_token_is_believed_when_everything_is_right() {
    let folder = Folder::new();
    let rsa = Outside::rsa("r1");
    let believed = providers(&folder, &[&rsa], &["RS256", "PS256"]).await;
    for (algorithm, name) in [(Algorithm::RS256, "RS256"), (Algorithm::PS256, "PS256")] {
        for typ in [json!("JWT"), json!("jwt"), json!("at+jwt"), json!("application/at+jwt"), Value::Null] {
            let header = with(&json!({"alg": name, "kid": "r1"}), "typ", &typ);
            let token = token(&header, &outside_claims(), &rsa.private, algorithm);
            assert!(believed.claims_to_issue(&token));
            let identity = believed.verify(&token).await.unwrap();
            assert_eq!((identity.issuer.as_str(), identity.subject.as_str()), (OUTSIDE, "f:42"));
            assert_eq!((identity.handle_hint.as_deref(), identity.name.as_deref()), (Some("Ann"), Some("Ann A.")));
        }
    }
    let (ours, _) = ours();
    let folder = Folder::new();
    let ec = Outside::ec("e1");
    let believed = providers(&folder, &[&ec], &["ES256"]).await;
    let header = json!({"alg": "ES256", "kid": "e1"});
    let strange = with(&with(&outside_claims(), "name", &json!(7)), "nbf", &Value::Null);
    let identity = believed.verify(&token(&header, &strange, &ec.private, Algorithm::ES256)).await.unwrap();
    assert_eq!(identity.name, None);
    let own = crate::TicketSigner::new(ours)
        .sign(USER.parse().unwrap(), &"d".parse().unwrap(), std::time::SystemTime::now())
        .unwrap();
    assert!(!believed.claims_to_issue(&own) && !IdentityProviders::default().claims_to_issue(&own));
}

#[tokio::test]
async fn an_outside_token_with_one_thing_changed_is_refused() {
    let folder = Folder::new();
    let (rsa, ec, foreign) = (Outside::rsa("r1"), Outside::ec("e1"), Outside::rsa("r1"));
    let believed = providers(&folder, &[&rsa, &ec], &["RS256"]).await;
    let (header, claims, now) = (json!({"alg": "RS256", "typ": "JWT", "kid": "r1"}), outside_claims(), now());
    let sign = |header: &Value, claims: &Value| token(header, claims, &rsa.private, Algorithm::RS256);
    believed.verify(&sign(&header, &claims)).await.unwrap();

    let table = [
        ("exp", json!(now - 120), Refusal::Expired),
        ("exp", json!("soon"), Refusal::Claims),
        ("exp", Value::Null, Refusal::Claims),
        ("nbf", json!(now + 120), Refusal::NotYet),
        ("iss", json!("https://id.example/realm/"), Refusal::Issuer),
        ("iss", json!([OUTSIDE]), Refusal::Issuer),
        ("iss", Value::Null, Refusal::Issuer),
        ("aud", json!("account"), Refusal::Audience),
        ("aud", json!(["chat2"]), Refusal::Audience),
        ("aud", json!([]), Refusal::Audience),
        ("aud", json!(7), Refusal::Claims),
        ("aud", Value::Null, Refusal::Claims),
        ("sub", json!(""), Refusal::Claims),
        ("sub", json!("a\u{0}b"), Refusal::Claims),
        ("sub", json!("s".repeat(256)), Refusal::Claims),
        ("sub", json!(42), Refusal::Claims),
        ("sub", Value::Null, Refusal::Claims),
    ];
    for (claim, value, expected) in table {
        let token = sign(&header, &with(&claims, claim, &value));
        assert_eq!(reason(believed.verify(&token).await), expected, "{claim} = {value}");
    }
    let public_pem = rsa.public["n"].as_str().unwrap();
    let forged = [
        ("a ticket's typ", sign(&with(&header, "typ", &json!("ticket+jwt")), &claims), Refusal::Type),
        ("crit", sign(&with(&header, "crit", &json!(["exp"])), &claims), Refusal::Critical),
        ("no kid", sign(&with(&header, "kid", &Value::Null), &claims), Refusal::UnknownKey),
        (
            "the EC key, which is not of the list",
            sign(&with(&header, "kid", &json!("e1")), &claims),
            Refusal::UnknownKey,
        ),
        (
            "RS512, not of the list",
            token(&with(&header, "alg", &json!("RS512")), &claims, &rsa.private, Algorithm::RS512),
            Refusal::Algorithm,
        ),
        (
            "another RSA key of that name",
            token(&header, &claims, &foreign.private, Algorithm::RS256),
            Refusal::Signature,
        ),
        (
            "HS256 by the public key",
            token(
                &with(&header, "alg", &json!("HS256")),
                &claims,
                &EncodingKey::from_secret(public_pem.as_bytes()),
                Algorithm::HS256,
            ),
            Refusal::Algorithm,
        ),
        (
            "ES256 by the EC key",
            token(&json!({"alg": "ES256", "kid": "e1"}), &claims, &ec.private, Algorithm::ES256),
            Refusal::Algorithm,
        ),
        ("none", format!("{}.", unsigned(&with(&header, "alg", &json!("none")), &claims)), Refusal::Malformed),
        ("nothing", String::new(), Refusal::Issuer),
    ];
    for (what, token, expected) in forged {
        assert_eq!(reason(believed.verify(&token).await), expected, "{what}");
    }
}

#[tokio::test]
async fn a_provider_cannot_speak_for_us_nor_for_another_provider() {
    let (folder, rsa) = (Folder::new(), Outside::rsa("r1"));
    let believed = providers(&folder, &[&rsa], &["RS256"]).await;
    let ours = Ours::new();
    let header = json!({"alg": "RS256", "typ": "at+jwt", "kid": "r1"});
    let as_us = token(&header, &access_claims(), &rsa.private, Algorithm::RS256);
    assert_eq!(reason(believed.verify(&as_us).await), Refusal::Issuer);
    assert_eq!(reason(ours.access().verify(&as_us).await), Refusal::Algorithm);
    let as_other = with(&outside_claims(), "iss", &json!("https://other.example"));
    assert_eq!(
        reason(believed.verify(&token(&header, &as_other, &rsa.private, Algorithm::RS256)).await),
        Refusal::Issuer
    );
}
