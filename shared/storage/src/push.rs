//! The words that say where a push goes, who wants one, and what became of it.

use sea_orm::{DeriveActiveEnum, EnumIter, sea_query::StringLen};
use serde::{Deserialize, Serialize};

/// What a device runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, EnumIter, DeriveActiveEnum)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))", rename_all = "snake_case")]
pub enum Platform {
    /// An Android app.
    Android,
    /// An iPhone or iPad app.
    Ios,
    /// A browser.
    Web,
}

/// What kind of name a device has at the push service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, EnumIter, DeriveActiveEnum)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))", rename_all = "snake_case")]
pub enum TargetKind {
    /// A registration token.
    Token,
    /// A Firebase installation id.
    Fid,
}

/// Of which messages of a channel a member wants to be notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, EnumIter, DeriveActiveEnum)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))", rename_all = "snake_case")]
pub enum NotifyLevel {
    /// Of every one.
    All,
    /// Of those that mention the member.
    Mentions,
    /// Of none.
    None,
}

/// What became of a push to one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, EnumIter, DeriveActiveEnum)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))", rename_all = "snake_case")]
pub enum PushOutcome {
    /// The provider took it.
    Accepted,
    /// The provider put it off; it is tried again.
    Delayed,
    /// The push token is void; the device was forgotten.
    TokenVoid,
    /// The push token is another sender's; the device is suspect.
    WrongSender,
    /// The provider cannot reach this platform: its key for it is wrong.
    PlatformRefused,
    /// The provider calls the push itself wrong.
    Refused,
    /// It was put off until it was too old.
    Expired,
}

impl PushOutcome {
    /// As stored, and as metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Delayed => "delayed",
            Self::TokenVoid => "token_void",
            Self::WrongSender => "wrong_sender",
            Self::PlatformRefused => "platform_refused",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}
