//! Until when somebody wants quiet.

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, Time},
    tz::TimeZone,
};
use touchline_storage::QuietHours;

/// When the quiet that holds now ends, in Unix milliseconds; `None`: it is not quiet. `now_ms` is such a time, too.
///
/// The hours are those of the clocks in their zone, one time of quiet from every date on. A time that the clocks skip
/// is taken for as much later, and of one that they show twice the first is taken, as calendars do (RFC 5545). In a zone
/// that is not known here it is never quiet: better a push too many than none.
pub fn quiet_until(hours: &QuietHours, now_ms: i64) -> Option<i64> {
    let zone = TimeZone::get(&hours.time_zone).ok()?;
    let (from, to) = (time(hours.from_minute)?, time(hours.to_minute)?);
    let now = Timestamp::from_millisecond(now_ms).ok()?;
    let today = zone.to_datetime(now).date();
    // What began yesterday may last until today.
    [today.yesterday().ok()?, today].into_iter().find_map(|date| {
        let begin = moment(date, from, &zone)?;
        let end = moment(if to <= from { date.tomorrow().ok()? } else { date }, to, &zone)?;
        (begin <= now && now < end).then(|| end.as_millisecond())
    })
}

fn time(minute: i32) -> Option<Time> {
    (0..24 * 60).contains(&minute).then(|| Time::midnight().wrapping_add(minute.minutes()))
}

fn moment(date: Date, time: Time, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_timestamp(date.to_datetime(time)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(from: &str, to: &str, time_zone: &str) -> QuietHours {
        let minute = |text: &str| {
            let time: Time = text.parse().unwrap();
            i32::from(time.hour()) * 60 + i32::from(time.minute())
        };
        QuietHours { from_minute: minute(from), to_minute: minute(to), time_zone: time_zone.to_owned() }
    }

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    /// For each moment: until when it is quiet, or nothing.
    fn check(hours: &QuietHours, table: &[(&str, Option<&str>)]) {
        for (now, end) in table {
            assert_eq!(quiet_until(hours, ms(now)), end.map(ms), "{now}");
        }
    }

    #[test]
    fn quiet_hours_over_noon_begin_and_end_on_one_day() {
        check(
            &hours("12:00", "14:30", "UTC"),
            &[
                ("2026-11-22T11:59:59.999Z", None),
                ("2026-11-22T12:00:00Z", Some("2026-11-22T14:30:00Z")),
                ("2026-11-22T14:29:59.999Z", Some("2026-11-22T14:30:00Z")),
                ("2026-11-22T14:30:00Z", None),
            ],
        );
    }

    #[test]
    fn quiet_hours_over_midnight_end_on_the_next_day() {
        // Berlin is an hour ahead in winter.
        check(
            &hours("22:00", "07:00", "Europe/Berlin"),
            &[
                ("2026-11-22T20:59:59Z", None),
                ("2026-11-22T21:00:00Z", Some("2026-11-23T06:00:00Z")),
                ("2026-11-22T23:30:00Z", Some("2026-11-23T06:00:00Z")),
                ("2026-11-23T05:59:59Z", Some("2026-11-23T06:00:00Z")),
                ("2026-11-23T06:00:00Z", None),
                ("2026-12-31T22:30:00Z", Some("2027-01-01T06:00:00Z")),
            ],
        );
        check(
            &hours("22:00", "00:00", "Pacific/Kiritimati"),
            // Fourteen hours ahead.
            &[("2026-11-22T08:00:00Z", Some("2026-11-22T10:00:00Z")), ("2026-11-22T10:00:00Z", None)],
        );
    }

    #[test]
    fn a_night_in_which_the_clocks_change_is_shorter_or_longer() {
        let night = hours("22:00", "07:00", "Europe/Berlin");
        // On at 2026-03-29 02:00, back at 2026-10-25 03:00.
        check(&night, &[("2026-03-28T21:00:00Z", Some("2026-03-29T05:00:00Z"))]);
        check(&night, &[("2026-03-28T20:59:00Z", None), ("2026-03-29T05:00:00Z", None)]);
        check(&night, &[("2026-10-24T20:00:00Z", Some("2026-10-25T06:00:00Z"))]);
        check(&night, &[("2026-10-25T05:59:00Z", Some("2026-10-25T06:00:00Z"))]);
    }

    #[test]
    fn a_time_that_the_clocks_skip_is_taken_for_later() {
        // From 02:00 to 03:00 there is nothing.
        let (end, begin) = (hours("01:00", "02:30", "Europe/Berlin"), hours("02:30", "05:00", "Europe/Berlin"));
        let half_past_three = Some("2026-03-29T01:30:00Z");
        check(&end, &[("2026-03-29T00:30:00Z", half_past_three), ("2026-03-29T01:30:00Z", None)]);
        let five = Some("2026-03-29T03:00:00Z");
        check(&begin, &[("2026-03-29T01:00:00Z", None), ("2026-03-29T01:30:00Z", five)]);
        // Everything of it is skipped or turned round: there is no quiet on that day, and no harm.
        check(&hours("02:50", "03:10", "Europe/Berlin"), &[("2026-03-29T01:20:00Z", None)]);
    }

    #[test]
    fn of_a_time_that_the_clocks_show_twice_the_first_counts() {
        // From 02:00 to 03:00 everything comes twice, at 00:00Z and at 01:00Z.
        let (end, begin) = (hours("01:00", "02:30", "Europe/Berlin"), hours("02:30", "05:00", "Europe/Berlin"));
        let first = Some("2026-10-25T00:30:00Z");
        check(&end, &[("2026-10-25T00:29:00Z", first), ("2026-10-25T00:31:00Z", None), ("2026-10-25T01:10:00Z", None)]);
        let five = Some("2026-10-25T04:00:00Z");
        check(
            &begin,
            &[("2026-10-25T00:29:00Z", None), ("2026-10-25T00:30:00Z", five), ("2026-10-25T01:10:00Z", five)],
        );
    }

    #[test]
    fn what_cannot_be_understood_is_not_quiet() {
        let always = |zone: &str| hours("00:00", "23:59", zone);
        assert!(quiet_until(&always("UTC"), 0).is_some());
        for zone in ["", "Mars/Phobos", "Europe"] {
            assert_eq!(quiet_until(&always(zone), 0), None, "{zone}");
        }
        for (from_minute, to_minute) in [(-1, 100), (0, 1_440), (i32::MIN, i32::MAX)] {
            let odd = QuietHours { from_minute, to_minute, ..always("UTC") };
            assert_eq!(quiet_until(&odd, 1_000), None);
        }
        for far in [i64::MIN, i64::MAX] {
            assert_eq!(quiet_until(&always("UTC"), far), None);
        }
    }

    #[test]
    fn the_time_zones_are_in_the_program() {
        assert!(jiff::tz::db().available().count() > 400, "an image without any has them all the same");
    }
}
