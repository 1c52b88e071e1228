//! A whole gateway with real sockets and a real push stream, in this process.

mod bounds;
mod client;
mod ends;
mod fixture;
mod frames;
mod handshake;
mod hello;
mod limits;
mod pushes;
mod questions;
mod raw;
mod relay;
