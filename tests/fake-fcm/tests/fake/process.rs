use crate::sender::{DEADLINE, claims, clear_client, exchange, http1_client, sign, within};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{collections::HashMap, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};
use touchline_fake_fcm::{FakeFcm, Options};

#[tokio::test]
async fn the_process_says_where_it_is_and_ends_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_fake-fcm"))
        .arg("--key-dir")
        .arg(folder.path().join("keys"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let ready = within(lines.next_line()).await.unwrap().unwrap();
    let ready = ready.strip_prefix("fake-fcm ready ").unwrap();
    let said: HashMap<&str, &str> = ready.split(' ').map(|word| word.split_once('=').unwrap()).collect();

    let account: Value = serde_json::from_slice(&std::fs::read(said["key_http"]).unwrap()).unwrap();
    assert_eq!(account["token_uri"], format!("{}/token", said["http"]));
    assert_eq!(account["type"], "service_account");
    let tls: Value = serde_json::from_slice(&std::fs::read(said["key"]).unwrap()).unwrap();
    assert_eq!(tls["token_uri"], format!("{}/token", said["https"]));
    assert!(std::fs::read_to_string(said["ca"]).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));

    // Its claims are those of any fake but for the addresses.
    let model = FakeFcm::start(Options::default()).await.unwrap();
    let mut claims = claims(&model, said["http"]);
    claims["iss"] = account["client_email"].clone();
    let answer = exchange(&clear_client(), said["http"], &sign(&account.to_string(), &claims)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let calls = http1_client().get(format!("{}/token-calls", said["control"])).send().await.unwrap();
    assert_eq!(calls.json::<Value>().await.unwrap()["total"], 1);

    let pid = Pid::from_raw(process.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let status = tokio::time::timeout(DEADLINE, process.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}
