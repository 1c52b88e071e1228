//! When the caller wants no pushes, by their own clock.

use crate::{
    Api,
    auth::Caller,
    error::{Error, Problem},
    extract::Json,
};
use axum::extract::State;
use http::StatusCode;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use touchline_storage::QuietHours;
use utoipa::ToSchema;

/// Longest name of a time zone, in bytes.
const ZONE_LIMIT: usize = 64;

/// A part of every day.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quiet {
    /// Hours and minutes, such as `22:00`.
    #[schema(example = "22:00")]
    from: String,
    /// Hours and minutes, such as `07:00`. When it is before `from`: on the next day.
    #[schema(example = "07:00")]
    to: String,
    /// A name of the IANA time zone database.
    #[schema(example = "Europe/Berlin")]
    time_zone: String,
}

impl From<QuietHours> for Quiet {
    fn from(hours: QuietHours) -> Self {
        let (from, to) = (written(hours.from_minute), written(hours.to_minute));
        Self { from, to, time_zone: hours.time_zone }
    }
}

impl Quiet {
    fn read(&self) -> Result<QuietHours, Error> {
        let (from_minute, to_minute) = (minute("from", &self.from)?, minute("to", &self.to)?);
        if from_minute == to_minute {
            return Err(Error::field("to", "must be another time than from"));
        }
        Ok(QuietHours { from_minute, to_minute, time_zone: zone(&self.time_zone)? })
    }
}

/// Set my quiet hours: pushes wait for their end, and then one of each channel says how many there were.
#[utoipa::path(put, path = "/v1/me/quiet-hours", tag = "notifications", request_body = Quiet, security(("bearer" = [])),
    responses((status = 200, body = Quiet), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(body): Json<Quiet>,
) -> Result<axum::Json<Quiet>, Error> {
    let hours = body.read()?;
    if !api.storage.set_quiet_hours(caller.user, &hours).await? {
        return Err(Error::NO_SUCH_CALLER);
    }
    Ok(axum::Json(hours.into()))
}

/// Get my quiet hours.
#[utoipa::path(get, path = "/v1/me/quiet-hours", tag = "notifications", security(("bearer" = [])),
    responses((status = 200, body = Quiet), (status = 401, body = Problem),
        (status = 404, description = "There are none", body = Problem)))]
pub async fn get(State(api): State<Arc<Api>>, caller: Caller) -> Result<axum::Json<Quiet>, Error> {
    let hours = api.storage.quiet_hours(caller.user).await?.ok_or(Error::NoQuietHours)?;
    Ok(axum::Json(hours.into()))
}

/// Have no quiet hours.
#[utoipa::path(delete, path = "/v1/me/quiet-hours", tag = "notifications", security(("bearer" = [])),
    responses((status = 204), (status = 401, body = Problem)))]
pub async fn clear(State(api): State<Arc<Api>>, caller: Caller) -> Result<StatusCode, Error> {
    api.storage.clear_quiet_hours(caller.user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Minutes after midnight of `HH:MM`.
fn minute(field: &'static str, text: &str) -> Result<i32, Error> {
    let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i32>().ok());
    let parts = text.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2);
    match parts.and_then(|(hours, minutes)| number(hours)?.zip(number(minutes)?)) {
        Some((hours @ 0..=23, minutes @ 0..=59)) => Ok(hours * 60 + minutes),
        _ => Err(Error::field(field, "must be hours and minutes from 00:00 to 23:59, such as 22:00")),
    }
}

fn written(minute: i32) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// The name as the database spells it.
fn zone(name: &str) -> Result<String, Error> {
    let known = (name.len() <= ZONE_LIMIT).then(|| TimeZone::get(name).ok()).flatten();
    let spelt = known.as_ref().filter(|zone| !zone.is_unknown()).and_then(|zone| zone.iana_name());
    let what = "must be a name of the IANA time zone database, such as Europe/Berlin or UTC";
    spelt.map(str::to_owned).ok_or_else(|| Error::field("time_zone", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_and_minutes_have_one_spelling() {
        for (text, expected) in [("00:00", 0), ("07:05", 425), ("23:59", 1_439)] {
            assert_eq!(minute("from", text).unwrap(), expected);
            assert_eq!(written(expected), text);
        }
        for bad in ["", "7:00", "07:0", "24:00", "23:60", "-1:00", "+7:00", "07.00", "07:00:00", "٠٧:00", "ab:cd"] {
            assert!(minute("from", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_zone_is_one_of_the_database() {
        for (name, spelt) in [("Europe/Berlin", "Europe/Berlin"), ("europe/berlin", "Europe/Berlin"), ("utc", "UTC")] {
            assert_eq!(zone(name).unwrap(), spelt);
        }
        for bad in ["", "Europe", "Mars/Phobos", "+02:00", "CET-1CEST", "Etc/Unknown", "../etc/passwd", &"x".repeat(65)]
        {
            assert!(zone(bad).is_err(), "{bad}");
        }
    }
}
