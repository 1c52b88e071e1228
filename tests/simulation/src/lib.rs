//! The rules of delivery in virtual time: the state machines of api, gateway and client in one seeded world of faults.
//!
//! Never depends on I/O: no socket, no file, no clock.
