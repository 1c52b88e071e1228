//! `fake-fcm`: the imitation as a process of its own.

fn main() {}
