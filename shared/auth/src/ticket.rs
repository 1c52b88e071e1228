//! Tickets: what a device shows a gateway in its first frame. Short-lived, single use, bound to user and device.

use crate::{
    AuthError, KeySet, Refusal, SigningKey, refresh,
    token::{Expected, from_unix_seconds, unix_seconds, verify},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use touchline_ids::{DeviceId, UserId};

/// How long after its signing a ticket opens a session.
pub const TICKET_LIFE: Duration = Duration::from_secs(30);
/// How far the clocks of api and gateway may be apart. A used ticket is remembered for 60 s, so that is the longest a
/// ticket may be acceptable anywhere: from `nbf` − leeway to `exp` + leeway are 50 s, and 10 s are left for two
/// gateways whose clocks differ. The 60 s allowed to access tokens would let a used ticket be used again. A machine whose clock
/// is further off refuses every ticket: its clients go to another gateway, nothing is let in that should not be.
const LEEWAY: Duration = Duration::from_secs(10);

pub(crate) const TICKET_TYPE: &str = "ticket+jwt";
const ISSUER: &str = "touchline-api";
const AUDIENCE: &str = "touchline-gateway";
/// 128 bits in base64url.
const ID_LENGTH: usize = 22;

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    dev: DeviceId,
    jti: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    /// Unix seconds until which the session may live.
    sx: i64,
}

/// Signs tickets; lives in the api.
#[derive(Clone, Debug)]
pub struct TicketSigner {
    key: Arc<SigningKey>,
}

impl TicketSigner {
    /// Signs by this key.
    pub fn new(key: Arc<SigningKey>) -> Self {
        Self { key }
    }

    /// A ticket for one session of `device`, which may live until `session_expires`.
    ///
    /// # Errors
    /// [`AuthError::Random`] or [`AuthError::Sign`].
    pub fn sign(&self, user: UserId, device: &DeviceId, session_expires: SystemTime) -> Result<String, AuthError> {
        self.sign_at(user, device, session_expires, SystemTime::now())
    }

    pub(crate) fn sign_at(
        &self,
        user: UserId,
        device: &DeviceId,
        session_expires: SystemTime,
        now: SystemTime,
    ) -> Result<String, AuthError> {
        let iat = unix_seconds(now);
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: user,
            dev: device.clone(),
            jti: refresh::random_text::<16>()?,
            iat,
            nbf: iat,
            exp: unix_seconds(now + TICKET_LIFE),
            sx: unix_seconds(session_expires),
        };
        self.key.sign(TICKET_TYPE, &claims)
    }
}

/// What a verified ticket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Its own id, 22 characters of base64url. Single use is the caller's part: mark it as used in the registry for
    /// 60 s, and refuse it if it was marked.
    pub id: String,
    /// Who connects.
    pub user: UserId,
    /// From which device; must be the one `hello` names.
    pub device: DeviceId,
    /// Until when the session may live (the access token's end).
    pub session_expires: SystemTime,
}

/// Verifies tickets; lives in the gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TicketVerifier {
    keys: KeySet,
}

impl TicketVerifier {
    /// Verifies by these keys.
    pub fn new(keys: KeySet) -> Self {
        Self { keys }
    }

    /// Re-reads the public keys each minute until dropped.
    pub async fn refresh_forever(self) {
        self.keys.refresh_forever().await;
    }

    /// What this ticket says.
    ///
    /// # Errors
    /// [`AuthError::Refused`] with the reason.
    pub async fn verify(&self, ticket: &str) -> Result<Ticket, AuthError> {
        let expected = Expected {
            types: &[TICKET_TYPE],
            untyped: false,
            issuer: ISSUER,
            audience: AUDIENCE,
            not_before: true,
            leeway: LEEWAY,
        };
        let claims: Claims = verify(ticket, &self.keys, &expected).await?;
        // It becomes part of a registry key.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if claims.jti.len() != ID_LENGTH || !claims.jti.bytes().all(plain) {
            return Err(Refusal::Claims.into());
        }
        Ok(Ticket {
            id: claims.jti,
            user: claims.sub,
            device: claims.dev,
            session_expires: from_unix_seconds(claims.sx),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_keys::ours;
    use std::collections::HashSet;

    #[tokio::test]
    async fn a_ticket_says_who_from_where_and_until_when() {
        let (key, keys) = ours();
        let (user, device) = (UserId::new(), "phone-1".parse().unwrap());
        let until = SystemTime::now() + Duration::from_secs(900);
        let text = TicketSigner::new(key).sign(user, &device, until).unwrap();
        let ticket = TicketVerifier::new(keys).verify(&text).await.unwrap();
        assert_eq!((ticket.user, &ticket.device), (user, &device));
        assert_eq!(unix_seconds(ticket.session_expires), unix_seconds(until));
        assert_eq!(ticket.id.len(), ID_LENGTH);
    }

    #[tokio::test]
    async fn a_ticket_ends_after_its_life() {
        let (key, keys) = ours();
        let device = "phone-1".parse().unwrap();
        let long_ago = SystemTime::now() - TICKET_LIFE - 2 * LEEWAY;
        let text = TicketSigner::new(key).sign_at(UserId::new(), &device, SystemTime::now(), long_ago).unwrap();
        let error = TicketVerifier::new(keys).verify(&text).await.unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::Expired));
    }

    #[tokio::test]
    async fn no_two_tickets_are_the_same() {
        let (key, keys) = ours();
        let (signer, verifier, device) = (TicketSigner::new(key), TicketVerifier::new(keys), "d".parse().unwrap());
        let mut ids = HashSet::new();
        for _ in 0..500 {
            let text = signer.sign(UserId::new(), &device, SystemTime::now()).unwrap();
            assert!(ids.insert(verifier.verify(&text).await.unwrap().id));
        }
    }

    #[test]
    fn a_used_ticket_is_forgotten_only_after_it_is_worth_nothing() {
        assert!(TICKET_LIFE + 2 * LEEWAY < Duration::from_secs(60));
    }
}
