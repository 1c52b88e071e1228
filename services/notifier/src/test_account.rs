//! A service account with a key of its own, for tests.

use crate::service_account::ServiceAccount;
use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::KeySize,
    signature::{KeyPair as _, RsaKeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use std::{io::Write as _, sync::OnceLock};

/// A key pair.
#[derive(Clone)]
pub(crate) struct TestAccount {
    pem: String,
    /// The public key, as JWKs write it.
    pub(crate) n: String,
    pub(crate) e: String,
}

impl TestAccount {
    /// The same one for all tests of a process: making it takes long.
    pub(crate) fn new() -> Self {
        static ACCOUNT: OnceLock<TestAccount> = OnceLock::new();
        let make = || {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
            let pem =
                format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let n = part(pair.public_key().modulus().big_endian_without_leading_zero());
            let e = part(pair.public_key().exponent().big_endian_without_leading_zero());
            Self { pem, n, e }
        };
        ACCOUNT.get_or_init(make).clone()
    }

    /// A file with this key, for a token endpoint there. Gone when dropped.
    pub(crate) fn file(&self, token_uri: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(key_file(&self.pem, token_uri).to_string().as_bytes()).unwrap();
        file
    }

    /// The account in it.
    pub(crate) fn account(&self, token_uri: &str) -> ServiceAccount {
        ServiceAccount::read(self.file(token_uri).path(), true).unwrap()
    }
}

/// As Google writes it.
pub(crate) fn key_file(pem: &str, token_uri: &str) -> Value {
    json!({
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "key-1",
        "private_key": pem,
        "client_email": "notifier@p.iam.gserviceaccount.com",
        "client_id": "1",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": token_uri,
    })
}
