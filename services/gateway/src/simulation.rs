//! The gateway's rules for a simulator.

/// Ways to break the rules on purpose, to see that a simulator notices. All off by default.
#[derive(Debug, Default, Clone, Copy)]
pub struct Broken {
    /// A client is told `ready`, and syncs, before its route is visible.
    pub ready_before_register: bool,
    /// Neither a loss nor time makes sessions register again.
    pub no_reregistration: bool,
}
