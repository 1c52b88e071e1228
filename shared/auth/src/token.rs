//! The one place where a JWT is verified. The rules are those of RFC 8725: the key set names the algorithms, the
//! header only picks a key by its id, and every claim that says who, for whom and when is checked.

use crate::KeySet;
use jsonwebtoken::{TokenData, Validation, errors::ErrorKind};
use serde::{Deserialize, de::DeserializeOwned};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// No honest token is longer (bytes); request heads are bounded to more.
const MAX_LENGTH: usize = 8 * 1024;
/// 9999-12-31: later times are somebody's mistake and would overflow later sums.
const LAST_SECOND: i64 = 253_402_300_799;

/// Why a token is not accepted. For logs and tests; a client only hears "not accepted".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Not a JWT at all, or too long.
    #[error("not a well-formed token")]
    Malformed,
    /// Another kind of token.
    #[error("wrong typ")]
    Type,
    /// It demands extensions (`crit`), none of which we know.
    #[error("unknown critical header")]
    Critical,
    /// Not an algorithm this key may verify: `none`, HMAC, another family.
    #[error("algorithm not allowed")]
    Algorithm,
    /// No `kid`, or one that is in no key set.
    #[error("unknown key")]
    UnknownKey,
    /// The signature does not match.
    #[error("bad signature")]
    Signature,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Its time has not come.
    #[error("not valid yet")]
    NotYet,
    /// From somebody else.
    #[error("wrong issuer")]
    Issuer,
    /// For somebody else.
    #[error("wrong audience")]
    Audience,
    /// A claim is missing or is not what it should be.
    #[error("claims missing or wrong")]
    Claims,
}

/// What a token must say of itself.
pub(crate) struct Expected<'a> {
    /// Accepted `typ` values, lower case.
    pub(crate) types: &'static [&'static str],
    /// Whether a token without `typ` will do.
    pub(crate) untyped: bool,
    pub(crate) issuer: &'a str,
    pub(crate) audience: &'a str,
    /// Whether `nbf` must be there; it is checked in any case.
    pub(crate) not_before: bool,
    /// How far the issuer's clock may be from ours.
    pub(crate) leeway: Duration,
}

/// Verifies `token` against `keys` and gives its claims.
pub(crate) async fn verify<C: DeserializeOwned>(
    token: &str,
    keys: &KeySet,
    expected: &Expected<'_>,
) -> Result<C, Refusal> {
    if token.len() > MAX_LENGTH {
        return Err(Refusal::Malformed);
    }
    // `none` and other algorithms that do not exist for us end here: they do not parse.
    let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Malformed)?;
    match &header.typ {
        Some(typ) if expected.types.contains(&typ.to_ascii_lowercase().as_str()) => {}
        None if expected.untyped => {}
        _ => return Err(Refusal::Type),
    }
    if header.crit.is_some() {
        return Err(Refusal::Critical);
    }
    // Before the key is looked up, so that junk never makes us fetch a key set.
    if !keys.allows(header.alg) {
        return Err(Refusal::Algorithm);
    }
    // `jku`, `jwk`, `x5u` and `x5c` are never looked at: the sender does not choose the key, only names one of ours.
    let kid = header.kid.ok_or(Refusal::UnknownKey)?;
    let key = keys.find(&kid).await.ok_or(Refusal::UnknownKey)?;
    if !key.algorithms.contains(&header.alg) {
        return Err(Refusal::Algorithm);
    }
    let mut validation = Validation::new(header.alg);
    validation.algorithms.clone_from(&key.algorithms);
    validation.leeway = expected.leeway.as_secs();
    validation.validate_nbf = true;
    validation.set_issuer(&[expected.issuer]);
    validation.set_audience(&[expected.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    if expected.not_before {
        validation.required_spec_claims.insert("nbf".to_owned());
    }
    // The library checks the signature first, then parses the claims into C, then checks times, issuer and audience.
    match jsonwebtoken::decode(token, &key.key, &validation) {
        Ok(TokenData { claims, .. }) => Ok(claims),
        Err(error) => Err(refusal(error.kind())),
    }
}

/// The library's error, without its text: that may quote the token.
fn refusal(kind: &ErrorKind) -> Refusal {
    match kind {
        ErrorKind::InvalidSignature => Refusal::Signature,
        ErrorKind::ExpiredSignature => Refusal::Expired,
        ErrorKind::ImmatureSignature => Refusal::NotYet,
        ErrorKind::InvalidIssuer => Refusal::Issuer,
        ErrorKind::InvalidAudience => Refusal::Audience,
        ErrorKind::InvalidAlgorithm => Refusal::Algorithm,
        ErrorKind::Json(_) | ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Refusal::Claims,
        _ => Refusal::Malformed,
    }
}

/// Whose token it says it is. **Not verified**: good for choosing who verifies it, for nothing else.
pub(crate) fn unverified_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    if token.len() > MAX_LENGTH {
        return None;
    }
    jsonwebtoken::dangerous::insecure_decode_claims::<Issuer>(token).ok().map(|claims| claims.iss)
}

/// Whole seconds since 1970, the unit of every time in a token.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds).unwrap_or(LAST_SECOND).min(LAST_SECOND)
}

/// The other way round; years out of range come to its ends.
pub(crate) fn from_unix_seconds(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.clamp(0, LAST_SECOND).unsigned_abs())
}
