//! The table, as measured, with what it was measured on.

use crate::{outcome::Outcome, scenario::Scenario};
use std::{
    fmt::Write as _,
    process::{Command, Stdio},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What this machine does not offer, and what stands in for it.
const ADAPTED: &str = "\
How the rows were tested where the machine offers less than the table of failure modes asks for: there is no \
`sch_netem` and no `nft`, so every cut, delay and black hole is the TCP proxy of `tests/harness` on that link (a dial \
into a black hole is accepted by the kernel and hangs in the proxy). Row 6 is a cgroup quota, row 17 a delay of 100 ms each way (with 500 ms a transaction is over its budget), row 12 a Sentinel with a \
replica that was cut off before, row 19 a tmpfs of 64 MB, row 20 the proxy at 100 B/s behind a window of 4 KiB, row 26 \
libfaketime on single processes, row 32 the largest channel the configuration allows (10,000 members), row 29 as many \
sockets as one process may open files for. All clients have one address, so limits by address are off. FCM is `tests/fake-fcm`; in rows without a notifier, notifications are rows for it. Row 41 is not in the table: notifiers killed again and again. Loss of what \
the disk had acknowledged (a real power cut) is not tested.";

/// A row of the table.
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    pub(crate) outcome: Outcome,
    pub(crate) seconds: f64,
}

/// The last line, such as `faults: 31 rows, 30 passed, 1 missed a target, 0 broke`.
pub(crate) fn summary(rows: &[Row]) -> String {
    let count = |word| rows.iter().filter(|row| row.outcome.word() == word).count();
    let [passed, missed, broke] = ["passed", "missed", "BROKE"].map(count);
    format!("faults: {} rows, {passed} passed, {missed} missed a target, {broke} broke", rows.len())
}

/// Everything, as Markdown.
pub(crate) fn markdown(rows: &[Row], seed: u64, short: bool) -> String {
    let mut text = String::from("# Faults, as measured\n\n");
    let list = if short { "the short list" } else { "the whole list" };
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    _ = writeln!(text, "{list}, {build} build, seed {seed}, {now}, commit {}.\n", commit());
    _ = writeln!(text, "{}\n\n{ADAPTED}\n", machine());
    text.push_str(&table(rows));
    _ = writeln!(text, "\n{}", summary(rows));
    let missed: Vec<_> = rows.iter().filter(|row| !row.outcome.passed()).collect();
    if !missed.is_empty() {
        text.push_str("\n## Missed\n\n");
    }
    for row in missed {
        _ = writeln!(
            text,
            "* {} `{}`: {}",
            row.scenario.row,
            row.scenario.name,
            [&row.outcome.broke[..], &row.outcome.missed[..]].concat().join("; ")
        );
    }
    text
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| # | scenario | target | accepted | unknown | lost | dup | order | mis | wire dup | notified/un | live | p99 before | p99 ms | max ms | recovery s | also | took s | verdict |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for Row { scenario, outcome, seconds } in rows {
        let verdict = outcome.word();
        let recovery = outcome.recovery_s.map_or("-".into(), |seconds| format!("{seconds:.1}"));
        _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {}/{} | {} | {:.0} | {:.0} | {:.0} | {recovery} | {} | {seconds:.0} | {verdict} |",
            scenario.row,
            scenario.name.replace('_', " "),
            scenario.target,
            outcome.accepted,
            outcome.unknown,
            outcome.lost,
            outcome.duplicated,
            outcome.out_of_order,
            outcome.misdelivered,
            outcome.duplicated_on_wire,
            outcome.notified,
            outcome.unnotified,
            outcome.notified_while_live,
            outcome.before_p99_ms,
            outcome.p99_ms,
            outcome.max_ms,
            outcome.special.join("; ").replace('|', "/"),
        );
    }
    text.push_str(
        "\nlost, dup (visible), order (visible) and mis(delivered) must be 0. notified/un: pairs of absent user and channel with a \
         notification in time (rows with a notifier: a push that FCM accepted), and without; live: notifications that were due for a while though a steady device was there. p99 and max: \
         send → shown by steady devices, of what was sent while the fault lasted, reconnecting included; recovery: from healed until every \
         steady device is connected and at head.\n",
    );
    text
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = said("uname", &["-r"]);
    let redis = said("redis-server", &["--version"]).split(' ').nth(2).unwrap_or_default().to_owned();
    let postgres = std::env::var("TOUCHLINE_POSTGRES_VERSION").unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    format!("{cores} × {model}, {} GiB, Linux {kernel}, Redis {redis}, Postgres {postgres}.", kib >> 20)
}

fn commit() -> String {
    let dirty = if said("git", &["status", "--porcelain"]).is_empty() { "" } else { " with changes" };
    format!("{}{dirty}", said("git", &["rev-parse", "--short", "HEAD"]))
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
