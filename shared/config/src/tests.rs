use super::*;
use serde::Deserialize;
use std::{fs, path::PathBuf};

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    api: Api,
    database: Database,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Api {
    http: String,
    max_body: u32,
    origins: Vec<String>,
    ports: Vec<u16>,
    docs: bool,
    token: Secret,
    limit: Option<u8>,
    key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Database {
    url: String,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            http: "127.0.0.1:8080".into(),
            max_body: 65_536,
            origins: vec![],
            ports: vec![],
            docs: true,
            token: Secret::default(),
            limit: None,
            key_file: None,
        }
    }
}

/// A file of its own for a test, gone with it.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("touchline-config-{}-{}.toml", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn environment(variables: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned: Vec<_> = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    owned.into_iter()
}

fn from(file: Option<&File>, variables: &[(&str, &str)]) -> Result<Loaded<Config>, Vec<Problem>> {
    load(file.map(|file| file.0.as_path()), environment(variables), &[], |_| vec![])
}

fn problems(file: Option<&File>, variables: &[(&str, &str)]) -> Vec<String> {
    from(file, variables).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_given_means_the_defaults() {
    let loaded = from(None, &[("HOME", "/home"), ("TOUCHLINE_URL", "http://x")]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.origins.is_empty());
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let file = File::new("[api]\nhttp = \"file\"\nmax_body = 1\ndocs = false\n");
    let flags = [Flag { flag: "--http", path: "api.http", value: "flag".into() }];
    let variables = environment(&[("TOUCHLINE__API__HTTP", "env"), ("TOUCHLINE__API__MAX_BODY", "2")]);
    let loaded = load::<Config>(Some(&file.0), variables, &flags, |_| vec![]).unwrap();
    let api = &loaded.config.api;
    assert_eq!((api.http.as_str(), api.max_body, api.docs), ("flag", 2, false));
    assert_eq!(loaded.origins["api.http"], "--http");
    assert_eq!(loaded.origins["api.max_body"], "TOUCHLINE__API__MAX_BODY");
    assert_eq!(loaded.origins["api.docs"], format!("{}:4", file.0.display()));
}

#[test]
fn text_from_the_environment_gets_the_type_its_key_expects() {
    let loaded = from(
        None,
        &[
            ("TOUCHLINE__API__HTTP", "123"),
            ("TOUCHLINE__API__MAX_BODY", "1_000"),
            ("TOUCHLINE__API__DOCS", "false"),
            ("TOUCHLINE__API__ORIGINS", "https://a.example, https://b.example"),
            ("TOUCHLINE__API__PORTS", "[1, 2]"),
            ("TOUCHLINE__API__LIMIT", "7"),
            ("TOUCHLINE__API__TOKEN", "true"),
        ],
    )
    .unwrap();
    let api = loaded.config.api;
    assert_eq!((api.http.as_str(), api.max_body, api.docs, api.limit), ("123", 1_000, false, Some(7)));
    assert_eq!(api.origins, ["https://a.example", "https://b.example"]);
    assert_eq!(api.ports, [1, 2]);
    assert_eq!(api.token.expose(), "true");

    let api = from(None, &[("TOUCHLINE__API__ORIGINS", "[\"a\"]"), ("TOUCHLINE__API__PORTS", "8080,8081")]).unwrap();
    assert_eq!((api.config.api.origins, api.config.api.ports), (vec!["a".to_owned()], vec![8080, 8081]));
    let api = from(None, &[("TOUCHLINE__API__ORIGINS", "")]).unwrap();
    assert!(api.config.api.origins.is_empty());
}

#[test]
fn every_problem_is_reported_at_once_with_its_path_and_source() {
    let file = File::new("nonsense = 1\napi.max_body = \"big\"\ndatabase = 3\n");
    let name = file.0.display();
    let told = load::<Config>(
        Some(&file.0),
        environment(&[("TOUCHLINE__API__DOCS", "maybe"), ("TOUCHLINE__API__PORTS", "1,70000")]),
        &[Flag { flag: "--limit", path: "api.limit", value: 300.into() }],
        |config| {
            assert_eq!(config.api.max_body, 65_536, "a rule sees the default where the given value is no good");
            vec![Problem::new("url", "must be set").within("database")]
        },
    )
    .unwrap_err();
    let told: Vec<_> = told.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            format!("api.max_body: expected u32 ({name}:2)"),
            format!("database: is a section: give its keys, such as database.… ({name}:3)"),
            format!("nonsense: unknown key ({name}:1)"),
            "api.docs: expected a boolean (TOUCHLINE__API__DOCS)".to_owned(),
            "api.ports: expected a sequence (TOUCHLINE__API__PORTS)".to_owned(),
            "api.limit: expected u8 (--limit)".to_owned(),
            "database.url: must be set".to_owned(),
        ]
    );
}

#[test]
fn an_unknown_key_names_the_one_it_was_meant_to_be() {
    let file = File::new("[api]\nhtpp = \"x\"\nurl = \"y\"\n[datbase]\nurl = \"z\"\n");
    let name = file.0.display();
    assert_eq!(
        problems(Some(&file), &[("TOUCHLINE__API__MAXBODY", "1"), ("TOUCHLINE__API", "1")]),
        [
            format!("api.htpp: unknown key; did you mean api.http? ({name}:2)"),
            format!("api.url: unknown key; did you mean database.url? ({name}:3)"),
            format!("datbase: unknown key; did you mean database? ({name}:4)"),
            "api: is a section: give its keys, such as api.… (TOUCHLINE__API)".to_owned(),
            "api.maxbody: unknown key; did you mean TOUCHLINE__API__MAX_BODY? (TOUCHLINE__API__MAXBODY)".to_owned(),
        ]
    );
}

#[test]
fn a_rule_is_told_with_the_source_of_the_value_it_refuses() {
    let told = load::<Config>(None, environment(&[("TOUCHLINE__API__MAX_BODY", "0")]), &[], |config| {
        assert_eq!(config.api.max_body, 0);
        vec![Problem::new("api.max_body", "must be at least 1")]
    });
    assert_eq!(told.unwrap_err()[0].to_string(), "api.max_body: must be at least 1 (TOUCHLINE__API__MAX_BODY)");
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_the_only_problem() {
    let missing = load::<Config>(Some(Path::new("/nowhere/touchline.toml")), environment(&[]), &[], |_| vec![]);
    let told = missing.unwrap_err();
    assert_eq!((told.len(), told[0].path.as_str()), (1, "/nowhere/touchline.toml"));

    let file = File::new("[api]\nhttp = \"x\ntoken = \"hunter2\"\n");
    let told = problems(Some(&file), &[("TOUCHLINE__X", "1")]);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with(&format!("{}:2: not TOML: ", file.0.display())), "{told:?}");
    assert!(!told[0].contains("hunter2"));
}

#[test]
fn any_key_can_be_given_by_file() {
    let secret = File::new("s3cret\n");
    let url = File::new("postgres://u:p@h/db\r\n");
    let toml = File::new(&format!("[api]\ntoken_file = {:?}\nkey_file = \"/k\"\n", secret.0));
    let loaded = from(Some(&toml), &[("TOUCHLINE__DATABASE__URL_FILE", url.0.to_str().unwrap())]).unwrap();
    assert_eq!(loaded.config.api.token.expose(), "s3cret");
    assert_eq!(loaded.config.database.url, "postgres://u:p@h/db");
    assert_eq!(loaded.config.api.key_file, Some("/k".into()), "a key that itself ends in _file stays a path");
    assert_eq!(loaded.origins["api.token"], format!("{}:2", toml.0.display()));

    let told = problems(None, &[("TOUCHLINE__API__TOKEN_FILE", "/nowhere/token"), ("TOUCHLINE__API__TOKN_FILE", "x")]);
    assert!(told[0].starts_with("api.token_file: /nowhere/token cannot be read: "), "{told:?}");
    assert!(told[1].starts_with("api.tokn_file: unknown key"), "{told:?}");

    let told =
        problems(None, &[("TOUCHLINE__API__TOKEN", "a"), ("TOUCHLINE__API__TOKEN_FILE", secret.0.to_str().unwrap())]);
    assert_eq!(told, ["api.token: given twice, as api.token and api.token_file (TOUCHLINE__API__TOKEN_FILE)"]);
}

#[test]
fn a_secret_shows_nowhere() {
    let file = File::new("[api]\ntoken = 12345678\n");
    let told = problems(Some(&file), &[]);
    assert!(told[0].starts_with("api.token: expected a string"), "{told:?}");
    assert!(!told[0].contains("12345678"));

    let secret = Secret::from("hunter2");
    assert_eq!(format!("{secret} {secret:?}"), "*** Secret(***)");
    assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");

    let refused = Problem::new("database.url", "postgres://u:hunter2@h/db is not a URL we know");
    assert_eq!(refused.to_string(), "database.url: postgres://u:***@h/db is not a URL we know");
}

#[test]
fn the_printed_configuration_is_toml_with_sources_and_without_secrets() {
    let variables = [
        ("TOUCHLINE__API__TOKEN", "hunter2"),
        ("TOUCHLINE__DATABASE__URL", "postgres://me:hun/ter2@db/x"),
        ("TOUCHLINE__API__ORIGINS", "a,b"),
    ];
    let printed = from(None, &variables).unwrap().print();
    assert_eq!(
        printed,
        "[api]\ndocs = true\nhttp = \"127.0.0.1:8080\"\n# key_file is not set\n# limit is not set\nmax_body = 65536\n\
         origins = [\"a\", \"b\"]  # TOUCHLINE__API__ORIGINS\nports = []\ntoken = \"***\"  # TOUCHLINE__API__TOKEN\n\n\
         [database]\nurl = \"postgres://me:***@db/x\"  # TOUCHLINE__DATABASE__URL\n"
    );
    let again = File::new(&printed);
    assert_eq!(from(Some(&again), &[]).unwrap().config.api.origins, ["a", "b"]);
}
