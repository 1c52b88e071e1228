//! Refresh tokens: opaque, 256 random bits. The database only ever sees their SHA-256, which is enough because
//! nobody can guess 256 bits; a slow hash would protect nothing more.

use crate::AuthError;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::fmt;

/// A refresh token as the client holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken(String);

impl RefreshToken {
    /// Draws a new one.
    ///
    /// # Errors
    /// [`AuthError::Random`] when the system has no randomness.
    pub fn generate() -> Result<Self, AuthError> {
        Ok(Self(random_text::<32>()?))
    }

    /// Takes a client's text; none when it cannot be a refresh token.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == 32).then(|| Self(text.to_owned()))
    }

    /// What is stored.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        hash
    }

    /// The text for the client: 43 characters of base64url.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(***)")
    }
}

/// `N` bytes from the system's generator, in base64url.
pub(crate) fn random_text<const N: usize>() -> Result<String, AuthError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(AuthError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_token_is_recognised_by_its_hash_alone() {
        let token = RefreshToken::generate().unwrap();
        let text = token.clone().into_text();
        assert_eq!(text.len(), 43);
        assert_eq!(RefreshToken::parse(&text).unwrap().hash(), token.hash());
        assert!(!format!("{token:?}").contains(&text));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let good = RefreshToken::generate().unwrap().into_text();
        let padded = format!("{good}=");
        for bad in ["", "x", "' OR 1=1 --", &good[..42], &padded, &good.repeat(2), &format!("{}/", &good[..42])] {
            assert_eq!(RefreshToken::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_token_comes_twice() {
        let drawn: HashSet<_> = (0..100_000).map(|_| random_text::<16>().unwrap()).collect();
        assert_eq!(drawn.len(), 100_000);
    }
}
