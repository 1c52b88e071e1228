//! Our services, all of them, as one test sees them: in one process, or each in its own.

use crate::{
    Curtain, Link, NodeName, Person, Process, Proxy, TestDatabase,
    links::Links,
    nodes::{Node, Recipe},
};
use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::{path::Path, process::ExitStatus, sync::Arc, time::Duration};
use tempfile::TempDir;
use touchline_auth::{AccessTokens, KeySet, SigningKey};
use touchline_client::Client;
use touchline_ids::{ChannelId, UserId};
use touchline_mesh::Shutdown;
use touchline_registry::Registry;
use touchline_storage::{CreateUser, NewUser, Storage};
use uuid::Uuid;

/// How long a stack may take to stop softly.
const STOP: Duration = Duration::from_secs(20);
/// A password for people whose password does not matter.
pub const PASSWORD: &str = "correct horse battery staple";
/// Users that are created at the same time.
const CREATING: usize = 16;

/// A running system. Dropping it stops it hard and removes its data.
pub struct Stack {
    // In the order in which they may go: processes first, their data last.
    apis: Vec<Node>,
    gateways: Vec<Node>,
    notifiers: Vec<Node>,
    links: Links,
    life: Shutdown,
    storage: Storage,
    recipe: Recipe,
    access: AccessTokens,
    clients: Vec<Client>,
    folder: TempDir,
    _database: Option<TestDatabase>,
}

/// What a builder made of it.
pub(crate) struct Parts {
    pub(crate) apis: Vec<Node>,
    pub(crate) gateways: Vec<Node>,
    pub(crate) notifiers: Vec<Node>,
    pub(crate) links: Links,
    pub(crate) life: Shutdown,
    pub(crate) storage: Storage,
    pub(crate) recipe: Recipe,
    pub(crate) folder: TempDir,
    pub(crate) database: Option<TestDatabase>,
}

impl Stack {
    pub(crate) async fn new(parts: Parts) -> Result<Self> {
        let Parts { apis, gateways, notifiers, links, life, storage, recipe, folder, database } = parts;
        let clients = apis.iter().map(|api| Client::new(&api.url)).collect::<Result<_, _>>()?;
        let auth = &recipe.settings.auth;
        let key = Arc::new(SigningKey::from_file(&auth.signing_key_file).await?);
        let keys = KeySet::from_file(&auth.public_keys_file).await?;
        let access = AccessTokens::new(key, keys, &auth.issuer, auth.access_token_life())?;
        Ok(Self {
            apis,
            gateways,
            notifiers,
            links,
            life,
            storage,
            recipe,
            access,
            clients,
            folder,
            _database: database,
        })
    }

    /// How many apis.
    pub fn apis(&self) -> usize {
        self.apis.len()
    }

    /// How many gateways.
    pub fn gateways(&self) -> usize {
        self.gateways.len()
    }

    /// Where an api serves REST, such as `http://127.0.0.1:41234`.
    pub fn api_url(&self, api: usize) -> &str {
        &self.apis[api].url
    }

    /// Where a gateway serves sockets, such as `ws://127.0.0.1:41235`.
    pub fn gateway_url(&self, gateway: usize) -> &str {
        &self.gateways[gateway].url
    }

    /// REST at one of the apis, as nobody.
    pub fn client(&self, api: usize) -> &Client {
        &self.clients[api]
    }

    /// The database, to look behind the curtain.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// A look past the services and proxies into the database.
    ///
    /// # Errors
    /// When it is away.
    pub async fn curtain(&self) -> Result<Curtain> {
        Curtain::open(&self.recipe.settings.database.url).await
    }

    /// The registry, past the proxies.
    ///
    /// # Errors
    /// When it is away.
    pub async fn registry(&self) -> Result<Arc<dyn Registry>> {
        Ok(touchline_registry::connect(&self.recipe.settings.registry).await?)
    }

    /// The address of the database, for what no storage does.
    pub fn database_url(&self) -> &str {
        &self.recipe.settings.database.url
    }

    /// Signs and verifies with the apis' own key.
    pub fn access_tokens(&self) -> &AccessTokens {
        &self.access
    }

    /// How tokens are configured, with the paths of the keys.
    pub fn auth(&self) -> &touchline_auth::Settings {
        &self.recipe.settings.auth
    }

    /// The folder with everything of this stack: database, keys, configuration, logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Signs a person up, over REST.
    ///
    /// # Errors
    /// When the api refuses.
    pub async fn sign_up(&self, handle: &str) -> Result<Person> {
        let login =
            self.client(0).sign_up(handle, PASSWORD, None).await.with_context(|| format!("{handle} signs up"))?;
        Ok(Person::new(login.user.id, handle, &login.access_token, &self.clients))
    }

    /// Signs several people up.
    ///
    /// # Errors
    /// When the api refuses.
    pub async fn sign_up_all<const N: usize>(&self, handles: [&str; N]) -> Result<[Person; N]> {
        let mut people = Vec::with_capacity(N);
        for handle in handles {
            people.push(self.sign_up(handle).await?);
        }
        Ok(people.try_into().expect("one person per handle"))
    }

    /// Many people at once, called `crowd-0`, `crowd-1`, …: written into the database, because hashing that many
    /// passwords takes minutes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn crowd(&self, count: usize) -> Result<Vec<Person>> {
        self.crowd_called("crowd", count).await
    }

    /// As [`crowd`](Self::crowd), called `name-0`, `name-1`, …
    ///
    /// # Errors
    /// When the database fails, or there is such a crowd already.
    pub async fn crowd_called(&self, name: &str, count: usize) -> Result<Vec<Person>> {
        let create = |index: usize| async move {
            let (id, handle) = (UserId::new(), format!("{name}-{index}"));
            let user = NewUser {
                id,
                handle: handle.clone(),
                display_name: handle.clone(),
                password_hash: None,
                external: None,
                created_at_ms: 0,
            };
            match self.storage.create_user(user).await? {
                CreateUser::Created(_) => {}
                other => bail!("{handle}: {other:?}"),
            }
            let token = self.access.issue(id, Uuid::now_v7())?;
            Ok(Person::new(id, &handle, &token, &self.clients))
        };
        stream::iter(0..count).map(create).buffered(CREATING).try_collect().await
    }

    /// Makes a channel of the first person with all of these in it.
    ///
    /// # Errors
    /// When the api refuses.
    pub async fn channel(&self, people: &[&Person]) -> Result<ChannelId> {
        /// security.md L1: an array has at most 1,000 entries.
        const AT_ONCE: usize = 500;
        let (owner, others) = people.split_first().context("a channel has an owner")?;
        let ids: Vec<UserId> = others.iter().map(|person| person.id).collect();
        let (first, rest) = ids.split_at(ids.len().min(AT_ONCE));
        let channel = owner.client().create_channel("a channel", first).await.context("creating a channel")?.id;
        for ids in rest.chunks(AT_ONCE) {
            owner.client().add_members(channel, ids).await.context("adding members")?;
        }
        Ok(channel)
    }

    /// One of the processes, to pause it or to read its log.
    ///
    /// # Errors
    /// When the stack runs in one process.
    pub fn node(&self, name: NodeName) -> Result<&Process> {
        match name {
            NodeName::Api(index) => self.apis[index].process(),
            NodeName::Gateway(index) => self.gateways[index].process(),
            NodeName::Notifier(index) => self.notifiers[index].process(),
        }
    }

    fn node_mut(&mut self, name: NodeName) -> &mut Node {
        match name {
            NodeName::Api(index) => &mut self.apis[index],
            NodeName::Gateway(index) => &mut self.gateways[index],
            NodeName::Notifier(index) => &mut self.notifiers[index],
        }
    }

    /// All of them, the apis first.
    pub fn nodes(&self) -> impl Iterator<Item = NodeName> {
        let gateways = (0..self.gateways.len()).map(NodeName::Gateway);
        let notifiers = (0..self.notifiers.len()).map(NodeName::Notifier);
        (0..self.apis.len()).map(NodeName::Api).chain(gateways).chain(notifiers)
    }

    /// The proxy on a link.
    ///
    /// # Errors
    /// When the builder put none there.
    pub fn link(&self, link: Link) -> Result<&Arc<Proxy>> {
        self.links.get(link)
    }

    /// Kills a process where it stands.
    ///
    /// # Errors
    /// When the stack runs in one process or this one has ended.
    pub async fn kill(&mut self, name: NodeName) -> Result<()> {
        self.node_mut(name).process_mut()?.kill().await
    }

    /// Waits until a process that was told to end, or crashes by itself, is gone.
    ///
    /// # Errors
    /// When it still runs after `patience`.
    pub async fn ended(&mut self, name: NodeName, patience: Duration) -> Result<ExitStatus> {
        self.node_mut(name).process_mut()?.ended(patience).await
    }

    /// Stops a process softly and waits for its end.
    ///
    /// # Errors
    /// When it takes too long or ends badly.
    pub async fn stop_node(&mut self, name: NodeName) -> Result<()> {
        self.node_mut(name).stop().await
    }

    /// What the process finds in its environment the next time it starts.
    pub fn set_environment(&mut self, name: NodeName, variable: &str, value: &str) {
        self.recipe.environment.set(name, variable, value);
    }

    /// Nothing is in the environment of the process the next time it starts.
    pub fn clear_environment(&mut self, name: NodeName) {
        self.recipe.environment.clear(name);
    }

    /// Starts a process that has ended: the same name, a new incarnation. Its address is a new one too, unless a proxy
    /// keeps the old.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_node(&mut self, name: NodeName) -> Result<()> {
        let node = self.recipe.start(name, &mut self.links, self.folder.path()).await?;
        if let NodeName::Api(index) = name {
            self.clients[index] = Client::new(&node.url)?;
        }
        *self.node_mut(name) = node;
        Ok(())
    }

    /// Starts one more gateway and gives its number.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn add_gateway(&mut self) -> Result<usize> {
        let index = self.gateways.len();
        let node = self.recipe.start(NodeName::Gateway(index), &mut self.links, self.folder.path()).await?;
        self.gateways.push(node);
        Ok(index)
    }

    /// Starts one more api and gives its number. People who are there do not know it.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn add_api(&mut self) -> Result<usize> {
        let index = self.apis.len();
        let node = self.recipe.start(NodeName::Api(index), &mut self.links, self.folder.path()).await?;
        self.clients.push(Client::new(&node.url)?);
        self.apis.push(node);
        Ok(index)
    }

    /// The process of an api.
    ///
    /// # Errors
    /// As [`node`](Self::node).
    pub fn api(&self, api: usize) -> Result<&Process> {
        self.node(NodeName::Api(api))
    }

    /// The process of a gateway.
    ///
    /// # Errors
    /// As [`node`](Self::node).
    pub fn gateway(&self, gateway: usize) -> Result<&Process> {
        self.node(NodeName::Gateway(gateway))
    }

    /// Kills an api where it stands.
    ///
    /// # Errors
    /// As [`kill`](Self::kill).
    pub async fn kill_api(&mut self, api: usize) -> Result<()> {
        self.kill(NodeName::Api(api)).await
    }

    /// Kills a gateway where it stands.
    ///
    /// # Errors
    /// As [`kill`](Self::kill).
    pub async fn kill_gateway(&mut self, gateway: usize) -> Result<()> {
        self.kill(NodeName::Gateway(gateway)).await
    }

    /// Stops an api softly and waits for its end.
    ///
    /// # Errors
    /// As [`stop_node`](Self::stop_node).
    pub async fn stop_api(&mut self, api: usize) -> Result<()> {
        self.stop_node(NodeName::Api(api)).await
    }

    /// Stops a gateway softly and waits for its end.
    ///
    /// # Errors
    /// As [`stop_node`](Self::stop_node).
    pub async fn stop_gateway(&mut self, gateway: usize) -> Result<()> {
        self.stop_node(NodeName::Gateway(gateway)).await
    }

    /// Starts an api that has ended.
    ///
    /// # Errors
    /// As [`start_node`](Self::start_node).
    pub async fn start_api(&mut self, api: usize) -> Result<()> {
        self.start_node(NodeName::Api(api)).await
    }

    /// Starts a gateway that has ended.
    ///
    /// # Errors
    /// As [`start_node`](Self::start_node).
    pub async fn start_gateway(&mut self, gateway: usize) -> Result<()> {
        self.start_node(NodeName::Gateway(gateway)).await
    }

    /// Stops everything softly, the apis first.
    ///
    /// # Errors
    /// When something had to be stopped hard, or ended badly.
    pub async fn stop(mut self) -> Result<()> {
        self.life.stop();
        ensure!(self.life.wait(STOP).await, "the stack did not stop in {STOP:?}");
        for node in self.apis.iter_mut().chain(&mut self.gateways).chain(&mut self.notifiers) {
            node.stop().await?;
        }
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}
