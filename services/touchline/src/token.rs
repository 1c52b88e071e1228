//! `touchline token`: tokens and keys, by hand.

use crate::{dev::DataDir, exit::Refused, life, parts, settings::Source};
use anyhow::Context as _;
use clap::Subcommand;
use std::{io::Write as _, path::PathBuf, sync::Arc};
use touchline_auth::{AccessTokens, KeySet, SigningKey};
use touchline_storage::{Storage, User};
use uuid::Uuid;

const EXAMPLES: &str = "\
Examples:
  touchline token alice --data-dir touchline-data    an access token for a user of `touchline dev`
  touchline token alice --config touchline.toml      the same, with the api's database and signing key
  touchline token new-key --dir keys                 makes keys/signing-key.pem and keys/public-keys.json

  curl -H \"Authorization: Bearer $(touchline token alice --data-dir touchline-data)\" http://127.0.0.1:8080/v1/me";

/// `touchline token …`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// For whom: a handle or a user id
    #[arg(required = true)]
    user: Option<String>,
    #[command(flatten)]
    source: Source,
    /// The data directory of a `touchline dev`, in place of a configuration
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a signing key (mode 0600) and the public key set that goes with it; what is there stays
    NewKey {
        /// Where
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match (&arguments.action, &arguments.user) {
        (Some(Action::NewKey { dir }), _) => {
            let files = DataDir(dir);
            let (private, public) = (files.signing_key(), files.public_keys());
            touchline_auth::create_key_files(&private, &public)?;
            let mut stdout = std::io::stdout();
            writeln!(
                stdout,
                "[auth]\nsigning_key_file = {:?}\npublic_keys_file = {:?}",
                absolute(private)?,
                absolute(public)?
            )?;
            Ok(())
        }
        (None, Some(user)) => mint(arguments, user),
        (None, None) => Err(Refused::Usage("for whom?".into()).into()),
    }
}

fn absolute(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).context("the working directory")
}

fn mint(arguments: &Arguments, user: &str) -> anyhow::Result<()> {
    let flags = arguments.data_dir.as_ref().map(|dir| DataDir(dir).flags()).unwrap_or_default();
    let loaded = arguments.source.load(&flags, |config| {
        let mut problems = config.database_problems();
        problems.extend(config.auth_problems(true));
        problems
    })?;
    let config = loaded.config;
    life::run(async {
        let storage = parts::storage(&config).await?;
        let found = find(&storage, user).await?;
        storage.close().await?;
        let found = found.with_context(|| format!("there is no user {user}"))?;
        let auth = &config.auth;
        let key = Arc::new(SigningKey::from_file(&auth.signing_key_file).await?);
        let keys = KeySet::from_file(&auth.public_keys_file).await?;
        let tokens = AccessTokens::new(key, keys, &auth.issuer, auth.access_token_life())?;
        // A log-in of its own, without a refresh token: it ends with this token.
        let token = tokens.issue(found.id, Uuid::now_v7())?;
        writeln!(std::io::stdout(), "{token}")?;
        Ok(())
    })
}

async fn find(storage: &Storage, user: &str) -> anyhow::Result<Option<User>> {
    Ok(match user.parse() {
        Ok(id) => storage.find_user(id).await?,
        Err(_) => storage.find_user_by_handle(user).await?,
    })
}
