//! The users and channels of a load.

use super::{Arguments, say};
use crate::{
    dev::DataDir,
    exit::Refused,
    parts,
    settings::{Config, Source},
};
use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;
use touchline_auth::{AccessTokens, KeySet, SigningKey};
use touchline_client::{Client, ClientError, Renewal};
use touchline_ids::{ChannelId, UserId};
use touchline_load::{Channel, User};
use touchline_storage::{CreateUser, NewUser, Storage};
use uuid::Uuid;

/// Made at the same time.
const AT_A_TIME: usize = 8;
/// The api takes at most 1,000 ids at once.
const IDS: usize = 500;
/// Users who are in no channel; nothing may reach them.
const CANARIES: usize = 1;
/// The password of users that are signed up. It protects nothing and is meant to.
const PASSWORD: &str = "touchline-load";
/// A limit asks for patience this often before we give up.
const PATIENCE: usize = 60;

/// Who and where.
pub(super) struct Crowd {
    pub(super) users: Vec<User>,
    pub(super) canaries: Vec<User>,
    pub(super) channels: Vec<Channel>,
}

impl Crowd {
    /// Makes them.
    pub(super) async fn make(arguments: &Arguments) -> anyhow::Result<Self> {
        let count = arguments.users + CANARIES;
        let clients = arguments.urls.iter().map(|url| Client::new(url)).collect::<Result<Vec<_>, _>>();
        let clients = clients.map_err(|error| Refused::Usage(error.to_string()))?;
        let maker = Maker::new(arguments, clients[0].clone()).await?;
        say(&format!("making {count} users, {}", maker.how()));
        // One name for the run, so that what it leaves behind is known by it.
        let run = Uuid::now_v7().simple().to_string()[..12].to_owned();
        let users = (0..count).map(|at| maker.user(format!("load-{run}-{at}")));
        let mut users: Vec<User> = stream::iter(users).buffered(AT_A_TIME).try_collect().await?;
        let canaries = users.split_off(arguments.users);
        say(&format!("making {} channels of {} members", arguments.channels, arguments.members()));
        let channels = (0..arguments.channels).map(|at| make_channel(arguments, &clients, &users, at));
        let channels = stream::iter(channels).buffered(AT_A_TIME).try_collect().await?;
        if let Maker::Mint { storage, .. } = maker {
            storage.close().await?;
        }
        Ok(Self { users, canaries, channels })
    }
}

/// Where users come from.
enum Maker {
    /// Over REST, one after the other, as fast as the server's limits allow.
    SignUp { nobody: Client, warned: AtomicBool },
    /// Into the database, with tokens signed here.
    Mint { storage: Storage, tokens: AccessTokens },
}

impl Maker {
    async fn new(arguments: &Arguments, nobody: Client) -> anyhow::Result<Self> {
        if arguments.data_dir.is_none() && arguments.source == Source::default() {
            return Ok(Self::SignUp { nobody, warned: AtomicBool::new(false) });
        }
        let flags = arguments.data_dir.as_ref().map(|dir| DataDir(dir).flags()).unwrap_or_default();
        let rules = |config: &Config| {
            let mut problems = config.database_problems();
            problems.extend(config.auth_problems(true));
            problems
        };
        let config = arguments.source.load(&flags, rules)?.config;
        let auth = &config.auth;
        let key = Arc::new(SigningKey::from_file(&auth.signing_key_file).await?);
        let keys = KeySet::from_file(&auth.public_keys_file).await?;
        let tokens = AccessTokens::new(key, keys, &auth.issuer, auth.access_token_life())?;
        Ok(Self::Mint { storage: parts::storage(&config).await?, tokens })
    }

    fn how(&self) -> &'static str {
        match self {
            Self::SignUp { .. } => "signing them up",
            Self::Mint { .. } => "in the database",
        }
    }

    async fn user(&self, handle: String) -> anyhow::Result<User> {
        match self {
            Self::SignUp { nobody, warned } => sign_up(nobody, &handle, warned).await,
            Self::Mint { storage, tokens } => mint(storage, tokens, handle).await,
        }
    }
}

async fn sign_up(nobody: &Client, handle: &str, warned: &AtomicBool) -> anyhow::Result<User> {
    let advice = |wait: Duration| {
        if !warned.swap(true, Ordering::Relaxed) {
            say(&format!(
                "the server limits how fast one address may sign users up (api.limits.sign_ups_per_address); next try \
                 in {} s. Faster: --data-dir or --config, which write the users into the database",
                wait.as_secs()
            ));
        }
    };
    let login = patiently(advice, async || nobody.sign_up(handle, PASSWORD, None).await).await;
    let login = login.with_context(|| format!("signing up {handle}"))?;
    let renewal = Some(Renewal::by_refresh(nobody, &login));
    Ok(User { id: login.user.id, access_token: login.access_token, renewal })
}

async fn mint(storage: &Storage, tokens: &AccessTokens, handle: String) -> anyhow::Result<User> {
    let id = UserId::new();
    let display_name = handle.clone();
    let new = NewUser { id, handle, display_name, password_hash: None, external: None, created_at_ms: 0 };
    match storage.create_user(new).await? {
        CreateUser::Created(_) => {}
        other => bail!("a user could not be made: {other:?}"),
    }
    let access_token = tokens.issue(id, Uuid::now_v7())?;
    let tokens = tokens.clone();
    let renewal = Renewal::new(move || {
        let token = tokens.issue(id, Uuid::now_v7());
        // It signed a token before.
        async move { Ok(token.expect("the key is still the same")) }
    });
    Ok(User { id, access_token, renewal: Some(renewal) })
}

/// The channel number `at`: its members follow each other in the list of users, the first one owns it.
async fn make_channel(arguments: &Arguments, clients: &[Client], users: &[User], at: usize) -> anyhow::Result<Channel> {
    let count = arguments.members();
    let members: Vec<usize> = (0..count).map(|member| (at * count + member) % users.len()).collect();
    let owner = clients[at % clients.len()].as_user(&users[members[0]].access_token);
    let ids: Vec<UserId> = members[1..].iter().map(|member| users[*member].id).collect();
    let (first, rest) = ids.split_at(ids.len().min(IDS));
    let name = format!("load {at}");
    let made = patiently(|_| (), async || owner.create_channel(&name, first).await).await;
    let id: ChannelId = made.context("making a channel")?.id;
    for some in rest.chunks(IDS) {
        patiently(|_| (), async || owner.add_members(id, some).await).await.context("adding members")?;
    }
    Ok(Channel { id, members })
}

/// Repeats a call as long as the server says "later", and waits as long as it says.
async fn patiently<T>(
    mut advice: impl FnMut(Duration),
    mut call: impl AsyncFnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    for _ in 0..PATIENCE {
        match call().await {
            Err(error) if error.refusal().is_some_and(|refusal| refusal.is_temporary()) => {
                let wait = error.refusal().and_then(|refusal| refusal.retry_after).unwrap_or(Duration::from_secs(1));
                advice(wait);
                sleep(wait).await;
            }
            answer => return answer,
        }
    }
    call().await
}
