//! Holds the integration tests of `tests/it`; there is no library.
//!
//! Never depends on anything: what the tests stand on is `touchline-harness`.
