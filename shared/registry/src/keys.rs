//! Every Redis key, its lifetime, its encoding and every script that writes it. Each script touches exactly one key,
//! so that all of them work on Cluster.
//!
//! | key (after the prefix) | type | content | lifetime |
//! |---|---|---|---|
//! | `gw:<gateway id>` | hash | the lease, one field per field of [`Lease`] | [`LEASE_LIFE`](crate::LEASE_LIFE) |
//! | `gws` | set | ids of gateways that had a lease; swept of those that have none | none |
//! | `u:<user, 32 hex>` | hash | device → incarnation (16 bytes) + connection number (8, big endian) | [`ROUTE_LIFE`](crate::ROUTE_LIFE) after the last registration |
//! | `ticket:<jti>` | string | empty: the ticket was used | [`TICKET_MEMORY`](crate::TICKET_MEMORY) |
//! | `mark:{<tag>}:<gateway id>` | string | incarnation; Cluster only, one on each master: a missing mark means that node lost its keys | [`LEASE_LIFE`](crate::LEASE_LIFE) |
//!
//! Redis must not evict (`maxmemory-policy noeviction`). Besides reads and writes of these key patterns an ACL user
//! needs `+@scripting +ping +client|info`, with Cluster `+cluster|slots`, with Sentinel `+role`.

use crate::{GatewayState, Lease};
use redis::{Cmd, cmd};
use std::{collections::HashMap, time::Duration};
use touchline_ids::{ConnectionNumber, GatewayId, IncarnationId, UserId};
use uuid::Uuid;

/// Fenced by a later incarnation, renewed, or (re)created. Ids are compared byte by byte: Lua's `<` on strings
/// follows the server's locale.
/// ARGV: life in ms, then the lease's fields and values, `incarnation` first.
const LEASE: &str = r"
local mine = ARGV[3]
local held = redis.call('HGET', KEYS[1], 'incarnation')
if held then
  for i = 1, #mine do
    local theirs, ours = held:byte(i) or 0, mine:byte(i)
    if theirs > ours then return 'fenced' end
    if theirs < ours then break end
  end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
if held == mine then return 'renewed' end
return 'missing'
";

/// Ends a lease, if it is this incarnation's. ARGV: incarnation.
const RELEASE_LEASE: &str = r"
if redis.call('HGET', KEYS[1], 'incarnation') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// Stores a route unless a greater connection number of the device is there, which it returns; 1 when exactly this
/// route was there. The number is compared in two halves: Lua's numbers are exact to 2^53 only.
/// ARGV: device, route, life in s.
const REGISTER: &str = r"
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held == ARGV[2] then
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  return 1
end
if held and #held == 24 then
  local held_high, held_low = struct.unpack('>i4I4', held, 17)
  local high, low = struct.unpack('>i4I4', ARGV[2], 17)
  if held_high > high or (held_high == high and held_low > low) then return held end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return false
";

/// Stores a route in place of exactly the one expected (or of itself, so that a repeated call answers alike).
/// ARGV: device, route, life in s, expected route.
const TAKE_OVER: &str = r"
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held ~= ARGV[4] and held ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
";

/// Removes a device's route if it is unchanged. ARGV: device, route.
const UNREGISTER: &str = r"
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
";

/// Removes every route of one incarnation. ARGV: incarnation, 16 bytes.
const PRUNE: &str = r"
local devices = redis.call('HGETALL', KEYS[1])
local removed = 0
for i = 1, #devices, 2 do
  if #devices[i + 1] == 24 and devices[i + 1]:sub(1, 16) == ARGV[1] then
    removed = removed + redis.call('HDEL', KEYS[1], devices[i])
  end
end
return removed
";

/// A script by the hash that Redis knows it by.
pub(crate) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// The call of this script on its one key. Redis answers `NOSCRIPT` until [`Script::load`] was sent.
    pub(crate) fn call(&self, key: &[u8], args: &[&[u8]]) -> Cmd {
        let size = 64 + key.len() + args.iter().map(|arg| arg.len()).sum::<usize>();
        let mut command = Cmd::with_capacity(4 + args.len(), size);
        command.arg("EVALSHA").arg(&self.hash).arg(1).arg(key);
        for arg in args {
            command.arg(*arg);
        }
        command
    }

    /// Teaches a server the script.
    pub(crate) fn load(&self) -> Cmd {
        let mut command = cmd("SCRIPT");
        command.arg("LOAD").arg(self.code);
        command
    }
}

/// All scripts, hashed once.
pub(crate) struct Scripts {
    pub(crate) lease: Script,
    pub(crate) release_lease: Script,
    pub(crate) register: Script,
    pub(crate) take_over: Script,
    pub(crate) unregister: Script,
    pub(crate) prune: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            lease: Script::new(LEASE),
            release_lease: Script::new(RELEASE_LEASE),
            register: Script::new(REGISTER),
            take_over: Script::new(TAKE_OVER),
            unregister: Script::new(UNREGISTER),
            prune: Script::new(PRUNE),
        }
    }

    pub(crate) fn all(&self) -> [&Script; 6] {
        [&self.lease, &self.release_lease, &self.register, &self.take_over, &self.unregister, &self.prune]
    }
}

/// The names of the keys under one prefix.
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(crate) fn lease(&self, gateway: &GatewayId) -> Vec<u8> {
        format!("{}gw:{gateway}", self.prefix).into_bytes()
    }

    pub(crate) fn gateways(&self) -> Vec<u8> {
        format!("{}gws", self.prefix).into_bytes()
    }

    pub(crate) fn ticket(&self, ticket: &str) -> Vec<u8> {
        format!("{}ticket:{ticket}", self.prefix).into_bytes()
    }

    pub(crate) fn mark(&self, tag: &str, gateway: &GatewayId) -> Vec<u8> {
        format!("{}mark:{{{tag}}}:{gateway}", self.prefix).into_bytes()
    }

    /// Without `format!`: a send makes this key for each recipient.
    pub(crate) fn user(&self, user: UserId) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + 2 + 32);
        key.extend_from_slice(self.prefix.as_bytes());
        key.extend_from_slice(b"u:");
        key.extend_from_slice(user.0.simple().encode_lower(&mut [0; 32]).as_bytes());
        key
    }
}

/// How a route is stored: incarnation, then connection number in network order.
pub(crate) fn encode_route(incarnation: IncarnationId, connection: ConnectionNumber) -> [u8; 24] {
    let mut route = [0; 24];
    route[..16].copy_from_slice(incarnation.as_bytes());
    route[16..].copy_from_slice(&connection.0.to_be_bytes());
    route
}

/// Reads a stored route; `None` when it is not one.
pub(crate) fn decode_route(route: &[u8]) -> Option<(IncarnationId, ConnectionNumber)> {
    let (incarnation, connection) = route.split_first_chunk::<16>()?;
    let connection = i64::from_be_bytes(connection.try_into().ok()?);
    Some((IncarnationId(Uuid::from_bytes(*incarnation)), ConnectionNumber(connection)))
}

/// The fields of a stored lease, `incarnation` first.
pub(crate) fn encode_lease(lease: &Lease) -> [(&'static str, String); 7] {
    let state = match lease.state {
        GatewayState::Ready => "ready",
        GatewayState::Draining => "draining",
    };
    [
        ("incarnation", lease.incarnation.to_string()),
        ("grpc_url", lease.grpc_url.clone()),
        ("public_url", lease.public_url.clone()),
        ("state", state.to_owned()),
        ("sessions", lease.sessions.to_string()),
        ("capacity", lease.capacity.to_string()),
        ("push_streams", lease.push_streams.to_string()),
    ]
}

/// Reads a stored lease; `None` when there is none or it is not one.
pub(crate) fn decode_lease(gateway: GatewayId, mut fields: HashMap<String, String>) -> Option<Lease> {
    let state = match fields.get("state")?.as_str() {
        "ready" => GatewayState::Ready,
        "draining" => GatewayState::Draining,
        _ => return None,
    };
    Some(Lease {
        gateway,
        incarnation: fields.get("incarnation")?.parse().ok()?,
        state,
        sessions: fields.get("sessions")?.parse().ok()?,
        capacity: fields.get("capacity")?.parse().ok()?,
        // A gateway of the version before does not say.
        push_streams: fields.get("push_streams").and_then(|streams| streams.parse().ok()).unwrap_or(0),
        grpc_url: fields.remove("grpc_url")?,
        public_url: fields.remove("public_url")?,
    })
}

/// A lifetime as an argument, in seconds.
pub(crate) fn seconds(life: Duration) -> String {
    life.as_secs().to_string()
}

/// A lifetime as an argument, in milliseconds.
pub(crate) fn milliseconds(life: Duration) -> String {
    life.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_documented() {
        let keys = Keys::new("tl:");
        let user: UserId = "0190b3c8-7d3e-7c61-9b1a-2f6f0a6b8e11".parse().unwrap();
        let gateway: GatewayId = "gw-7".parse().unwrap();
        assert_eq!(keys.user(user), b"tl:u:0190b3c87d3e7c619b1a2f6f0a6b8e11");
        assert_eq!(keys.lease(&gateway), b"tl:gw:gw-7");
        assert_eq!(keys.gateways(), b"tl:gws");
        assert_eq!(keys.ticket("abc"), b"tl:ticket:abc");
        assert_eq!(keys.mark("12", &gateway), b"tl:mark:{12}:gw-7");
    }

    #[test]
    fn routes_and_leases_survive_their_encoding() {
        let (incarnation, connection) = (IncarnationId::new(), ConnectionNumber(-2));
        assert_eq!(decode_route(&encode_route(incarnation, connection)), Some((incarnation, connection)));
        assert_eq!(decode_route(&[0; 23]), None);
        assert_eq!(decode_route(&[0; 25]), None);

        let lease = crate::contract::lease("gw-1", incarnation);
        let fields = encode_lease(&lease).into_iter().map(|(field, value)| (field.to_owned(), value));
        assert_eq!(decode_lease(lease.gateway.clone(), fields.clone().collect()), Some(lease.clone()));
        let older = fields.filter(|(field, _)| field != "push_streams").chain([("new".to_owned(), "1".to_owned())]);
        let without = Lease { push_streams: 0, ..lease.clone() };
        assert_eq!(decode_lease(lease.gateway.clone(), older.collect()), Some(without), "leases of other versions");
        assert_eq!(decode_lease(lease.gateway, HashMap::new()), None);
    }
}
