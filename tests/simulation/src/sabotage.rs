//! One rule broken on purpose.

use touchline_client::rules;
use touchline_gateway::simulation::Broken;

/// Which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// None.
    Nothing,
    /// A device acks what arrived, whatever is missing before it.
    AckOnReceipt,
    /// A device syncs while the socket is opened, and not after `ready`.
    SyncBeforeReady,
    /// A gateway says `ready` before the route is registered.
    ReadyBeforeRegister,
    /// Nobody takes the outbox rows of others over: as good as no outbox.
    NoTakeover,
    /// A gateway does not register again what the registry lost.
    NoReRegistration,
    /// The registry removes a route whatever stands there.
    UnregisterWithoutCompare,
}

impl Sabotage {
    pub(crate) fn of_client(self) -> rules::Sabotage {
        rules::Sabotage { ack_on_receipt: self == Self::AckOnReceipt, sync_before_ready: self == Self::SyncBeforeReady }
    }

    pub(crate) fn of_gateway(self) -> Broken {
        Broken {
            ready_before_register: self == Self::ReadyBeforeRegister,
            no_reregistration: self == Self::NoReRegistration,
        }
    }

    pub(crate) fn takes_nothing_over(self) -> bool {
        self == Self::NoTakeover
    }

    pub(crate) fn unregisters_without_compare(self) -> bool {
        self == Self::UnregisterWithoutCompare
    }
}
