//! Crash points for the fault tests, configured by the environment variable `FAILPOINTS` such as
//! `after_commit=10%return;before_response=5*return`:
//!
//! * `after_commit`: the process dies between a batch's commit and everything that follows it.
//! * `before_response`: a send is committed, and its connection is cut without an answer.
//! * `after_push`: the process dies when a message's pushes are handed to the streams.
//! * `fan_out`: a message's fan-out panics.

/// What cuts a request's connection when it is panicked with.
pub struct Cut;

/// Configures them.
///
/// # Panics
/// When the variable is not spelt as it must be.
pub fn from_environment() {
    // Not `FailScenario`: it allows one in a process, and here may be several apis and gateways.
    let Ok(points) = std::env::var("FAILPOINTS") else { return };
    for point in points.split(';').map(str::trim).filter(|point| !point.is_empty()) {
        let (name, actions) = point.split_once('=').expect("FAILPOINTS=name=actions;…");
        fail::cfg(name, actions).expect("FAILPOINTS=name=actions;…");
    }
}
