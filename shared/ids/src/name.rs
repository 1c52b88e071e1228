//! Names chosen outside Touchline: by a client or by an operator.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The text cannot be this kind of name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 1 to {max} characters out of A-Z a-z 0-9 . _ : -")]
pub struct InvalidName {
    what: &'static str,
    max: usize,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "sea-orm", derive(sea_orm::DeriveValueType))]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
                if (1..=$max).contains(&text.len()) && text.bytes().all(legal) {
                    Ok(Self(text))
                } else {
                    Err(InvalidName { what: $what, max: $max })
                }
            }
        }

        #[cfg(feature = "sea-orm")]
        impl sea_orm::TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($name)))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// One installation or browser of a user; chosen by the client, stable.
    DeviceId,
    "device_id",
    64
);
name!(
    /// The sender's own name for a message, the key of idempotent sends. A UUID does well.
    ClientMessageId,
    "client_message_id",
    64
);
name!(
    /// The stable name of a gateway over its incarnations, such as the pod's name.
    GatewayId,
    "gateway id",
    128
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert!("phone-1".parse::<DeviceId>().is_ok());
        assert!("x".repeat(64).parse::<DeviceId>().is_ok());
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<ClientMessageId>("\"\\u0000\"").is_err());
    }
}
