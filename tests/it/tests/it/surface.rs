//! What the api shows of itself: the OpenAPI document, the pages to read it, trace context, CORS, health; and that
//! PROTOCOL.md says the same.

use anyhow::{Context as _, Result};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use touchline_gateway::{CloseCode, Wait};
use touchline_harness::Stack;
use uuid::Uuid;

const PROTOCOL: &str = include_str!("../../../../PROTOCOL.md");

#[tokio::test]
async fn the_openapi_document_and_its_pages_need_no_other_host() -> Result<()> {
    let stack = Stack::local().start().await?;
    let http = reqwest::Client::new();
    let document: Value = http.get(format!("{}/v1/openapi.json", stack.api_url(0))).send().await?.json().await?;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);

    // Everything the page loads comes from here, and nothing in it points elsewhere.
    let base = format!("{}/docs/", stack.api_url(0));
    let page = http.get(&base).send().await?.error_for_status()?.text().await?;
    let mut loaded = 0;
    for piece in page.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css")) {
        assert!(!piece.contains("//"), "the page loads {piece} from another host");
        http.get(format!("{base}{}", piece.trim_start_matches("./"))).send().await?.error_for_status()?;
        loaded += 1;
    }
    assert!(loaded >= 3, "the page loads its style and its scripts: {page}");
    stack.stop().await
}

#[test]
fn the_protocol_lists_every_operation() -> Result<()> {
    let document = serde_json::to_value(touchline_api::openapi())?;
    for (path, operations) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in operations.as_object().context("no operations")? {
            let call = format!("`{} {path}", method.to_uppercase());
            assert!(PROTOCOL.contains(&call), "PROTOCOL.md does not list {call}");
            assert!(operation["summary"].is_string(), "{call} has no summary");
        }
    }
    Ok(())
}

#[test]
fn the_protocol_prints_the_table_of_close_codes() {
    for code in CloseCode::ALL {
        let rule = code.rule();
        let row = PROTOCOL.lines().find(|line| line.starts_with(&format!("| {} | `{}` |", rule.code, rule.name)));
        let row = row.unwrap_or_else(|| panic!("PROTOCOL.md has no row for {}", rule.name));
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        let wait = match rule.wait {
            Wait::ForEver => "–",
            Wait::BackOff => "back-off",
            Wait::LongestBackOff => "longest back-off",
            Wait::AsTold => "as told, else longest back-off",
        };
        let ends = format!("| {} | {} | {wait} |", yes(rule.reconnect), yes(rule.sync));
        assert!(row.ends_with(&ends), "{row} should end with {ends}");
    }
}

#[tokio::test]
async fn a_trace_goes_on_from_the_callers_and_is_told_back() -> Result<()> {
    // Real processes: telemetry is set up once a process, and a test process is everybody's.
    let stack = Stack::processes(1, 1).start().await?;
    let alice = stack.sign_up("alice").await?;
    let channel = stack.channel(&[&alice]).await?;
    let token = stack.access_tokens().issue(alice.id, Uuid::now_v7())?;
    let send = |traceparent: Option<&'static str>| {
        let url = format!("{}/v1/channels/{channel}/messages", stack.api_url(0));
        let body = json!({"client_message_id": Uuid::now_v7(), "content": "hello"});
        let request = reqwest::Client::new().post(url).bearer_auth(&token).json(&body);
        let request = match traceparent {
            Some(parent) => request.header("traceparent", parent),
            None => request,
        };
        async move {
            let answer = request.send().await?.error_for_status()?;
            let trace = answer.headers().get("traceparent").context("no traceparent in the answer")?;
            anyhow::Ok(trace.to_str()?.to_owned())
        }
    };
    let trace_id = |traceparent: &str| traceparent.split('-').nth(1).map(str::to_owned);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answered = send(Some(parent)).await?;
    assert_eq!(trace_id(&answered), trace_id(parent));
    assert_ne!(answered, parent, "a span of our own");

    let (first, second) = (send(None).await?, send(Some("rubbish")).await?);
    assert!(trace_id(&first).is_some_and(|id| id.len() == 32 && id != "0".repeat(32)), "{first}");
    assert_ne!(trace_id(&first), trace_id(&second));
    stack.stop().await
}

#[tokio::test]
async fn only_listed_origins_may_read_answers() -> Result<()> {
    let listed = "https://app.example.com";
    let stack = Stack::local().api(|config| config.allowed_origins = vec![listed.to_owned()]).start().await?;
    let cases = [
        (listed, true),
        ("https://evil.example.com", false),
        ("null", false),
        ("https://app.example.com.evil", false),
        ("https://APP.example.com", false),
        ("http://app.example.com", false),
    ];
    for (origin, allowed) in cases {
        let answer = reqwest::Client::new()
            .request(Method::OPTIONS, format!("{}/v1/channels", stack.api_url(0)))
            .header(header::ORIGIN, origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
            .send()
            .await?;
        let echoed = answer.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        assert_eq!(echoed.is_some_and(|value| value == origin), allowed, "{origin}: {echoed:?}");
        assert!(!answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
    stack.stop().await
}

#[tokio::test]
async fn a_serving_api_is_alive_and_ready() -> Result<()> {
    let stack = Stack::local().start().await?;
    for probe in ["livez", "readyz"] {
        let answer = reqwest::get(format!("{}/{probe}", stack.api_url(0))).await?;
        assert_eq!(answer.status(), StatusCode::OK, "{probe}");
    }
    stack.stop().await
}
