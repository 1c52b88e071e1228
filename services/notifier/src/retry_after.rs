//! When a server asks us to come back: `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3).

use http::{HeaderMap, header::RETRY_AFTER};
use std::time::{Duration, SystemTime};

/// Whoever asks for more says nonsense.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How long to stay away, at most a day; none if it does not say, or says it in no known form. A date that has passed
/// is no time at all.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_or(LONGEST, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, now: SystemTime) -> Option<Duration> {
        retry_after(&[(RETRY_AFTER, text.parse().unwrap())].into_iter().collect(), now)
    }

    #[test]
    fn seconds_and_dates_are_read_and_nothing_else() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let date = |seconds: u64| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(parsed("7", now), Some(Duration::from_secs(7)));
        assert_eq!(parsed("0", now), Some(Duration::ZERO));
        assert_eq!(parsed(&date(1_000_000_090), now), Some(Duration::from_secs(90)));
        assert_eq!(parsed(&date(999_999_999), now), Some(Duration::ZERO));
        assert_eq!(parsed(&date(2_000_000_000), now), Some(LONGEST));
        assert_eq!(parsed("99999999999999999999999", now), Some(LONGEST));
        for bad in ["", "-1", "1.5", "soon", "10 s"] {
            assert_eq!(parsed(bad, now), None, "{bad}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
