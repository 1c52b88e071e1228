//! Public keys as they stand in a JWK set (RFC 7517), reduced to those we would ever use.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// More keys than this in one set is a mistake or an attack.
const MAX_KEYS: usize = 100;

/// A public key and what it may verify.
#[derive(Debug)]
pub(crate) struct PublicKey {
    pub(crate) key: DecodingKey,
    /// All of one family; never empty.
    pub(crate) algorithms: Vec<Algorithm>,
}

/// The members of a JWK that we look at. `x5c`, `x5u` and the like are not among them.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<String>,
}

/// Reads a JWK set. Keys for other uses, of other kinds, or without a `kid` are passed over, as RFC 7517 asks; a
/// private key among them is an error, because somebody should hear of it.
pub(crate) fn parse(set: &Value, allowed: &[Algorithm]) -> Result<HashMap<String, PublicKey>, String> {
    let list = set.get("keys").and_then(Value::as_array).ok_or("not a JWK set: no list called `keys`")?;
    if list.len() > MAX_KEYS {
        return Err(format!("more than {MAX_KEYS} keys"));
    }
    let mut keys = HashMap::new();
    for entry in list {
        let Ok(jwk) = Jwk::deserialize(entry) else { continue };
        if jwk.d.is_some() {
            return Err("it holds a private key (`d`), which must never stand here".to_owned());
        }
        if let Some((kid, key)) = usable(jwk, allowed) {
            keys.entry(kid).or_insert(key);
        }
    }
    if keys.is_empty() {
        return Err(format!("no key with a `kid` for {allowed:?}"));
    }
    Ok(keys)
}

fn usable(jwk: Jwk, allowed: &[Algorithm]) -> Option<(String, PublicKey)> {
    if jwk.usage.is_some_and(|usage| usage != "sig") {
        return None;
    }
    let (key, fitting) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("OKP", Some("Ed25519")) => (DecodingKey::from_ed_components(&jwk.x?).ok()?, &[Algorithm::EdDSA][..]),
        ("EC", Some("P-256")) => (DecodingKey::from_ec_components(&jwk.x?, &jwk.y?).ok()?, &[Algorithm::ES256][..]),
        ("EC", Some("P-384")) => (DecodingKey::from_ec_components(&jwk.x?, &jwk.y?).ok()?, &[Algorithm::ES384][..]),
        ("RSA", _) => {
            (DecodingKey::from_rsa_components(&jwk.n?, &jwk.e?).ok()?, jsonwebtoken::AlgorithmFamily::Rsa.algorithms())
        }
        // `oct` above all: a shared secret in a public set verifies nothing.
        _ => return None,
    };
    let stated = |algorithm: &Algorithm| jwk.alg.as_ref().is_none_or(|alg| alg.parse() == Ok(*algorithm));
    let algorithms: Vec<_> = fitting.iter().copied().filter(|a| allowed.contains(a) && stated(a)).collect();
    let kid = jwk.kid.filter(|kid| !kid.is_empty())?;
    (!algorithms.is_empty()).then_some((kid, PublicKey { key, algorithms }))
}

/// RFC 7638: SHA-256 over the required members in alphabetical order without spaces.
pub(crate) fn ed25519_thumbprint(x: &str) -> String {
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ED: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn kids(set: &Value, allowed: &[Algorithm]) -> Vec<String> {
        let mut kids: Vec<_> = parse(set, allowed).map(|keys| keys.into_keys().collect()).unwrap_or_default();
        kids.sort();
        kids
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        // Appendix A.3 of RFC 8037 gives key and thumbprint.
        assert_eq!(ed25519_thumbprint(ED), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn keys_we_would_not_use_are_passed_over() {
        let set = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "good", "x": ED},
            {"kty": "OKP", "crv": "Ed25519", "kid": "enc", "use": "enc", "x": ED},
            {"kty": "OKP", "crv": "X25519", "kid": "curve", "x": ED},
            {"kty": "OKP", "crv": "Ed25519", "kid": "alg", "alg": "ES256", "x": ED},
            {"kty": "OKP", "crv": "Ed25519", "kid": "x", "x": "!!"},
            {"kty": "OKP", "crv": "Ed25519", "x": ED},
            {"kty": "oct", "kid": "oct", "k": ED},
            {"kty": "AKP", "kid": "later", "pub": ED},
            {"kty": 7}, "text", null,
        ]});
        assert_eq!(kids(&set, &[Algorithm::EdDSA]), ["good"]);
        assert!(kids(&set, &[Algorithm::RS256]).is_empty());
        // Even if somebody allowed HMAC, a public set has no secret for it.
        assert!(kids(&set, &[Algorithm::HS256]).is_empty());
    }

    #[test]
    fn a_key_verifies_only_what_is_allowed_stated_and_fitting() {
        let rsa =
            |alg: Option<&str>| json!({"keys": [{"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB", "alg": alg}]});
        let allowed = [Algorithm::RS256, Algorithm::PS256];
        assert_eq!(parse(&rsa(None), &allowed).unwrap()["r"].algorithms, allowed);
        assert_eq!(parse(&rsa(Some("PS256")), &allowed).unwrap()["r"].algorithms, [Algorithm::PS256]);
        assert!(parse(&rsa(Some("RS512")), &allowed).is_err());
        assert!(parse(&rsa(Some("HS256")), &[Algorithm::HS256]).is_err());
    }

    #[test]
    fn sets_that_cannot_be_right_are_refused() {
        let many: Vec<_> =
            (0..=MAX_KEYS).map(|n| json!({"kty": "OKP", "crv": "Ed25519", "kid": n.to_string(), "x": ED})).collect();
        let private = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": ED, "d": ED}]});
        for bad in [json!(null), json!([]), json!({"keys": {}}), json!({"keys": []}), json!({"keys": many}), private] {
            assert!(parse(&bad, &[Algorithm::EdDSA]).is_err(), "{bad}");
        }
    }
}
