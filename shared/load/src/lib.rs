//! Load and verdict: senders, devices of several kinds, and the checker that judges what they saw. Against any running
//! Touchline, by URL.
//!
//! Never depends on a service, a database or the registry: it sees what a client sees.
