//! Who `send` and `tail` are at the server.

use crate::exit::Refused;
use anyhow::Context as _;
use std::sync::Arc;
use touchline_client::{Client, ClientError, Renewal, User};

/// The password of users that are signed up on the way, on this machine only. It protects nothing and is meant to.
const DEVELOPMENT_PASSWORD: &str = "touchline-development";

/// Where the server is and who one is there.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// The server
    #[arg(long, value_name = "URL", env = "TOUCHLINE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// As which user; at a server on this machine, an unknown one is signed up
    #[arg(long = "as", value_name = "HANDLE", required_unless_present = "token")]
    handle: Option<String>,
    /// Their password; not needed for users that were signed up on the way
    #[arg(long, env = "TOUCHLINE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// An access token, in place of --as and --password
    #[arg(long, conflicts_with = "handle", env = "TOUCHLINE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// A user who is logged in.
pub(crate) struct Account {
    /// Who.
    pub user: User,
    client: Client,
    /// What brings a new access token when this one is over.
    login: Option<Login>,
}

struct Login {
    nobody: Client,
    handle: String,
    password: String,
    refresh_token: String,
}

impl Account {
    /// Logs in, or signs up.
    pub(crate) async fn open(arguments: Arguments) -> anyhow::Result<Self> {
        let nobody = Client::new(&arguments.url).map_err(|error| Refused::Usage(error.to_string()))?;
        if let Some(token) = &arguments.token {
            let client = nobody.as_user(token);
            let user = client.me().await.with_context(|| arguments.url.clone())?;
            return Ok(Self { user, client, login: None });
        }
        let handle = arguments.handle.unwrap_or_default();
        let known = match (&arguments.password, nobody.is_on_this_machine()) {
            (Some(password), _) => nobody.log_in(&handle, password).await,
            (None, true) => log_in_or_sign_up(&nobody, &handle).await,
            (None, false) => {
                let what = "a password is needed: --password, TOUCHLINE_PASSWORD, or a --token";
                return Err(Refused::Usage(what.to_owned()).into());
            }
        };
        let login = known.map_err(|error| {
            let other_password = arguments.password.is_none() && error.code() == Some("wrong_credentials");
            let hint = if other_password { " (not a user made by --as: give the --password)" } else { "" };
            anyhow::Error::new(error).context(format!("{} as {handle}{hint}", arguments.url))
        })?;
        let password = arguments.password.unwrap_or_else(|| DEVELOPMENT_PASSWORD.to_owned());
        Ok(Self {
            client: nobody.as_user(&login.access_token),
            user: login.user,
            login: Some(Login { nobody, handle, password, refresh_token: login.refresh_token }),
        })
    }

    /// REST as this user, with the access token of this moment.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// How a device gets new access tokens: by logging in, for the refresh token is used here.
    pub(crate) fn renewal(&self) -> Option<Renewal> {
        let Login { nobody, handle, password, .. } = self.login.as_ref()?;
        let login = Arc::new((nobody.clone(), handle.clone(), password.clone()));
        Some(Renewal::new(move || {
            let login = Arc::clone(&login);
            async move {
                let (nobody, handle, password) = &*login;
                Ok(nobody.log_in(handle, password).await?.access_token)
            }
        }))
    }

    /// Makes a call; when the access token is over, once more with a new one.
    pub(crate) async fn call<T>(
        &mut self,
        call: impl AsyncFn(&Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        match call(&self.client).await {
            Err(error) if error.code() == Some("unauthenticated") && self.renew().await? => call(&self.client).await,
            result => result,
        }
    }

    /// Gets a new access token. False when there is nothing to get one with.
    pub(crate) async fn renew(&mut self) -> Result<bool, ClientError> {
        let Some(login) = &mut self.login else { return Ok(false) };
        let renewed = match login.nobody.refresh(&login.refresh_token).await {
            Err(error) if error.status() == Some(401) => login.nobody.log_in(&login.handle, &login.password).await?,
            result => result?,
        };
        login.refresh_token = renewed.refresh_token;
        self.client = login.nobody.as_user(&renewed.access_token);
        Ok(true)
    }
}

async fn log_in_or_sign_up(nobody: &Client, handle: &str) -> Result<touchline_client::Login, ClientError> {
    let refused = match nobody.log_in(handle, DEVELOPMENT_PASSWORD).await {
        Err(error) if error.code() == Some("wrong_credentials") => error,
        result => return result,
    };
    // Unknown, or known with another password: signing up tells which.
    match nobody.sign_up(handle, DEVELOPMENT_PASSWORD, None).await {
        Err(error) if error.code() == Some("handle_taken") => {
            // Perhaps it was signed up in this very moment, by the command in the other terminal.
            nobody.log_in(handle, DEVELOPMENT_PASSWORD).await.map_err(|_| refused)
        }
        result => result,
    }
}
