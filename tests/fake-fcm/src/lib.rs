//! A faithful imitation of Firebase Cloud Messaging (HTTP v1) and of Google's token endpoint, for machines without a
//! way to the real ones.
//!
//! Never depends on a service.
