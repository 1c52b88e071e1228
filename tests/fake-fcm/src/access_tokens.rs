//! The access tokens that were handed out.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use std::{collections::HashMap, time::Duration};

/// Valid ones at once; of more, the oldest are void.
const MOST: usize = 10_000;

/// Who holds what until when. Times are since the fake's start.
#[derive(Debug, Default)]
pub(crate) struct AccessTokens {
    valid: HashMap<String, Issued>,
    last: u32,
}

/// One access token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Issued {
    /// 1, 2, 3 …
    pub(crate) number: u32,
    until: Duration,
}

impl AccessTokens {
    /// A new one with its number, good for `life`.
    pub(crate) fn issue(&mut self, now: Duration, life: Duration) -> (String, u32) {
        self.valid.retain(|_, issued| issued.until > now);
        if self.valid.len() >= MOST {
            let oldest = self.valid.iter().min_by_key(|(_, issued)| issued.number).map(|(token, _)| token.clone());
            oldest.and_then(|token| self.valid.remove(&token));
        }
        self.last += 1;
        let token = format!("ya29.{}", BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 48]>()));
        self.valid.insert(token.clone(), Issued { number: self.last, until: now + life });
        (token, self.last)
    }

    /// The number of an access token, and whether it is good at `now`. An expired one keeps its number until the next is
    /// issued.
    pub(crate) fn find(&self, token: &str, now: Duration) -> Option<(u32, bool)> {
        self.valid.get(token).map(|issued| (issued.number, issued.until > now))
    }

    /// Voids all of them.
    pub(crate) fn revoke_all(&mut self) {
        for issued in self.valid.values_mut() {
            issued.until = Duration::ZERO;
        }
    }
}
