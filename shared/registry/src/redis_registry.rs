//! The registry in Redis.

mod connector;
mod link;
mod pipeline;
mod slots;

use crate::{
    LEASE_LIFE, Lease, ROUTE_LIFE, Registered, Registration, Registry, RegistryError, Renewal, Route, Settings,
    TICKET_MEMORY,
    keys::{Keys, Script, Scripts, decode_lease, decode_route, encode_lease, encode_route, milliseconds, seconds},
};
use link::{Answers, Link, unavailable};
use pipeline::{Call, Make};
use redis::{Cmd, FromRedisValue, ServerErrorKind, Value, cmd, from_redis_value};
use slots::Master;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use touchline_ids::{ConnectionNumber, GatewayId, IncarnationId, UserId};

/// [`Registry`] on one Redis server, one found through Sentinels, or a Cluster.
pub(crate) struct RedisRegistry {
    keys: Keys,
    scripts: Scripts,
    link: Link,
    /// What this process's incarnations knew at their last renewal.
    vouched: Mutex<HashMap<IncarnationId, Voucher>>,
}

/// Equal at two renewals: every write between them was answered by the node that now answers, over a connection that
/// never broke. Otherwise routes may be lost (a restart, a fail-over) although the lease is there.
#[derive(Default, Clone, PartialEq, Eq)]
struct Voucher {
    connection: u64,
    /// Of each Cluster master, our connection as it names it. The link's own does not tell: it repairs itself unseen.
    masters: HashMap<String, String>,
}

impl RedisRegistry {
    pub(crate) fn new(settings: &Settings) -> Result<Self, RegistryError> {
        Ok(Self {
            keys: Keys::new(&settings.prefix),
            scripts: Scripts::new(),
            link: Link::new(settings)?,
            vouched: Mutex::default(),
        })
    }

    /// Calls scripts, teaching them to a server that does not know them.
    async fn scripted(&self, count: usize, make: Make<'_>) -> Result<Answers, RegistryError> {
        let answers = self.link.pipelined(count, make).await?;
        if !answers.values.iter().any(is_unknown_script) {
            return Ok(answers);
        }
        let some_ran = !answers.values.iter().all(is_unknown_script);
        for script in self.scripts.all() {
            // Goes to every master of a Cluster.
            self.link.once(&script.load()).await?;
        }
        let mut answers = self.link.pipelined(count, make).await?;
        answers.repeated |= some_ran;
        Ok(answers)
    }

    async fn script<T: FromRedisValue>(&self, script: &Script, key: &[u8], args: &[&[u8]]) -> Result<T, RegistryError> {
        let mut answers = self.scripted(1, &|_| Call::new(key, script.call(key, args))).await?;
        read(answers.values.pop().unwrap_or(Value::Nil))
    }

    /// Whether routes registered before may be lost although the lease is there; remembers what it saw.
    async fn vouch(&self, lease: &Lease, connection: u64) -> Result<Renewal, RegistryError> {
        let (incarnation, life) = (lease.incarnation.to_string(), milliseconds(LEASE_LIFE));
        let questions = |master: &Master| {
            let mut mark = cmd("SET");
            mark.arg(self.keys.mark(&master.tag, &lease.gateway)).arg(&incarnation).arg("PX").arg(&life).arg("GET");
            let mut client = cmd("CLIENT");
            client.arg("INFO");
            vec![mark, client]
        };
        let answers = self.link.each_master(&questions).await?;
        let mut vouched = self.vouched.lock().unwrap_or_else(PoisonError::into_inner);
        let before = vouched.get(&lease.incarnation);
        let mut now = before.cloned().unwrap_or_default();
        let mut marked = true;
        now.connection = connection;
        for answer in answers {
            let Ok([mark, client]) = <[Value; 2]>::try_from(answer.values) else { continue };
            marked &= read::<Option<String>>(mark)?.as_ref() == Some(&incarnation);
            now.masters.insert(answer.master.address, our_connection(&read::<String>(client)?));
        }
        let continues = before == Some(&now);
        vouched.insert(lease.incarnation, now);
        Ok(match (marked, continues) {
            (false, _) => Renewal::Missing,
            (true, false) => Renewal::Doubtful,
            (true, true) => Renewal::Renewed,
        })
    }

    /// Reads leases by gateway; `None` where there is none.
    async fn leases(&self, gateways: &[GatewayId]) -> Result<Vec<Option<Lease>>, RegistryError> {
        let call = |index: usize| {
            let key = self.keys.lease(&gateways[index]);
            Call::new(&key, command("HGETALL", &key))
        };
        let answers = self.link.pipelined(gateways.len(), &call).await?;
        let lease = |(gateway, value): (&GatewayId, Value)| Ok(decode_lease(gateway.clone(), read(value)?));
        gateways.iter().zip(answers.values).map(lease).collect()
    }

    /// Takes ids without a lease out of the directory, and puts back whoever renewed meanwhile.
    async fn sweep(&self, gone: &[GatewayId]) -> Result<(), RegistryError> {
        let key = self.keys.gateways();
        self.link.call(&|| Call::new(&key, with_args("SREM", &key, gone))).await?;
        let back = self.leases(gone).await?.into_iter().flatten().map(|lease| lease.gateway).collect::<Vec<_>>();
        if !back.is_empty() {
            self.link.call(&|| Call::new(&key, with_args("SADD", &key, &back))).await?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Registry for RedisRegistry {
    async fn renew_lease(&self, lease: &Lease) -> Result<Renewal, RegistryError> {
        let (key, gateways, life) = (self.keys.lease(&lease.gateway), self.keys.gateways(), milliseconds(LEASE_LIFE));
        let fields = encode_lease(lease);
        let mut args = vec![life.as_bytes()];
        for (field, value) in &fields {
            args.extend([field.as_bytes(), value.as_bytes()]);
        }
        let call = |index| match index {
            0 => Call::new(&key, self.scripts.lease.call(&key, &args)),
            // After the lease, so that a sweep that missed the lease puts the id back.
            _ => Call::new(&gateways, with_args("SADD", &gateways, std::slice::from_ref(&lease.gateway))),
        };
        let answers = self.scripted(2, &call).await?;
        let mut values = answers.values.into_iter();
        let said: String = read(values.next().unwrap_or(Value::Nil))?;
        read::<Value>(values.next().unwrap_or(Value::Nil))?;
        match said.as_str() {
            "fenced" => Ok(Renewal::Fenced),
            said => {
                let vouched = self.vouch(lease, answers.serial).await?;
                Ok(if said == "renewed" { vouched } else { Renewal::Missing })
            }
        }
    }

    async fn release_lease(&self, gateway: &GatewayId, incarnation: IncarnationId) -> Result<(), RegistryError> {
        // The directory is left to the sweep: a next incarnation may be in it already.
        let (key, id) = (self.keys.lease(gateway), incarnation.to_string());
        self.script::<i64>(&self.scripts.release_lease, &key, &[id.as_bytes()]).await?;
        self.vouched.lock().unwrap_or_else(PoisonError::into_inner).remove(&incarnation);
        Ok(())
    }

    async fn gateways(&self) -> Result<Vec<Lease>, RegistryError> {
        let key = self.keys.gateways();
        let ids: Vec<String> = read(self.link.call(&|| Call::new(&key, command("SMEMBERS", &key))).await?)?;
        let ids: Vec<GatewayId> = ids.into_iter().filter_map(|id| id.parse().ok()).collect();
        let leases = self.leases(&ids).await?;
        let gone: Vec<_> =
            ids.into_iter().zip(&leases).filter(|(_, lease)| lease.is_none()).map(|(id, _)| id).collect();
        if !gone.is_empty() {
            self.sweep(&gone).await?;
        }
        Ok(leases.into_iter().flatten().collect())
    }

    async fn register(&self, sessions: &[Registration]) -> Result<Vec<Registered>, RegistryError> {
        let life = seconds(ROUTE_LIFE);
        let call = |index: usize| {
            let session: &Registration = &sessions[index];
            let key = self.keys.user(session.user);
            let route = encode_route(session.incarnation, session.connection);
            let args = [session.device.as_str().as_bytes(), &route, life.as_bytes()];
            Call::new(&key, self.scripts.register.call(&key, &args))
        };
        let answers = self.scripted(sessions.len(), &call).await?;
        // What was sent twice may be found because the first time stored it.
        let kept = if answers.repeated { Registered::Stored } else { Registered::Kept };
        let answer = |value| {
            if value == Value::Int(1) {
                return Ok(kept);
            }
            let newer = read::<Option<Vec<u8>>>(value)?.as_deref().and_then(decode_route);
            Ok(newer
                .map_or(Registered::Stored, |(incarnation, connection)| Registered::Newer { incarnation, connection }))
        };
        answers.values.into_iter().map(answer).collect()
    }

    async fn take_over(
        &self,
        session: &Registration,
        dead: IncarnationId,
        connection: ConnectionNumber,
    ) -> Result<bool, RegistryError> {
        let key = self.keys.user(session.user);
        let route = encode_route(session.incarnation, session.connection);
        let (expected, life) = (encode_route(dead, connection), seconds(ROUTE_LIFE));
        let args = [session.device.as_str().as_bytes(), &route, life.as_bytes(), &expected];
        Ok(self.script::<i64>(&self.scripts.take_over, &key, &args).await? == 1)
    }

    async fn unregister(&self, session: &Registration) -> Result<bool, RegistryError> {
        let key = self.keys.user(session.user);
        let route = encode_route(session.incarnation, session.connection);
        let args: [&[u8]; 2] = [session.device.as_str().as_bytes(), &route];
        Ok(self.script::<i64>(&self.scripts.unregister, &key, &args).await? == 1)
    }

    async fn prune(&self, routes: &[(UserId, IncarnationId)]) -> Result<u64, RegistryError> {
        let call = |index: usize| {
            let (user, incarnation) = routes[index];
            let key = self.keys.user(user);
            Call::new(&key, self.scripts.prune.call(&key, &[incarnation.as_bytes()]))
        };
        let answers = self.scripted(routes.len(), &call).await?;
        answers.values.into_iter().map(read::<u64>).sum()
    }

    async fn look_up(&self, users: &[UserId]) -> Result<Vec<Route>, RegistryError> {
        let call = |index: usize| {
            let key = self.keys.user(users[index]);
            Call::new(&key, command("HVALS", &key))
        };
        let answers = self.link.pipelined(users.len(), &call).await?;
        let mut routes = Vec::with_capacity(users.len());
        for (index, value) in (0u32..).zip(answers.values) {
            let Value::Array(devices) = value else {
                value.extract_error().map_err(unavailable)?;
                continue;
            };
            let first = routes.len();
            for device in &devices {
                let Value::BulkString(route) = device else { continue };
                let Some((incarnation, _)) = decode_route(route) else { continue };
                let route = Route { index, incarnation };
                if !routes[first..].contains(&route) {
                    routes.push(route);
                }
            }
        }
        Ok(routes)
    }

    async fn redeem_ticket(&self, ticket: &str) -> Result<bool, RegistryError> {
        let mut set = command("SET", &self.keys.ticket(ticket));
        set.arg("").arg("NX").arg("PX").arg(milliseconds(TICKET_MEMORY));
        // Never sent twice: the second answer would call a good ticket used.
        Ok(self.link.once(&set).await? != Value::Nil)
    }

    async fn ping(&self) -> Result<(), RegistryError> {
        self.link.once(&cmd("PING")).await.map(drop)
    }
}

fn command(name: &str, key: &[u8]) -> Cmd {
    let mut command = Cmd::with_capacity(2, name.len() + key.len());
    command.arg(name).arg(key);
    command
}

fn with_args(name: &str, key: &[u8], gateways: &[GatewayId]) -> Cmd {
    let mut command = command(name, key);
    for gateway in gateways {
        command.arg(gateway.as_str());
    }
    command
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, RegistryError> {
    let value = value.extract_error().map_err(unavailable)?;
    from_redis_value(value).map_err(|error| RegistryError::Unavailable(Box::new(error)))
}

fn is_unknown_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}

/// The parts of `CLIENT INFO` that name a connection: its number at the server and our address.
fn our_connection(info: &str) -> String {
    info.split(' ').filter(|part| part.starts_with("id=") || part.starts_with("addr=")).collect::<Vec<_>>().join(" ")
}
