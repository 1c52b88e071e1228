//! The fake, seen by real clients over real sockets.

#![expect(clippy::unwrap_used, reason = "what a test's own steps meet is its failure")]

mod behaviours;
mod control;
mod http2;
mod messages;
mod process;
mod sender;
mod token;
