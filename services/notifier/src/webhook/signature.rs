//! Signed requests, as Standard Webhooks has them (<https://www.standardwebhooks.com>): HMAC-SHA256 over id, time and
//! body, so that a receiver can tell our requests from others', and new ones from repeated ones.

use crate::Push;
use aws_lc_rs::{digest, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::fmt;
use touchline_config::Secret;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
const WRONG: &str = "must be whsec_ and 24 to 64 random bytes as base64: echo whsec_$(openssl rand -base64 32)";

/// Signs with one secret.
pub(super) struct Signer(hmac::Key);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// With this secret.
    ///
    /// # Errors
    /// What a secret looks like.
    pub(super) fn new(secret: &Secret) -> Result<Self, &'static str> {
        let bytes = secret.expose().strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok()).ok_or(WRONG)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(WRONG);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The headers that prove a request.
    pub(super) fn headers(&self, id: &str, unix_seconds: u64, body: &[u8]) -> [(&'static str, String); 3] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{unix_seconds}.").as_bytes());
        context.update(body);
        let signature = format!("v1,{}", STANDARD.encode(context.sign()));
        [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", unix_seconds.to_string()),
            ("webhook-signature", signature),
        ]
    }
}

/// The same for every try of the same push (user, device, channel, seq), and for no other, so that a receiver can drop
/// what it has had.
pub(super) fn id(push: &Push) -> String {
    let what = format!("{}\n{}\n{}\n{}", push.user, push.device, push.channel, push.seq);
    let hash = digest::digest(&digest::SHA256, what.as_bytes());
    let hex: String = hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("msg_{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_of_the_specifications_example() {
        let signer = Signer::new(&"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()).unwrap();
        let headers = signer.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(
            headers,
            [
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned()),
                ("webhook-timestamp", "1614265330".to_owned()),
                ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned()),
            ]
        );
    }

    #[test]
    fn a_secret_has_its_form_and_its_length() {
        for bad in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_not base64"] {
            assert!(Signer::new(&bad.into()).is_err(), "{bad}");
        }
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        assert!(Signer::new(&long.as_str().into()).is_err());
    }
}
