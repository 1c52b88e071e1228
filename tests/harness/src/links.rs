//! The links between the processes of a stack, each with a proxy on it where the test asks for one.

use crate::{NodeName, Process, Proxy, settings::Settings};
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};

/// A link that bytes take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// Clients to an api's REST.
    ClientApi(usize),
    /// Clients to a gateway's sockets.
    ClientGateway(usize),
    /// All apis to a gateway's pushes; tells apart which of them dialled.
    ApiGateway(usize),
    /// One process to Redis.
    Redis(NodeName),
    /// One api to the database.
    Database(usize),
}

/// All links of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkKind {
    /// See [`Link::ClientApi`].
    ClientApi,
    /// See [`Link::ClientGateway`].
    ClientGateway,
    /// See [`Link::ApiGateway`].
    ApiGateway,
    /// See [`Link::Redis`].
    Redis,
    /// See [`Link::Database`].
    Database,
}

impl Link {
    fn kind(self) -> LinkKind {
        match self {
            Self::ClientApi(_) => LinkKind::ClientApi,
            Self::ClientGateway(_) => LinkKind::ClientGateway,
            Self::ApiGateway(_) => LinkKind::ApiGateway,
            Self::Redis(_) => LinkKind::Redis,
            Self::Database(_) => LinkKind::Database,
        }
    }
}

/// The proxies of a stack. They outlive the processes, whose addresses thus stay the same over restarts.
#[derive(Debug, Default)]
pub(crate) struct Links {
    kinds: BTreeSet<LinkKind>,
    proxies: BTreeMap<Link, Arc<Proxy>>,
}

impl Links {
    pub(crate) fn new(kinds: &BTreeSet<LinkKind>) -> Self {
        Self { kinds: kinds.clone(), proxies: BTreeMap::new() }
    }

    pub(crate) fn get(&self, link: Link) -> Result<&Arc<Proxy>> {
        self.proxies.get(&link).with_context(|| format!("no proxy sits on {link:?}"))
    }

    /// Writes the addresses of the proxies around `node` into the settings it is about to start with.
    pub(crate) async fn enter(&mut self, node: NodeName, settings: &mut Settings) -> Result<()> {
        match node {
            NodeName::Api(index) => {
                self.open(Link::ClientApi(index)).await?;
                if let Some(proxy) = self.open(Link::Database(index)).await? {
                    settings.database.url = detour(&settings.database.url, proxy)?;
                }
            }
            NodeName::Gateway(index) => {
                settings.gateway.id = Some(node.to_string().parse()?);
                let sockets = self.open(Link::ClientGateway(index)).await?;
                settings.gateway.public_url = sockets.map(|proxy| format!("ws://{}", proxy.address()));
                let pushes = self.open(Link::ApiGateway(index)).await?;
                settings.gateway.grpc_url = pushes.map(|proxy| format!("http://{}", proxy.address()));
            }
            // It knows neither clients nor Redis.
            NodeName::Notifier(_) => return Ok(()),
        }
        if let Some(proxy) = self.open(Link::Redis(node)).await? {
            let [url] = &mut settings.registry.urls[..] else { anyhow::bail!("only one Redis fits behind a proxy") };
            *url = detour(url, proxy)?;
        }
        Ok(())
    }

    /// Leads what goes to `node` to where it listens now; gives the address clients are to use, if that is a proxy's.
    pub(crate) fn lead(&self, node: NodeName, process: &Process) -> Result<Option<String>> {
        let to = |link: Link, key: &str| -> Result<Option<SocketAddr>> {
            let Some(proxy) = self.proxies.get(&link) else { return Ok(None) };
            let url = process.address(key)?;
            proxy.lead_to(url.split_once("://").context("a URL")?.1.parse()?);
            Ok(Some(proxy.address()))
        };
        match node {
            NodeName::Api(index) => Ok(to(Link::ClientApi(index), "http")?.map(|address| format!("http://{address}"))),
            NodeName::Gateway(index) => {
                to(Link::ApiGateway(index), "grpc")?;
                Ok(to(Link::ClientGateway(index), "ws")?.map(|address| format!("ws://{address}")))
            }
            NodeName::Notifier(_) => Ok(None),
        }
    }

    /// The proxy of this link, when one is to sit there.
    async fn open(&mut self, link: Link) -> Result<Option<&Proxy>> {
        if !self.kinds.contains(&link.kind()) {
            return Ok(None);
        }
        let proxy = match self.proxies.entry(link) {
            Entry::Occupied(proxy) => proxy.into_mut(),
            Entry::Vacant(place) => place.insert(Arc::new(match link.kind() {
                LinkKind::ApiGateway => Proxy::open_telling_diallers_apart().await?,
                _ => Proxy::open().await?,
            })),
        };
        Ok(Some(proxy))
    }
}

/// The same URL by way of the proxy.
fn detour(url: &str, proxy: &Proxy) -> Result<String> {
    let (scheme, rest) = url.split_once("://").context("a URL has a scheme")?;
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    let target = host.to_socket_addrs()?.find(SocketAddr::is_ipv4);
    proxy.lead_to(target.with_context(|| format!("{host} is no address"))?);
    let at = if user.is_empty() { "" } else { "@" };
    let slash = if path.is_empty() { "" } else { "/" };
    ensure!(!scheme.ends_with("ss"), "a proxy cannot look into TLS");
    Ok(format!("{scheme}://{user}{at}{}{slash}{path}", proxy.address()))
}
