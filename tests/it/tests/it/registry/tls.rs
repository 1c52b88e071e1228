//! The registry over TLS: only a server whose certificate the configured authority signed is spoken to.

use super::servers::{Server, free_port};
use std::{path::Path, process::Command};
use tempfile::TempDir;
use touchline_ids::{IncarnationId, UserId};
use touchline_registry::{Mode, Settings, connect, contract};

/// Makes an authority, `NAME.pem`, and a certificate of 127.0.0.1 that it signed, `NAME-server.pem`.
fn certify(folder: &Path, name: &str) {
    let openssl = |arguments: &str| {
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"];
        let mut command = Command::new("openssl");
        let made = command.args(["req", "-x509"]).args(key).args(arguments.split(' ')).current_dir(folder).output();
        let made = made.expect("openssl is installed: run tests/run");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    openssl(&format!("-subj /CN={name} -keyout {name}.key -out {name}.pem"));
    openssl(&format!(
        "-subj /CN=redis -CA {name}.pem -CAkey {name}.key -addext basicConstraints=critical,CA:FALSE \
         -addext subjectAltName=IP:127.0.0.1 -keyout {name}-server.key -out {name}-server.pem"
    ));
}

#[tokio::test]
async fn only_a_server_certified_by_the_configured_authority_is_used() {
    let folder = TempDir::with_prefix("touchline-tls.").unwrap();
    certify(folder.path(), "ours");
    certify(folder.path(), "other");
    let path = |name: &str| folder.path().join(name);
    let port = free_port();
    let options = [
        format!("tls-port {port}"),
        format!("tls-cert-file {}", path("ours-server.pem").display()),
        format!("tls-key-file {}", path("ours-server.key").display()),
        "tls-auth-clients no".to_owned(),
    ];
    let server = Server::start(&options.each_ref().map(String::as_str)).await;
    server.run::<()>("ACL SETUSER touchline on >hunter2 ~tl:* resetchannels +@all").await.unwrap();
    let settings = Settings {
        mode: Mode::Single,
        urls: vec![format!("rediss://127.0.0.1:{port}")],
        username: "touchline".to_owned(),
        password: "hunter2".into(),
        ca_file: Some(path("ours.pem")),
        ..Settings::default()
    };
    let registry = connect(&settings).await.unwrap();
    let lease = contract::lease("gw-1", IncarnationId::new());
    registry.renew_lease(&lease).await.unwrap();
    let session = contract::session(UserId::new(), "phone", lease.incarnation, 1);
    registry.register(std::slice::from_ref(&session)).await.unwrap();
    assert_eq!(registry.look_up(&[session.user]).await.unwrap().len(), 1);
    assert_eq!(registry.gateways().await.unwrap(), [lease]);

    // Another authority, those of the system, another name: none of them vouches for this server.
    let refused = [
        Settings { ca_file: Some(path("other.pem")), ..settings.clone() },
        Settings { ca_file: None, ..settings.clone() },
        Settings { urls: vec![format!("rediss://localhost:{port}")], ..settings.clone() },
    ];
    for settings in refused {
        assert!(connect(&settings).await.is_err(), "{settings:?}");
    }
    // Nor is plain text spoken to a port that wants TLS.
    let plain = Settings { urls: vec![format!("redis://127.0.0.1:{port}")], ca_file: None, ..settings };
    assert!(connect(&plain).await.is_err());
}
