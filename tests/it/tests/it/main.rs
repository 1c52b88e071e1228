//! The integration tests: real servers, our services in one process or as many. Start them with `tests/run`.

mod delivery;
mod processes;
