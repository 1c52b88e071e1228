//! Ids made by Touchline: UUIDv7, so that they sort by the time they were made.

use serde::{Deserialize, Deserializer, Serialize, de};
use std::{borrow::Cow, fmt, str::FromStr};
use uuid::Uuid;

/// The text or the bytes are not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected a UUID such as 0190b3c8-7d3e-7c61-9b1a-2f6f0a6b8e11")]
pub struct InvalidId;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[cfg_attr(feature = "sea-orm", derive(sea_orm::DeriveValueType))]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id (UUIDv7), later in sort order than those this process made before.
            #[expect(clippy::new_without_default, reason = "an id is drawn, it has no default")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The 16 bytes in network order, as they travel in protos and Redis.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Reads 16 bytes in network order.
            ///
            /// # Errors
            /// [`InvalidId`] when there are not exactly 16.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidId> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| InvalidId)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                // Only the hyphenated form: one id has one spelling.
                if text.len() != 36 {
                    return Err(InvalidId);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // As in `from_str`, and not as the uuid crate, which takes other spellings too.
                Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        #[cfg(feature = "sea-orm")]
        impl sea_orm::TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($name)))
            }
        }
    };
}

uuid_id!(
    /// A person.
    UserId
);
uuid_id!(
    /// A conversation.
    ChannelId
);
uuid_id!(
    /// One entry of a channel's log; (channel, seq) names it too.
    MessageId
);
uuid_id!(
    /// One life of a gateway process. Never reused: a restart is a new one, and a later one sorts after an earlier one.
    IncarnationId
);
uuid_id!(
    /// One authenticated WebSocket of one device on one incarnation.
    SessionId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = UserId::new();
        assert_eq!(id.to_string().parse::<UserId>(), Ok(id));
        assert_eq!(UserId::from_slice(id.as_bytes()), Ok(id));
        assert_eq!(id.0.simple().to_string().parse::<UserId>(), Err(InvalidId));
        let json = |text: &str| serde_json::from_str::<UserId>(&format!("\"{text}\"")).ok();
        assert_eq!(json(&id.to_string()), Some(id));
        assert_eq!(json(&id.0.simple().to_string()), None);
        assert_eq!("../etc".parse::<UserId>(), Err(InvalidId));
        assert_eq!(UserId::from_slice(&[1; 15]), Err(InvalidId));
    }

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        let ids: Vec<_> = (0..100).map(|_| IncarnationId::new()).collect();
        assert!(ids.is_sorted());
    }
}
