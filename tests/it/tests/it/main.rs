//! The integration tests: one binary, one module per subject, on real servers that `tests/run` starts.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod authorization;
mod bad_input;
mod binary;
mod delivery;
mod people;
mod processes;
mod registry;
mod storage;
mod surface;
