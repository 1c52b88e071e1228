//! The database schema, one file per step.
//!
//! Never depends on another crate of ours.
