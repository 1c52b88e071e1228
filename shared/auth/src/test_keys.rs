//! What the tests of this crate share: keys of outside providers, tokens made by hand, a key set server that counts.

use crate::{KeySet, SigningKey, keys::pem};
use aws_lc_rs::{
    encoding::AsDer as _,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// A folder that goes with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("touchline-auth-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A fresh key of ours with a set that holds it.
pub(crate) fn ours() -> (Arc<SigningKey>, KeySet) {
    let (key, _) = SigningKey::generate().unwrap();
    let set = KeySet::from_jwks(&jwks(&[key.public_jwk()])).unwrap();
    (Arc::new(key), set)
}

pub(crate) fn jwks(keys: &[Value]) -> Value {
    json!({ "keys": keys })
}

pub(crate) fn write_jwks(path: &Path, keys: &[Value]) {
    std::fs::write(path, jwks(keys).to_string()).unwrap();
}

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

/// A key pair of an outside provider.
pub(crate) struct Outside {
    pub(crate) private: EncodingKey,
    pub(crate) public: Value,
    der: Vec<u8>,
}

impl Outside {
    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = pair.as_der().unwrap().as_ref().to_vec();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let n = part(pair.public_key().modulus().big_endian_without_leading_zero());
        let e = part(pair.public_key().exponent().big_endian_without_leading_zero());
        let private = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", &der).as_bytes()).unwrap();
        Self { private, public: json!({"kty": "RSA", "kid": kid, "use": "sig", "n": n, "e": e}), der }
    }

    pub(crate) fn ec(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
        let point = pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        let public = json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y});
        Self { private: EncodingKey::from_ec_der(&der), public, der }
    }

    pub(crate) fn pem(&self) -> String {
        pem("PRIVATE KEY", &self.der)
    }
}

/// A token with any header and any claims, properly signed as `algorithm`.
pub(crate) fn token(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = unsigned(header, claims);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// The first two parts of a token.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// Serves one document over HTTP and counts how often it was fetched. None answers 500.
pub(crate) struct KeyServer {
    pub(crate) url: String,
    pub(crate) document: Arc<Mutex<Option<String>>>,
    fetched: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl KeyServer {
    pub(crate) async fn start(document: Option<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let document = Arc::new(Mutex::new(document.map(|value| value.to_string())));
        let fetched = Arc::new(AtomicUsize::new(0));
        let (serving, counting) = (Arc::clone(&document), Arc::clone(&fetched));
        #[expect(clippy::disallowed_methods, reason = "a test's server, ended by its owner's drop")]
        let task = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                counting.fetch_add(1, Ordering::SeqCst);
                let body = serving.lock().unwrap().clone();
                let status = if body.is_some() { "200 OK" } else { "500 Broken" };
                let body = body.unwrap_or_default();
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, document, fetched, task }
    }

    pub(crate) fn serve(&self, document: Option<String>) {
        *self.document.lock().unwrap() = document;
    }

    pub(crate) fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
