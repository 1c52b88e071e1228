//! The section `[auth]` of the configuration.

use crate::KeySource;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, path::PathBuf, time::Duration};

/// How tokens are signed and verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The api's private key: an Ed25519 key in PKCS#8 PEM form. Gateways do not need it and should not have it.
    pub signing_key_file: PathBuf,
    /// The public keys that api and gateway verify by: a JWKS file.
    pub public_keys_file: PathBuf,
    /// The `iss` of our own access tokens.
    pub issuer: String,
    /// How long an access token lives (seconds, 10 to 86,400).
    pub access_token_s: u64,
    /// How long a refresh token lives when it is not used (days, 1 to 365).
    pub refresh_token_days: u64,
    /// Whose tokens are accepted besides our own.
    pub identity_providers: Vec<IdentityProvider>,
}

/// One outside identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityProvider {
    /// Its `iss`, character by character.
    pub issuer: String,
    /// The `aud` its tokens for Touchline carry.
    pub audience: String,
    /// Its public keys as a file; this or `jwks_url`.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// Its public keys as an https URL; this or `jwks_file`.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// What it signs with; all of one family: RS256 RS384 RS512 PS256 PS384 PS512, or ES256 ES384, or EdDSA.
    #[serde(default = "rs256")]
    pub algorithms: Vec<String>,
}

fn rs256() -> Vec<String> {
    vec!["RS256".to_owned()]
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            signing_key_file: PathBuf::new(),
            public_keys_file: PathBuf::new(),
            issuer: "touchline".to_owned(),
            access_token_s: 900,
            refresh_token_days: 30,
            identity_providers: Vec::new(),
        }
    }
}

impl Settings {
    /// How long an access token lives.
    pub fn access_token_life(&self) -> Duration {
        Duration::from_secs(self.access_token_s)
    }

    /// How long a refresh token lives.
    pub fn refresh_token_life(&self) -> Duration {
        Duration::from_secs(self.refresh_token_days * 24 * 3600)
    }

    /// Everything wrong with the values, as (path below `auth`, what). `signing_key_file` may be empty here; see
    /// [`signing_problems`](Self::signing_problems).
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut check = |good: bool, path: &str, what: &str| {
            if !good {
                problems.push((path.to_owned(), what.to_owned()));
            }
        };
        let named = !self.public_keys_file.as_os_str().is_empty();
        check(named, "public_keys_file", "must name the JWKS file with the public keys");
        check(!self.issuer.is_empty(), "issuer", "must not be empty");
        check((10..=86_400).contains(&self.access_token_s), "access_token_s", "must be 10 to 86400 seconds");
        check((1..=365).contains(&self.refresh_token_days), "refresh_token_days", "must be 1 to 365 days");
        let mut issuers = HashSet::from([&self.issuer]);
        for (n, provider) in self.identity_providers.iter().enumerate() {
            let path = |field: &str| format!("identity_providers[{n}].{field}");
            check((1..=255).contains(&provider.issuer.len()), &path("issuer"), "must be 1 to 255 bytes");
            let fresh = issuers.insert(&provider.issuer);
            check(fresh, &path("issuer"), "must differ from every other provider's and from auth.issuer");
            check(!provider.audience.is_empty(), &path("audience"), "must not be empty");
            if let Err(what) = provider.source() {
                check(false, &path("jwks_url"), &what);
            }
            if let Err(what) = provider.allowed() {
                check(false, &path("algorithms"), &what);
            }
        }
        problems
    }

    /// What a process that signs (the api) lacks beyond [`problems`](Self::problems).
    pub fn signing_problems(&self) -> Vec<(String, String)> {
        if self.signing_key_file.as_os_str().is_empty() {
            vec![("signing_key_file".to_owned(), "must name the file with the private key".to_owned())]
        } else {
            Vec::new()
        }
    }
}

impl IdentityProvider {
    /// Where its keys are, or why that cannot be.
    pub(crate) fn source(&self) -> Result<KeySource, String> {
        match (&self.jwks_file, &self.jwks_url) {
            (Some(file), None) => Ok(KeySource::File(file.clone())),
            (None, Some(url)) => match reqwest::Url::parse(url) {
                Ok(parsed) if trusted(&parsed) => Ok(KeySource::Url(url.clone())),
                Ok(_) => Err("must be https (plain http only to a loopback address), without user or password".into()),
                Err(error) => Err(format!("is not a URL: {error}")),
            },
            _ => Err("exactly one of jwks_file and jwks_url must be given".to_owned()),
        }
    }

    /// The algorithms, or why they cannot be.
    pub(crate) fn allowed(&self) -> Result<Vec<Algorithm>, String> {
        let mut allowed = Vec::new();
        for name in &self.algorithms {
            match name.parse::<Algorithm>() {
                Ok(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) | Err(_) => {
                    return Err(format!("{name:?} is none of RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA"));
                }
                Ok(algorithm) => allowed.push(algorithm),
            }
        }
        let Some(first) = allowed.first() else { return Err("must not be empty".to_owned()) };
        if allowed.iter().any(|algorithm| algorithm.family() != first.family()) {
            return Err("must all be of one family: RS and PS, or ES, or EdDSA".to_owned());
        }
        Ok(allowed)
    }
}

/// Whoever can change the answer on its way can be anybody: so encrypted, or not leaving the machine.
fn trusted(url: &reqwest::Url) -> bool {
    let loopback = || {
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    let anonymous = url.username().is_empty() && url.password().is_none();
    anonymous && url.has_host() && (url.scheme() == "https" || url.scheme() == "http" && loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> IdentityProvider {
        IdentityProvider {
            issuer: "https://id.example".to_owned(),
            audience: "touchline".to_owned(),
            jwks_file: None,
            jwks_url: Some("https://id.example/keys".to_owned()),
            algorithms: rs256(),
        }
    }

    fn settings(providers: Vec<IdentityProvider>) -> Settings {
        Settings { public_keys_file: "keys.json".into(), identity_providers: providers, ..Settings::default() }
    }

    #[test]
    fn good_settings_have_no_problems() {
        let other = IdentityProvider {
            issuer: "https://other.example".to_owned(),
            jwks_url: None,
            jwks_file: Some("other.json".into()),
            algorithms: vec!["ES256".to_owned(), "ES384".to_owned()],
            ..provider()
        };
        assert_eq!(settings(vec![provider(), other]).problems(), []);
        assert_eq!(settings(vec![]).signing_problems().len(), 1);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let bad = Settings {
            signing_key_file: PathBuf::new(),
            public_keys_file: PathBuf::new(),
            issuer: String::new(),
            access_token_s: 1,
            refresh_token_days: 0,
            identity_providers: vec![
                IdentityProvider { audience: String::new(), jwks_url: None, ..provider() },
                IdentityProvider { algorithms: vec![], ..provider() },
            ],
        };
        let paths: Vec<_> = bad.problems().into_iter().map(|(path, _)| path).collect();
        assert_eq!(
            paths,
            [
                "public_keys_file",
                "issuer",
                "access_token_s",
                "refresh_token_days",
                "identity_providers[0].audience",
                "identity_providers[0].jwks_url",
                "identity_providers[1].issuer",
                "identity_providers[1].algorithms",
            ]
        );
    }

    #[test]
    fn secrets_and_mixed_families_are_no_algorithms() {
        for bad in
            [&["HS256"][..], &["none"], &["RS256", "ES256"], &["RS256", "HS256"], &["EdDSA", "ES256"], &["rs256"]]
        {
            let algorithms = bad.iter().map(|&name| name.to_owned()).collect();
            assert!(IdentityProvider { algorithms, ..provider() }.allowed().is_err(), "{bad:?}");
        }
        let rsa = ["RS256", "PS512"].map(str::to_owned).to_vec();
        assert_eq!(IdentityProvider { algorithms: rsa, ..provider() }.allowed().unwrap().len(), 2);
    }

    #[test]
    fn keys_travel_encrypted_or_not_at_all() {
        let source = |url: &str| IdentityProvider { jwks_url: Some(url.to_owned()), ..provider() }.source();
        for good in ["https://id.example/k", "http://127.0.0.1:9/k", "http://localhost/k", "http://[::1]:8/k"] {
            assert!(source(good).is_ok(), "{good}");
        }
        for bad in
            ["http://id.example/k", "http://127.0.0.1.evil/k", "file:///etc/keys", "https://u:p@id.example/", "keys"]
        {
            assert!(source(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(serde_json::from_str::<Settings>(r#"{"isuer": "x"}"#).is_err());
        assert!(
            serde_json::from_str::<IdentityProvider>(r#"{"issuer": "x", "audience": "y", "secret": "z"}"#).is_err()
        );
        let text = serde_json::to_string(&settings(vec![provider()])).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings(vec![provider()]));
    }
}
