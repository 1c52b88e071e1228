//! The integration tests: one binary, one module per subject, on real servers that `tests/run` starts.

mod acks;
mod authorization;
mod bad_input;
mod binary;
mod channels;
mod connect;
mod delivery;
mod devices;
mod fan_out;
mod follow;
mod limits;
mod load;
mod metrics;
mod notifier;
mod notifier_fcm;
mod people;
mod processes;
mod registry;
mod routes;
mod secrets;
mod send;
mod storage;
mod surface;
mod takeover;
