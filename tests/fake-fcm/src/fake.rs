//! The fake as a value: start it, point the sender at it, change it, ask it.

use crate::{
    access_tokens::AccessTokens,
    behaviours::Behaviour,
    check::{Report, Rules, check},
    control::{Change, Control, Mode, Script, Settings},
    key::ServiceKey,
    listen,
    log::Log,
    tls,
    token_endpoint::{TokenCall, TokenCalls},
    world::{Clock, Face, World},
};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicU32},
};
use tokio::net::TcpListener;
use touchline_mesh::Shutdown;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How a fake begins.
#[derive(Debug, Clone)]
pub struct Options {
    /// FCM and the token endpoint over TLS: h2 or http/1.1, by ALPN. Port 0: any.
    pub https: SocketAddr,
    /// The same without TLS: HTTP/2 with prior knowledge, or HTTP/1.1.
    pub http: SocketAddr,
    /// Control and log, over HTTP/1.1.
    pub control: SocketAddr,
    /// The service account's project.
    pub project: String,
    /// Everything that can be changed later.
    pub settings: Settings,
    /// Requests the log keeps.
    pub entries: usize,
    /// Bodies it keeps.
    pub bodies: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            https: ANY,
            http: ANY,
            control: ANY,
            project: "touchline-test".to_owned(),
            settings: Settings::default(),
            entries: 2_000_000,
            bodies: 1_024,
        }
    }
}

/// A running fake. Ends when it is dropped, at once.
#[derive(Debug)]
pub struct FakeFcm {
    world: Arc<World>,
    ca_pem: String,
    https: SocketAddr,
    http: SocketAddr,
    control: SocketAddr,
    life: Shutdown,
}

/// Files of [`FakeFcm::write_keys`].
#[derive(Debug, Clone)]
pub struct KeyFiles {
    /// The service account, with its tokens to be had over TLS.
    pub key: PathBuf,
    /// The same without TLS.
    pub key_http: PathBuf,
    /// The authority of the fake's certificate, PEM.
    pub ca: PathBuf,
}

impl FakeFcm {
    /// Listens, with a new key and a new certificate.
    ///
    /// # Errors
    /// When an address is taken.
    pub async fn start(options: Options) -> Result<Self> {
        let bind = async |address: SocketAddr| TcpListener::bind(address).await.with_context(|| format!("{address}"));
        let (https, http) = (bind(options.https).await?, bind(options.http).await?);
        let control = bind(options.control).await?;
        let (acceptor, ca_pem) = tls::acceptor()?;
        let clock = Clock::start(options.settings.clock_ahead_s);
        let life = Shutdown::new();
        let (https_address, http_address) = (https.local_addr()?, http.local_addr()?);
        let control_address = control.local_addr()?;
        let world = Arc::new(World {
            key: ServiceKey::generate(&options.project)?,
            control: Control::new(options.settings),
            log: Log::new(options.entries, options.bodies),
            clock,
            token_uris: token_uris(https_address, http_address),
            connections: AtomicU32::new(0),
            access_tokens: Mutex::new(AccessTokens::default()),
            token_calls: Mutex::new(TokenCalls::default()),
        });
        let faces = [(https, Face::Google, Some(acceptor)), (http, Face::Google, None), (control, Face::Control, None)];
        for (listener, face, tls) in faces {
            life.spawn_until_stop(listen::serve(listener, Arc::clone(&world), face, tls, life.clone()));
        }
        Ok(Self { world, ca_pem, https: https_address, http: http_address, control: control_address, life })
    }

    /// Where FCM is, over TLS: `https://127.0.0.1:…`.
    pub fn https(&self) -> String {
        format!("https://{}", self.https)
    }

    /// Where FCM is without TLS: `http://127.0.0.1:…`.
    pub fn http(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Where control and log are: `http://127.0.0.1:…`.
    pub fn control(&self) -> String {
        format!("http://{}", self.control)
    }

    /// The authority of its certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The project of its service account.
    pub fn project(&self) -> &str {
        self.world.key.project()
    }

    /// The service account's JSON file, with its tokens to be had at `{base}/token`; `base` is [`Self::https`] or
    /// [`Self::http`].
    pub fn service_account(&self, base: &str) -> String {
        format!("{:#}\n", self.world.key.file(&format!("{base}/token")))
    }

    /// Writes what a sender needs into `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_keys(&self, folder: &Path) -> Result<KeyFiles> {
        let files = KeyFiles {
            key: folder.join("service-account.json"),
            key_http: folder.join("service-account-http.json"),
            ca: folder.join("ca.pem"),
        };
        fs::create_dir_all(folder)?;
        fs::write(&files.key, self.service_account(&self.https()))?;
        fs::write(&files.key_http, self.service_account(&self.http()))?;
        fs::write(&files.ca, self.ca_pem())?;
        Ok(files)
    }

    /// Changes what it does from now on.
    pub fn change(&self, change: Change) {
        self.world.change(change);
    }

    /// Does the same to every message until changed; [`Behaviour::Ok`] ends it.
    pub fn mode(&self, behaviour: Behaviour) {
        let mode = Some(Mode { behaviour, times: None });
        self.change(Change { mode, ..Change::default() });
    }

    /// Answers this token so the next `times`, whatever its text says.
    pub fn script(&self, token: &str, behaviour: Behaviour, times: u64) {
        let scripts = vec![Script { token: token.to_owned(), behaviour, times }];
        self.change(Change { scripts, ..Change::default() });
    }

    /// How things stand.
    pub fn settings(&self) -> Arc<Settings> {
        self.world.control.settings()
    }

    /// Every request to send so far.
    pub fn log(&self) -> &Log {
        &self.world.log
    }

    /// The log, judged.
    pub fn check(&self, rules: &Rules) -> Report {
        self.log().judge(|entries, forgotten| check(entries, forgotten, rules))
    }

    /// The body of a request, if it is among the last ones.
    pub fn body(&self, number: u64) -> Option<Bytes> {
        self.log().body(number)
    }

    /// The last calls of `/token`.
    pub fn token_calls(&self) -> Vec<TokenCall> {
        self.world.token_calls().last.iter().cloned().collect()
    }

    /// Connections so far, TLS or not, to any of its addresses.
    pub fn connections(&self) -> u32 {
        self.world.connections.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for FakeFcm {
    fn drop(&mut self) {
        self.life.stop_now();
    }
}

/// What an assertion may be meant for, besides Google's own address.
fn token_uris(https: SocketAddr, http: SocketAddr) -> Vec<String> {
    let mut uris = Vec::new();
    for (scheme, port) in [("https", https.port()), ("http", http.port())] {
        for host in [https.ip().to_string(), http.ip().to_string(), "localhost".to_owned(), "127.0.0.1".to_owned()] {
            uris.push(format!("{scheme}://{host}:{port}/token"));
        }
    }
    uris
}
