//! Makes the key files of a first start, so that `dev` needs no preparation.

use crate::{AuthError, KeySet, SigningKey, refresh::random_text};
use serde_json::{Value, json};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Sees to it that `private` holds a signing key (mode 0600) and `public` a JWKS with its public half. What is there
/// stays: an existing key is never replaced, and keys already in the set stay in it. Nobody ever sees half a file, and two
/// processes that start at once end up with the same key.
///
/// Blocks; for the start of a process.
///
/// # Errors
/// [`AuthError::File`], or [`AuthError::PrivateKey`] and [`AuthError::KeySet`] when a file that is there holds
/// something else.
pub fn create_key_files(private: &Path, public: &Path) -> Result<(), AuthError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| AuthError::File { path, source }
    };
    if !private.try_exists().map_err(failed(private))? {
        let (_, pem) = SigningKey::generate()?;
        let draft = draft(private, &pem, 0o600)?;
        // A link, unlike a rename, never replaces: of two processes the first one's key wins.
        let linked = fs::hard_link(&draft, private);
        let removed = fs::remove_file(&draft);
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(private)(error)),
            _ => removed.map_err(failed(&draft))?,
        }
        sync_folder(private).map_err(failed(private))?;
    }
    let key = SigningKey::from_pem(&fs::read_to_string(private).map_err(failed(private))?)?;

    let mut keys: Vec<Value> = match fs::read(public) {
        Ok(bytes) => {
            let unusable = |what: String| AuthError::KeySet { from: public.display().to_string(), what };
            let set: Value = serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
            if KeySet::from_jwks(&set).is_ok_and(|set| set.has(key.kid())) {
                return Ok(());
            }
            let list = set.get("keys").and_then(Value::as_array);
            list.ok_or_else(|| unusable("not a JWK set: no list called `keys`".to_owned()))?.clone()
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(public)(error)),
    };
    keys.push(key.public_jwk());
    let draft = draft(public, &format!("{:#}\n", json!({ "keys": keys })), 0o644)?;
    fs::rename(&draft, public).and_then(|()| sync_folder(public)).map_err(failed(public))
}

/// A complete, synced file beside `target`.
fn draft(target: &Path, text: &str, mode: u32) -> Result<PathBuf, AuthError> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", random_text::<6>()?));
    let path = target.with_file_name(name);
    let write = || -> io::Result<()> {
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        // The mode is there from the first byte; the umask can only take bits away, so it is set again.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| AuthError::File { path: path.clone(), source })?;
    Ok(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_keys::Folder;

    #[test]
    fn a_second_start_changes_nothing() {
        let folder = Folder::new();
        let (private, public) = (folder.path("deep/er/key.pem"), folder.path("deep/keys.json"));
        create_key_files(&private, &public).unwrap();
        let before = (fs::read(&private).unwrap(), fs::read(&public).unwrap());
        create_key_files(&private, &public).unwrap();
        assert_eq!((fs::read(&private).unwrap(), fs::read(&public).unwrap()), before);
        assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&public).unwrap().permissions().mode() & 0o777, 0o644);
        // No drafts are left behind.
        assert_eq!(fs::read_dir(folder.path("deep/er")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(folder.path("deep")).unwrap().count(), 2);
    }

    #[test]
    fn a_lost_file_is_made_again_and_old_keys_stay() {
        let folder = Folder::new();
        let (private, public) = (folder.path("key.pem"), folder.path("keys.json"));
        create_key_files(&private, &public).unwrap();
        let old = SigningKey::from_pem(&fs::read_to_string(&private).unwrap()).unwrap();
        fs::remove_file(&public).unwrap();
        create_key_files(&private, &public).unwrap();
        fs::remove_file(&private).unwrap();
        create_key_files(&private, &public).unwrap();
        let new = SigningKey::from_pem(&fs::read_to_string(&private).unwrap()).unwrap();
        let set = KeySet::from_jwks(&serde_json::from_slice(&fs::read(&public).unwrap()).unwrap()).unwrap();
        assert_ne!(old.kid(), new.kid());
        assert!(set.has(old.kid()) && set.has(new.kid()));
    }

    #[test]
    fn a_strange_file_is_an_error_and_stays() {
        let folder = Folder::new();
        let (private, public) = (folder.path("key.pem"), folder.path("keys.json"));
        fs::write(&private, "mine").unwrap();
        assert!(matches!(create_key_files(&private, &public), Err(AuthError::PrivateKey(_))));
        assert_eq!(fs::read_to_string(&private).unwrap(), "mine");
        fs::remove_file(&private).unwrap();
        for bad in ["", "{}", "[1]"] {
            fs::write(&public, bad).unwrap();
            assert!(matches!(create_key_files(&private, &public), Err(AuthError::KeySet { .. })), "{bad}");
            assert_eq!(fs::read_to_string(&public).unwrap(), bad);
        }
    }

    #[test]
    fn starts_at_the_same_moment_agree_on_one_key() {
        let folder = Folder::new();
        let (private, public) = (folder.path("key.pem"), folder.path("keys.json"));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| create_key_files(&private, &public).unwrap());
            }
        });
        let key = SigningKey::from_pem(&fs::read_to_string(&private).unwrap()).unwrap();
        let set = KeySet::from_jwks(&serde_json::from_slice(&fs::read(&public).unwrap()).unwrap()).unwrap();
        assert!(set.has(key.kid()));
    }
}
