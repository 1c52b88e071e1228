//! The report for people: aligned, the verdict last.

use crate::{
    findings::Kind,
    plan::Pace,
    report::{Cost, Fault, Loaded, Outages, Report, Times},
};
use std::{
    fmt::{self, Display, Formatter, Write as _},
    time::Duration,
};

/// The width of the first column.
const LABEL: usize = 22;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "load", &what(&self.load))?;
        line(f, "sending", &how(&self.load))?;
        f.write_char('\n')?;
        self.write_counts(f)?;
        f.write_char('\n')?;
        self.write_times(f)?;
        self.faults.iter().try_for_each(|fault| write_fault(f, fault))?;
        f.write_char('\n')?;
        self.write_cost(f)?;
        self.write_verdict(f)
    }
}

fn line(f: &mut Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    writeln!(f, "{label:<LABEL$}{text}")
}

fn what(load: &Loaded) -> String {
    let kinds: Vec<_> = load.devices.iter().map(|(kind, count)| format!("{} {kind}", grouped(*count as u64))).collect();
    let Loaded { users, channels, canaries, seed, .. } = load;
    let (users, channels) = (grouped(*users as u64), grouped(*channels as u64));
    let canaries = if *canaries == 0 { String::new() } else { format!(", {canaries} canaries") };
    format!("{users} users in {channels} channels; devices: {}{canaries}; seed {seed}", kinds.join(", "))
}

fn how(load: &Loaded) -> String {
    let Some(sending) = &load.sending else { return "nothing".into() };
    let pace = match sending.pace {
        Pace::Even(rate) => format!("{rate}/s, even"),
        Pace::Poisson(rate) => format!("{rate}/s, as independent senders do (Poisson)"),
        Pace::Closed(at_a_time) => format!("closed loop, {at_a_time} at a time"),
    };
    let twice =
        if sending.twice > 0.0 { format!(", {:.0} % twice on purpose", sending.twice * 100.0) } else { String::new() };
    format!("{pace}{twice}, for {:.1} s", load.sent_for_s)
}

impl Report {
    fn write_counts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (sends, came) = (&self.sends, &self.deliveries);
        let row = |numbers: &[(&str, u64)]| {
            let numbers = numbers.iter().map(|(what, number)| format!("{} {what}", grouped(*number)));
            numbers.collect::<Vec<_>>().join("   ")
        };
        let messages = [
            ("sent", sends.messages),
            ("accepted", sends.accepted),
            ("refused", sends.refused),
            ("unresolved", sends.unresolved),
            ("dropped (too many in flight)", sends.dropped),
        ];
        line(f, "messages", &row(&messages))?;
        let requests = [
            ("in all", sends.attempts),
            ("for one message at most", sends.most_tries),
            ("deferred (429, 503)", sends.deferred),
            ("with unknown outcome", sends.unknown),
            ("messages resolved", sends.resolved),
            ("sent twice", sends.twice),
            ("answered as duplicates", sends.duplicates),
        ];
        line(f, "requests", &row(&requests))?;
        let deliveries = [
            ("shown", came.shown),
            ("per second", came.per_second.round() as u64),
            ("frames", came.frames),
            ("repeated on the wire", came.duplicated_on_wire),
        ];
        line(f, "deliveries", &row(&deliveries))?;
        let sockets = [
            ("ready", came.connects),
            ("ended on steady devices", came.disconnects),
            ("resets in mid-channel", came.resets),
        ];
        line(f, "sockets", &row(&sockets))?;
        self.endings.iter().try_for_each(|(why, count)| line(f, "", &format!("{} × {why}", grouped(*count))))?;
        if self.outages.count > 0 {
            let Outages { count, longest_s } = self.outages;
            let recovery =
                format!("{count} times devices were away; all were back and at head after {longest_s:.2} s at most");
            line(f, "recovery", &recovery)?;
        }
        Ok(())
    }

    fn write_times(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let head = ["p50", "p90", "p99", "p99.9", "max", "count"];
        let head: String = head.iter().map(|column| format!("{column:>10}")).collect();
        line(f, "milliseconds", &head)?;
        write_times(f, "send → answer", &self.answer)?;
        write_times(f, "send → device", &self.send_to_device)?;
        write_times(f, "accepted → device", &self.accepted_to_device)?;
        write_times(f, "reconnect → synced", &self.resume)
    }

    fn write_cost(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let per_delivery = self.own_cpu_s * 1e6 / self.deliveries.shown.max(1) as f64;
        let own = format!("{:.1} s CPU, {per_delivery:.1} µs per delivery", self.own_cpu_s);
        match &self.cost {
            None => line(f, "cost", &format!("this process {own}; name the servers' processes to know theirs")),
            Some(cost) => write_cost(f, cost, &own),
        }
    }

    fn write_verdict(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let settled = match self.load.settled_in_s {
            Some(seconds) => format!("all devices at head {seconds:.2} s after the last answer"),
            None => "not all devices came to the head of their channels".into(),
        };
        line(f, "settled", &settled)?;
        if self.is_clean() {
            let held = Kind::ALL.len();
            return line(f, "verdict", &format!("CLEAN: lost 0, duplicated 0, out of order 0; all {held} checks held"));
        }
        line(f, "verdict", "BROKEN")?;
        for kind in Kind::ALL {
            let count = self.broken.count(kind);
            let mark = if count > 0 { "✗" } else { " " };
            writeln!(f, "  {mark} {:<30}{:>10}", kind.name(), grouped(count))?;
        }
        self.examples.iter().try_for_each(|example| writeln!(f, "    {example}"))
    }
}

fn write_times(f: &mut Formatter<'_>, label: &str, times: &Times) -> fmt::Result {
    let Times { p50_ms, p90_ms, p99_ms, p999_ms, max_ms, count } = times;
    let times: String = [p50_ms, p90_ms, p99_ms, p999_ms, max_ms].iter().map(|time| format!("{time:>10.1}")).collect();
    line(f, label, &format!("{times}{:>10}", grouped(*count)))
}

fn write_fault(f: &mut Formatter<'_>, fault: &Fault) -> fmt::Result {
    let seconds = |time: Option<f64>, not: &str| time.map_or_else(|| not.to_owned(), |time| format!("{time:.2} s"));
    let text = format!(
        "at {:.1} s for {}; {} sockets ended; back: 99 % {}, all {}",
        fault.began_s,
        seconds(fault.lasted_s, "the rest"),
        fault.disconnects,
        seconds(fault.recovered_99_s, "never"),
        seconds(fault.recovered_s, "never"),
    );
    line(f, &format!("fault: {} ", fault.name), &text)?;
    write_times(f, "  send → device", &fault.send_to_device)
}

fn write_cost(f: &mut Formatter<'_>, cost: &Cost, own: &str) -> fmt::Result {
    let Cost { cpu_per_delivery_us, memory_per_session_kib, processes } = cost;
    let text = format!(
        "{cpu_per_delivery_us:.1} µs CPU per delivery; {memory_per_session_kib:.1} KiB per session; this process {own}"
    );
    line(f, "cost", &text)?;
    for process in processes {
        let text = format!(
            "{:.2} s CPU; {:.1} MiB, connected {:.1}, at the end {:.1}",
            process.cpu_s, process.before_mib, process.connected_mib, process.end_mib
        );
        line(f, &format!("  {} ({})", process.name, process.pid), &text)?;
    }
    Ok(())
}

/// With a space between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl Display for crate::Progress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { elapsed, messages, accepted, refused, deferred, unknown, in_flight, .. } = self;
        let Self { dropped, shown, online, devices, behind, broken, .. } = self;
        let elapsed = Duration::from_secs(elapsed.as_secs()).as_secs();
        write!(
            f,
            "{elapsed:>4} s  sent {} accepted {} in flight {in_flight}  shown {}  online {online}/{devices} behind {behind}",
            grouped(*messages),
            grouped(*accepted),
            grouped(*shown),
        )?;
        let rare = [("refused", refused), ("deferred", deferred), ("unknown", unknown), ("dropped", dropped)];
        for (what, count) in rare.into_iter().chain([("BROKEN", broken)]).filter(|(_, count)| **count > 0) {
            write!(f, "  {what} {}", grouped(*count))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Broken, Deliveries, Sends};

    #[test]
    fn the_verdict_stands_last_and_says_what_broke() {
        let mut report = Report {
            sends: Sends { messages: 12_345, accepted: 12_345, ..Sends::default() },
            deliveries: Deliveries { shown: 1_234_567, ..Deliveries::default() },
            outages: Outages { count: 2, longest_s: 1.25 },
            faults: vec![Fault { name: "kill".into(), recovered_s: Some(1.5), ..Fault::default() }],
            ..Report::default()
        };
        let text = report.to_string();
        assert!(text.contains("12 345 sent") && text.contains("1 234 567 shown"), "{text}");
        assert!(text.contains("all 1.50 s") && text.contains("after 1.25 s at most"), "{text}");
        assert!(
            text.lines().last().is_some_and(|last| last.starts_with("verdict") && last.contains("CLEAN")),
            "{text}"
        );
        report.broken = Broken { lost: 3, ..Broken::default() };
        report.examples = vec!["lost: an example".into()];
        let text = report.to_string();
        assert!(text.contains("BROKEN") && text.contains("✗ lost"), "{text}");
        assert!(text.ends_with("    lost: an example\n"), "{text}");
    }

    #[test]
    fn numbers_are_grouped() {
        let grouped: Vec<_> = [0, 999, 1000, 1_234_567].map(grouped).into();
        assert_eq!(grouped, ["0", "999", "1 000", "1 234 567"]);
    }
}
