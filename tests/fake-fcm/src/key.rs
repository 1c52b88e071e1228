//! The service account that the fake knows: its key pair, its JSON file, and whether an assertion is its.

use anyhow::{Context as _, Result};
use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use serde::Deserialize;
use serde_json::{Value, json};

/// A service account with a key made at the start.
pub(crate) struct ServiceKey {
    project: String,
    email: String,
    key_id: String,
    private_pem: String,
    public: DecodingKey,
}

/// What an assertion claims. Everything is optional here, for what is missing has its own answer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: Option<String>,
    pub(crate) scope: Option<String>,
    pub(crate) aud: Option<String>,
    pub(crate) sub: Option<String>,
    pub(crate) iat: Option<f64>,
    pub(crate) exp: Option<f64>,
}

/// What is wrong with an assertion before its claims are looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Forged {
    /// It is no JWT, or its claims are no JSON.
    Malformed,
    /// Another algorithm, another key, or another text than was signed.
    Signature,
}

impl ServiceKey {
    /// Makes an RSA key of 2,048 bits; takes a moment.
    pub(crate) fn generate(project: &str) -> Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).context("no RSA key")?;
        let der: Pkcs8V1Der<'_> = pair.as_der().context("the key has no PKCS#8 form")?;
        let private_pem = pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref()));
        Ok(Self {
            project: project.to_owned(),
            email: format!("push@{project}.iam.gserviceaccount.com"),
            key_id: format!("{:040x}", rand::random::<u128>()),
            private_pem,
            public: DecodingKey::from_rsa_der(pair.public_key().as_ref()),
        })
    }

    pub(crate) fn email(&self) -> &str {
        &self.email
    }

    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// The file that Google hands out for a service account, with its tokens to be had at `token_uri`.
    pub(crate) fn file(&self, token_uri: &str) -> Value {
        json!({
            "type": "service_account",
            "project_id": self.project,
            "private_key_id": self.key_id,
            "private_key": self.private_pem,
            "client_email": self.email,
            "client_id": "100000000000000000001",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": token_uri,
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "client_x509_cert_url": format!("https://www.googleapis.com/robot/v1/metadata/x509/{}", self.email),
        })
    }

    /// The claims of an assertion that this key signed.
    pub(crate) fn verify(&self, assertion: &str) -> Result<Claims, Forged> {
        let header = jsonwebtoken::decode_header(assertion).map_err(|_| Forged::Malformed)?;
        if header.kid.as_deref().is_some_and(|kid| kid != self.key_id) {
            return Err(Forged::Signature);
        }
        let mut validation = Validation::new(Algorithm::RS256);
        // The claims have answers of their own; here it is about the signature.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        match jsonwebtoken::decode::<Claims>(assertion, &self.public, &validation) {
            Ok(token) => Ok(token.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Forged::Signature,
                _ => Forged::Malformed,
            }),
        }
    }
}

impl std::fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceKey").field("email", &self.email).finish_non_exhaustive()
    }
}
