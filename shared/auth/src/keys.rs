//! The private half: one Ed25519 key that signs our own tokens and tickets.

use crate::{AuthError, jwk};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde_json::{Value, json};
use std::{fmt, path::Path};

/// An Ed25519 private key with its id.
pub struct SigningKey {
    key: EncodingKey,
    kid: String,
    /// The public key, base64url.
    x: String,
}

impl SigningKey {
    /// Draws a new key; the text is its PKCS#8 PEM form, to be kept in a file that only we can read.
    ///
    /// # Errors
    /// [`AuthError::Random`] when the system has no randomness.
    pub fn generate() -> Result<(Self, String), AuthError> {
        // Version 1, which `openssl pkey` reads as well.
        let pkcs8 = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()).map_err(AuthError::Random)?;
        let pem = pem("PRIVATE KEY", pkcs8.as_ref());
        Ok((Self::from_pem(&pem)?, pem))
    }

    /// Reads a PKCS#8 PEM text, such as `openssl genpkey -algorithm ed25519` writes.
    ///
    /// # Errors
    /// [`AuthError::PrivateKey`] when it is anything else.
    pub fn from_pem(pem: &str) -> Result<Self, AuthError> {
        let key = EncodingKey::from_ed_pem(pem.as_bytes()).map_err(AuthError::PrivateKey)?;
        let pair = Ed25519KeyPair::from_pkcs8(key.as_bytes())
            .map_err(|_| AuthError::PrivateKey(jsonwebtoken::errors::ErrorKind::InvalidEddsaKey.into()))?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        Ok(Self { kid: jwk::ed25519_thumbprint(&x), x, key })
    }

    /// Reads the PEM file.
    ///
    /// # Errors
    /// [`AuthError::File`] or [`AuthError::PrivateKey`].
    pub async fn from_file(path: &Path) -> Result<Self, AuthError> {
        let pem = tokio::fs::read_to_string(path)
            .await
            .map_err(|source| AuthError::File { path: path.to_owned(), source })?;
        Self::from_pem(&pem)
    }

    /// The key's id: the RFC 7638 thumbprint of its public half, so that two keys never share one.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as a JWK, an entry of a JWKS file's `keys`.
    pub fn public_jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid, "x": self.x})
    }

    /// Signs `claims` as a JWT of type `typ`.
    pub(crate) fn sign<C: Serialize>(&self, typ: &str, claims: &C) -> Result<String, AuthError> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.key).map_err(AuthError::Sign)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// RFC 7468 text of a DER document.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_pem_form() {
        let (key, pem) = SigningKey::generate().unwrap();
        let again = SigningKey::from_pem(&pem).unwrap();
        assert_eq!(key.kid(), again.kid());
        assert_eq!(key.public_jwk(), again.public_jwk());
        assert_ne!(key.kid(), SigningKey::generate().unwrap().0.kid());
    }

    #[test]
    fn other_keys_and_other_texts_are_refused() {
        let (_, pem) = SigningKey::generate().unwrap();
        let cut = pem.replace("-----END", "AAAA\n-----END");
        let public = pem.replace("PRIVATE", "PUBLIC");
        for bad in ["", "hello", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", &cut, &public] {
            let error = SigningKey::from_pem(bad).unwrap_err();
            assert!(matches!(error, AuthError::PrivateKey(_)), "{bad}: {error}");
        }
        let rsa = crate::test_keys::Outside::rsa("k").pem();
        assert!(SigningKey::from_pem(&rsa).is_err());
    }

    #[test]
    fn a_key_never_shows_itself() {
        let (key, pem) = SigningKey::generate().unwrap();
        let secret = pem.lines().nth(1).unwrap();
        assert!(!format!("{key:?}").contains(secret));
        assert!(key.public_jwk().get("d").is_none());
    }
}
