//! Passwords: argon2id, away from the async threads, a bounded number at once.

use crate::AuthError;
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{Error, PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use std::{num::NonZero, ops::RangeInclusive, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many characters a password has.
pub const PASSWORD_LENGTH: RangeInclusive<usize> = 8..=256;

// OWASP's first choice: 19 MiB, two passes, one lane. 23–67 ms on one core of the machines we measured.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// How many may wait per core before the answer is "busy": about one second of work.
const WAITING_PER_CORE: usize = 16;

/// Verified when there is no such user, so that the answer takes as long as for a wrong password. It has our
/// parameters and nobody's password.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$tZRxJKSWUFFNV7gB3VHBSQ$hvg2VPYXDVL3qUC2hQV9J9yl4yMbNmCnXhe5Q8pqWXQ";

/// Hashes and checks passwords. Clones share the bound.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// One permit per core: more at once would only fill memory (19 MiB each).
    cores: Arc<Semaphore>,
    /// One permit per password inside, waiting or at work.
    places: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, NonZero::get))
    }
}

impl Passwords {
    /// At most `at_once` (at least one) are worked on at the same time, and a few more wait.
    pub fn new(at_once: usize) -> Self {
        let at_once = at_once.max(1);
        Self {
            cores: Arc::new(Semaphore::new(at_once)),
            places: Arc::new(Semaphore::new(at_once * (1 + WAITING_PER_CORE))),
        }
    }

    /// The text to store for a new password.
    ///
    /// # Errors
    /// [`AuthError::PasswordLength`], [`AuthError::Busy`], or [`AuthError::Hash`].
    pub async fn hash(&self, password: String) -> Result<String, AuthError> {
        if !PASSWORD_LENGTH.contains(&password.chars().count()) {
            return Err(AuthError::PasswordLength);
        }
        self.work(move || {
            argon2().hash_password(password.as_bytes()).map(|hash| hash.to_string()).map_err(AuthError::Hash)
        })
        .await
    }

    /// Whether this is the password of `hash`. Without a hash (no such user, or one without a password) the answer is
    /// no, after the same effort.
    ///
    /// # Errors
    /// [`AuthError::Busy`], or [`AuthError::Hash`] when the stored text is no hash.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, AuthError> {
        self.work(move || {
            let parsed = PasswordHash::new(hash.as_deref().unwrap_or(NOBODY)).map_err(|e| AuthError::Hash(e.into()))?;
            // The parameters come from the hash, so old ones stay readable when ours grow.
            match argon2().verify_password(password.as_bytes(), &parsed) {
                Ok(()) => Ok(hash.is_some()),
                Err(Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(AuthError::Hash(error)),
            }
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
    ) -> Result<T, AuthError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| AuthError::Busy)?;
        let core = Arc::clone(&self.cores).acquire_owned().await.map_err(|_| AuthError::Busy)?;
        // The permits go along: a caller who gives up does not free the core that still works for them.
        let permits: [OwnedSemaphorePermit; 2] = [place, core];
        let task = tokio::task::spawn_blocking(move || {
            let _permits = permits;
            work()
        });
        // Only a panic or the runtime's end stops it.
        task.await.map_err(|_| AuthError::Hash(Error::Internal))?
    }
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("constants within argon2's ranges");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::phc::Ident;

    #[tokio::test]
    async fn only_the_right_password_is_right() {
        let passwords = Passwords::new(2);
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        for wrong in ["correct horsf", "Correct horse", "correct horse ", "", "correct horse\0"] {
            assert!(!passwords.verify(wrong.to_owned(), Some(hash.clone())).await.unwrap(), "{wrong:?}");
        }
        assert_ne!(passwords.hash("correct horse".to_owned()).await.unwrap(), hash, "every hash has its own salt");
    }

    #[tokio::test]
    async fn nobody_has_no_password_but_costs_the_same() {
        assert!(!Passwords::new(1).verify("whatever it is".to_owned(), None).await.unwrap());
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let ours: PasswordHash = argon2().hash_password(b"whatever it is").unwrap();
        assert_eq!(Params::try_from(&nobody).unwrap(), Params::try_from(&ours).unwrap());
        assert_eq!((nobody.algorithm, nobody.version), (Ident::new("argon2id").unwrap(), ours.version));
        assert_eq!(nobody.salt.unwrap().len(), ours.salt.unwrap().len());
    }

    #[tokio::test]
    async fn lengths_count_in_characters() {
        let passwords = Passwords::new(2);
        for good in ["é".repeat(8), "🙂".repeat(256)] {
            passwords.hash(good).await.unwrap();
        }
        for bad in [String::new(), "1234567".to_owned(), "é".repeat(7), "x".repeat(257)] {
            assert!(matches!(passwords.hash(bad).await, Err(AuthError::PasswordLength)));
        }
    }

    #[tokio::test]
    async fn a_full_queue_is_an_answer() {
        let passwords = Passwords::new(1);
        let held = Arc::clone(&passwords.cores).acquire_owned().await.unwrap();
        let waiting: Vec<_> = (0..=WAITING_PER_CORE)
            .map(|_| {
                let passwords = passwords.clone();
                #[expect(clippy::disallowed_methods, reason = "a test's tasks, awaited below")]
                tokio::spawn(async move { passwords.verify("password".to_owned(), None).await })
            })
            .collect();
        while passwords.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(passwords.hash("password".to_owned()).await, Err(AuthError::Busy)));
        drop(held);
        for one in waiting {
            assert!(!one.await.unwrap().unwrap());
        }
        passwords.hash("password".to_owned()).await.unwrap();
    }

    #[tokio::test]
    async fn a_broken_hash_is_an_error_not_a_no() {
        let passwords = Passwords::new(1);
        for broken in ["", "plain", "$argon2id$v=19$m=19456,t=2,p=1$AAAA", "$md5$x$AAAAAAAAAAA$AAAAAAAAAAAAAAAA"] {
            let result = passwords.verify("password".to_owned(), Some(broken.to_owned())).await;
            assert!(!matches!(result, Ok(true)), "{broken}");
        }
        assert!(matches!(passwords.verify("x".to_owned(), Some("plain".to_owned())).await, Err(AuthError::Hash(_))));
    }
}
