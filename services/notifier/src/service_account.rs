//! A Google service account's key file, and the assertions it signs (RFC 7523).

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What an access token of ours may do.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// Assertions begin in the past, for whose clock is behind ours…
const BACKDATED: Duration = Duration::from_secs(30);
/// …and live as long as Google lets them.
const LIFE: Duration = Duration::from_secs(3_600);
/// Where such a file comes from; the end of most complaints.
const SOURCE: &str = "take a new one: Firebase console, Project settings, Service accounts, Generate new private key";

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file itself.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// Its content. The parser's own message would quote it.
    #[error("is not the JSON of a key file (line {line}); {}", SOURCE)]
    Json {
        /// Where it ends to be.
        line: usize,
    },
    /// A field, or several.
    #[error("{what}; {}", SOURCE)]
    Fields {
        /// All that is wrong.
        what: String,
    },
    /// An assertion cannot be made.
    #[error("its private_key does not sign; {}", SOURCE)]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// As Google writes it; what is not listed is not needed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct KeyFile {
    r#type: String,
    project_id: String,
    private_key_id: String,
    private_key: String,
    client_email: String,
    token_uri: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

/// An account that may ask for access tokens.
pub struct ServiceAccount {
    project: String,
    key_id: String,
    key: EncodingKey,
    email: String,
    token_url: Url,
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount")
            .field("email", &self.email)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl ServiceAccount {
    /// Reads a key file and tries the key. Token endpoints are https; in clear only if `in_clear` says so, or on this
    /// machine.
    ///
    /// # Errors
    /// What is wrong with the file, all fields at once, and how to mend it.
    pub fn read(path: &Path, in_clear: bool) -> Result<Self, KeyFileError> {
        Self::parse(&fs::read(path).map_err(KeyFileError::Read)?, in_clear)
    }

    fn parse(json: &[u8], in_clear: bool) -> Result<Self, KeyFileError> {
        let file: KeyFile = serde_json::from_slice(json).map_err(|error| KeyFileError::Json { line: error.line() })?;
        let mut wrong = Vec::new();
        if file.r#type != "service_account" {
            wrong.push("its type is not \"service_account\"");
        }
        // Part of a URL's path.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
        if file.project_id.is_empty() || !file.project_id.chars().all(plain) {
            wrong.push("its project_id is missing or no project's id");
        }
        if file.private_key_id.is_empty() {
            wrong.push("its private_key_id is missing");
        }
        if !file.client_email.contains('@') {
            wrong.push("its client_email is missing or no address");
        }
        let token_url = file.token_uri.parse::<Url>().ok().filter(|url| is_acceptable(url, in_clear));
        if token_url.is_none() {
            wrong.push("its token_uri is missing or no https URL");
        }
        let key = EncodingKey::from_rsa_pem(file.private_key.as_bytes()).ok();
        if key.is_none() {
            wrong.push("its private_key is missing or no RSA key in PEM (line ends are \\n in JSON)");
        }
        let (Some(token_url), Some(key), true) = (token_url, key, wrong.is_empty()) else {
            return Err(KeyFileError::Fields { what: wrong.join(", ") });
        };
        let KeyFile { project_id: project, private_key_id: key_id, client_email: email, .. } = file;
        let account = Self { project, key_id, key, email, token_url };
        account.assertion(SystemTime::now())?;
        Ok(account)
    }

    /// The project whose devices it may reach.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The key's public name.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Where access tokens come from.
    pub fn token_url(&self) -> &Url {
        &self.token_url
    }

    /// A signed word that we are who we are, to be exchanged for an access token within the hour.
    ///
    /// # Errors
    /// [`KeyFileError::Sign`]
    pub fn assertion(&self, now: SystemTime) -> Result<String, KeyFileError> {
        let begin = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(BACKDATED);
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.key_id.clone());
        let claims = Claims {
            iss: &self.email,
            scope: SCOPE,
            aud: self.token_url.as_str(),
            iat: begin.as_secs(),
            exp: (begin + LIFE).as_secs(),
        };
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(KeyFileError::Sign)
    }
}

fn is_acceptable(url: &Url, in_clear: bool) -> bool {
    let here = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    url.has_host() && (url.scheme() == "https" || (url.scheme() == "http" && (in_clear || here)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_account::{TestAccount, key_file};
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::{Value, json};

    fn refusal(file: &Value) -> String {
        ServiceAccount::parse(file.to_string().as_bytes(), false).unwrap_err().to_string()
    }

    #[test]
    fn an_assertion_says_who_asks_for_what_and_for_how_long() {
        let key = TestAccount::new();
        let account = key.account("https://oauth2.googleapis.com/token");
        let now = SystemTime::now();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let assertion = account.assertion(now).unwrap();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&["https://oauth2.googleapis.com/token"]);
        let public = DecodingKey::from_rsa_components(&key.n, &key.e).unwrap();
        let decoded = jsonwebtoken::decode::<Value>(&assertion, &public, &validation).unwrap();
        assert_eq!(decoded.header.kid.as_deref(), Some("key-1"));
        assert_eq!(decoded.header.typ.as_deref(), Some("JWT"));
        assert_eq!(
            decoded.claims,
            json!({
                "iss": "notifier@p.iam.gserviceaccount.com",
                "scope": "https://www.googleapis.com/auth/firebase.messaging",
                "aud": "https://oauth2.googleapis.com/token",
                "iat": seconds - 30,
                "exp": seconds - 30 + 3_600,
            })
        );
    }

    #[test]
    fn everything_that_is_wrong_with_a_file_is_named_with_what_to_do() {
        let refused = refusal(&json!({}));
        for field in ["type", "project_id", "private_key_id", "client_email", "token_uri", "private_key"] {
            assert!(refused.contains(field), "{field}: {refused}");
        }
        assert!(refused.contains("Generate new private key"));
        let refused = ServiceAccount::parse(b"-----BEGIN", false).unwrap_err().to_string();
        assert!(refused.contains("not the JSON") && !refused.contains("BEGIN"), "{refused}");
    }

    #[test]
    fn a_key_that_is_none_is_refused_and_not_repeated() {
        let good = key_file("x", "https://oauth2.googleapis.com/token");
        for (field, value) in [
            ("private_key", json!("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")),
            ("private_key", json!("secret")),
            ("project_id", json!("../../x")),
            ("token_uri", json!("http://example.com/token")),
        ] {
            let mut file = good.clone();
            file[field] = value;
            let refused = refusal(&file);
            assert!(refused.contains("private_key") || refused.contains(field), "{refused}");
            assert!(!refused.contains("c2VjcmV0") && !refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn a_token_endpoint_in_clear_is_for_tests() {
        let allowed = |url: &str, in_clear| is_acceptable(&url.parse().unwrap(), in_clear);
        assert!(allowed("https://oauth2.googleapis.com/token", false) && allowed("http://127.0.0.1:1/token", false));
        assert!(!allowed("http://fake/token", false) && allowed("http://fake/token", true));
        assert!(!allowed("ftp://127.0.0.1/token", true));
    }
}
