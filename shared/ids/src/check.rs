//! By what a place in a log is compared.

use crate::MessageId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, str::FromStr};

/// The last four bytes of a message's id, written as eight hexadecimal digits. They are random in a UUIDv7, so a log
/// that lost its tail and gave the same seq to another message is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "sea-orm", derive(sea_orm::DeriveValueType))]
// i32, not u32: Postgres has no unsigned numbers.
pub struct Check(pub i32);

/// The text is not a check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a check: expected eight hexadecimal digits")]
pub struct InvalidCheck;

impl MessageId {
    /// What stands for this message in cursors and in the message after it.
    pub fn check(&self) -> Check {
        let b = self.as_bytes();
        Check(i32::from_be_bytes([b[12], b[13], b[14], b[15]]))
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for Check {
    type Err = InvalidCheck;

    fn from_str(text: &str) -> Result<Self, InvalidCheck> {
        if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidCheck);
        }
        u32::from_str_radix(text, 16).map(|bits| Self(bits.cast_signed())).map_err(|_| InvalidCheck)
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Check {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_the_end_of_its_id() {
        let id: MessageId = "0190b3c8-7d3e-7c61-9b1a-2f6fea6b8e01".parse().expect("is an id");
        assert_eq!(id.check().to_string(), "ea6b8e01");
        assert_eq!("ea6b8e01".parse(), Ok(id.check()));
        assert_eq!(serde_json::to_string(&id.check()).ok().as_deref(), Some("\"ea6b8e01\""));
        assert_eq!(serde_json::from_str::<Check>("\"EA6B8E01\"").ok(), Some(id.check()));
        for bad in ["", "a6b8e01", "0ea6b8e01", "+a6b8e01", "xyzxyzxy"] {
            assert_eq!(bad.parse::<Check>(), Err(InvalidCheck), "{bad}");
        }
    }
}
