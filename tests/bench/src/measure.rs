//! The clock that all processes of this machine share.

use std::time::Duration;

/// Nanoseconds of the monotonic clock: the same in every process of this machine.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)).as_nanos())
        .unwrap_or(u64::MAX)
}
