//! Our services, all of them, as one test sees them: in one process, or each in its own.

use crate::{Person, Process, TestDatabase, settings};
use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::{path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use touchline_auth::{AccessTokens, KeySet, SigningKey};
use touchline_client::Client;
use touchline_ids::{ChannelId, UserId};
use touchline_mesh::Shutdown;
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
    life: Shutdown,
    storage: Storage,
    settings: settings::Settings,
    access: AccessTokens,
    clients: Vec<Client>,
    folder: TempDir,
    _database: Option<TestDatabase>,
}

/// One api or gateway; in this process when it has no process of its own.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) url: String,
    pub(crate) process: Option<Process>,
}

impl Node {
    pub(crate) async fn start(command: &str, name: &str, folder: &Path) -> Result<Self> {
        let process = Process::start(name, folder, &[command, "--config", &format!("{name}.toml")]).await?;
        let url = process.address(if command == "api" { "http" } else { "ws" })?.to_owned();
        Ok(Self { url, process: Some(process) })
    }

    fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("this stack runs in one process; use Stack::processes")
    }

    async fn kill(&mut self) -> Result<()> {
        self.process()?;
        self.process.as_mut().expect("seen above").kill().await
    }

    async fn stop(&mut self) -> Result<()> {
        let Some(process) = self.process.as_mut().filter(|process| process.pid().is_some()) else { return Ok(()) };
        process.terminate()?;
        let status = process.ended(STOP).await?;
        ensure!(status.success(), "{} ended with {status}", self.url);
        Ok(())
    }
}

impl Stack {
    pub(crate) async fn new(
        apis: Vec<Node>,
        gateways: Vec<Node>,
        life: Shutdown,
        storage: Storage,
        settings: settings::Settings,
        folder: TempDir,
        database: Option<TestDatabase>,
    ) -> Result<Self> {
        let clients = apis.iter().map(|api| Client::new(&api.url)).collect::<Result<_, _>>()?;
        let auth = &settings.auth;
        let key = Arc::new(SigningKey::from_file(&auth.signing_key_file).await?);
        let keys = KeySet::from_file(&auth.public_keys_file).await?;
        let access = AccessTokens::new(key, keys, &auth.issuer, auth.access_token_life())?;
        Ok(Self { apis, gateways, life, storage, settings, access, clients, folder, _database: database })
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

    /// Signs and verifies with the apis' own key.
    pub fn access_tokens(&self) -> &AccessTokens {
        &self.access
    }

    /// How tokens are configured, with the paths of the keys.
    pub fn auth(&self) -> &touchline_auth::Settings {
        &self.settings.auth
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
        let create = |index: usize| async move {
            let (id, handle) = (UserId::new(), format!("crowd-{index}"));
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

    /// The process of an api, to pause it or to read its log.
    ///
    /// # Errors
    /// When the stack runs in one process.
    pub fn api(&self, api: usize) -> Result<&Process> {
        self.apis[api].process()
    }

    /// The process of a gateway, to pause it or to read its log.
    ///
    /// # Errors
    /// When the stack runs in one process.
    pub fn gateway(&self, gateway: usize) -> Result<&Process> {
        self.gateways[gateway].process()
    }

    /// Kills an api where it stands.
    ///
    /// # Errors
    /// When the stack runs in one process or this api has ended.
    pub async fn kill_api(&mut self, api: usize) -> Result<()> {
        self.apis[api].kill().await
    }

    /// Kills a gateway where it stands.
    ///
    /// # Errors
    /// When the stack runs in one process or this gateway has ended.
    pub async fn kill_gateway(&mut self, gateway: usize) -> Result<()> {
        self.gateways[gateway].kill().await
    }

    /// Stops an api softly and waits for its end.
    ///
    /// # Errors
    /// When it takes too long or ends badly.
    pub async fn stop_api(&mut self, api: usize) -> Result<()> {
        self.apis[api].stop().await
    }

    /// Stops a gateway softly and waits for its end.
    ///
    /// # Errors
    /// When it takes too long or ends badly.
    pub async fn stop_gateway(&mut self, gateway: usize) -> Result<()> {
        self.gateways[gateway].stop().await
    }

    /// Starts an api that has ended, at a new address: people keep calling the old one.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_api(&mut self, api: usize) -> Result<()> {
        self.apis[api] = Node::start("api", &api_name(api), self.folder.path()).await?;
        self.clients[api] = Client::new(self.api_url(api))?;
        Ok(())
    }

    /// Starts a gateway that has ended, with the name it had, at a new address.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_gateway(&mut self, gateway: usize) -> Result<()> {
        self.gateways[gateway] = Node::start("gateway", &gateway_name(gateway), self.folder.path()).await?;
        Ok(())
    }

    /// Stops everything softly, the apis first.
    ///
    /// # Errors
    /// When something had to be stopped hard, or ended badly.
    pub async fn stop(mut self) -> Result<()> {
        self.life.stop();
        ensure!(self.life.wait(STOP).await, "the stack did not stop in {STOP:?}");
        for node in self.apis.iter_mut().chain(&mut self.gateways) {
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

pub(crate) fn api_name(index: usize) -> String {
    format!("api-{index}")
}

pub(crate) fn gateway_name(index: usize) -> String {
    format!("gateway-{index}")
}
