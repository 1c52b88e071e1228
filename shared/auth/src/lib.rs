//! Who somebody is: signs and verifies access tokens and connect tickets, verifies the tokens of outside identity
//! providers, and keeps passwords and refresh tokens unreadable.
//!
//! Never depends on HTTP frameworks, storage or the registry; it answers "who says so, until when", never "may they".

mod access;
mod error;
mod identity;
mod jwk;
mod key_files;
mod key_set;
mod keys;
mod password;
mod refresh;
mod settings;
mod ticket;
mod token;

#[cfg(test)]
mod forged_tokens;
#[cfg(test)]
mod test_keys;

pub use access::{Access, AccessTokens};
pub use error::AuthError;
pub use identity::{ExternalIdentity, IdentityProviders};
pub use key_files::create_key_files;
pub use key_set::{KeySet, KeySource};
pub use keys::SigningKey;
pub use password::{PASSWORD_LENGTH, Passwords};
pub use refresh::RefreshToken;
pub use settings::{IdentityProvider, Settings};
pub use ticket::{TICKET_LIFE, Ticket, TicketSigner, TicketVerifier};
pub use token::Refusal;
