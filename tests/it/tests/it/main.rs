//! The integration tests: one binary, one module per subject, on real servers that `tests/run` starts.

mod authorization;
mod bad_input;
mod binary;
mod delivery;
mod people;
mod processes;
mod registry;
mod storage;
mod surface;
