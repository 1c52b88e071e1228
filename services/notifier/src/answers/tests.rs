//! Every answer that was seen, and those that may come.

use super::*;
use serde_json::{Value, json};

fn read(status: u16, headers: &[(&'static str, &str)], body: &str) -> Verdict {
    let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    classify(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), now)
}

fn fcm_error(code: &str) -> Value {
    json!({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
}

fn violation(field: &str) -> Value {
    json!({"@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"field": field, "description": "Invalid registration token"}]})
}

fn body(code: u16, message: &str, status: &str, details: &[Value]) -> String {
    json!({"error": {"code": code, "message": message, "status": status, "details": details}}).to_string()
}

fn later(seconds: impl Into<Option<u64>>, why: &str) -> Answer {
    Answer::Later { after: seconds.into().map(Duration::from_secs), why: why.into() }
}

#[test]
fn a_message_with_a_name_is_accepted() {
    let verdict = read(200, &[], r#"{"name":"projects/p/messages/0:1500415314455276%31bd1c9631bd1c96"}"#);
    assert_eq!(verdict.effect, Effect::Fine);
    assert_eq!(
        verdict.answer,
        Answer::Accepted { id: "projects/p/messages/0:1500415314455276%31bd1c9631bd1c96".into() }
    );
}

#[test]
fn a_success_that_says_nothing_is_sent_again() {
    for body in ["", "{}", "<html>", "null", r#"{"name":7}"#] {
        let verdict = read(200, &[], body);
        assert_eq!((verdict.answer, verdict.effect), (later(None, "200 without a message's name"), Effect::Failing));
    }
}

#[test]
fn a_value_that_is_no_string_is_our_bug_and_its_value_is_not_repeated() {
    let body = r#"{"error":{"code":400,"message":"Invalid value at 'message.data[0].value' (TYPE_STRING), 12","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message.data[0].value","description":"Invalid value at 'message.data[0].value' (TYPE_STRING), 12"}]}]}}"#;
    let verdict = read(400, &[], body);
    assert_eq!(verdict.effect, Effect::Fine);
    assert_eq!(verdict.answer, Answer::Refused { why: "400 INVALID_ARGUMENT message.data[0].value".into() });
}

#[test]
fn a_token_of_the_wrong_form_is_void() {
    let by_message = r#"{"error":{"code":400,"message":"The registration token is not a valid FCM registration token","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INVALID_ARGUMENT"}]}}"#;
    let by_field = r#"{"error":{"code":400,"message":"Request contains an invalid argument.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INVALID_ARGUMENT"},{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message.token","description":"Invalid registration token"}]}]}}"#;
    for body in [by_message, by_field] {
        let verdict = read(400, &[], body);
        assert_eq!(verdict.effect, Effect::Fine);
        assert!(matches!(verdict.answer, Answer::TokenVoid { .. }), "{verdict:?}");
    }
}

#[test]
fn any_other_invalid_argument_forgets_nobody() {
    let no_recipient = r#"{"error":{"code":400,"message":"Recipient of the message is not set.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message","description":"Recipient of the message is not set."}]},{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INVALID_ARGUMENT"}]}}"#;
    let too_big =
        r#"{"error":{"code":400,"message":"Request contains an invalid argument.","status":"INVALID_ARGUMENT"}}"#;
    let beside_it =
        body(400, "Invalid", "INVALID_ARGUMENT", &[violation("message.token_x"), fcm_error("INVALID_ARGUMENT")]);
    for body in [no_recipient, too_big, &beside_it, "", "<html>400</html>", "[]"] {
        let verdict = read(400, &[], body);
        assert_eq!(verdict.effect, Effect::Fine);
        assert!(matches!(verdict.answer, Answer::Refused { .. }), "{verdict:?}");
    }
}

#[test]
fn an_unregistered_token_is_void() {
    let body = r#"{"error":{"code":404,"message":"Requested entity was not found.","status":"NOT_FOUND","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}"#;
    let verdict = read(404, &[], body);
    assert_eq!(verdict.effect, Effect::Fine);
    assert_eq!(verdict.answer, Answer::TokenVoid { why: "404 NOT_FOUND UNREGISTERED".into() });
}

#[test]
fn a_404_without_that_code_forgets_nobody() {
    let plain = body(404, "Requested entity was not found.", "NOT_FOUND", &[]);
    for body in [plain.as_str(), "", "<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>"] {
        let verdict = read(404, &[], body);
        assert!(matches!(verdict.answer, Answer::Later { .. }), "{verdict:?}");
        assert_eq!(verdict.effect, Effect::Failing);
    }
}

#[test]
fn an_expired_access_token_is_replaced() {
    let body = r#"{"error":{"code":401,"message":"Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.","status":"UNAUTHENTICATED","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"ACCESS_TOKEN_EXPIRED","domain":"googleapis.com","metadata":{"method":"google.firebase.fcm.v1.FcmService.SendMessage","service":"fcm.googleapis.com"}}]}}"#;
    let verdict = read(401, &[], body);
    assert_eq!(verdict.effect, Effect::AnotherToken);
    assert_eq!(verdict.answer, Answer::Stopped { why: "401 UNAUTHENTICATED ACCESS_TOKEN_EXPIRED".into() });
    assert_eq!(read(401, &[], "").effect, Effect::AnotherToken);
    assert_eq!(read(401, &[], "<html>").effect, Effect::AnotherToken);
}

#[test]
fn a_wrong_key_for_a_platform_is_that_platforms_matter() {
    for code in ["THIRD_PARTY_AUTH_ERROR", "APNS_AUTH_ERROR"] {
        let verdict = read(401, &[], &body(401, "Auth error", "UNAUTHENTICATED", &[fcm_error(code)]));
        assert_eq!(verdict.effect, Effect::PlatformKey);
        assert!(matches!(verdict.answer, Answer::PlatformRefused { .. }), "{verdict:?}");
    }
}

#[test]
fn another_senders_token_is_no_matter_of_permission() {
    let body = r#"{"error":{"code":403,"message":"SenderId mismatch","status":"PERMISSION_DENIED","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"SENDER_ID_MISMATCH"}]}}"#;
    let verdict = read(403, &[], body);
    assert_eq!(verdict.effect, Effect::Fine);
    assert_eq!(verdict.answer, Answer::WrongSender { why: "403 PERMISSION_DENIED SENDER_ID_MISMATCH".into() });
}

#[test]
fn a_403_without_a_code_stops_everything() {
    let denied = r#"{"error":{"code":403,"message":"Permission 'cloudmessaging.messages.create' denied on resource '//cloudresourcemanager.googleapis.com/projects/p' (or it may not exist).","status":"PERMISSION_DENIED"}}"#;
    for body in [denied, "", "<html>403</html>"] {
        let verdict = read(403, &[], body);
        assert_eq!(verdict.effect, Effect::Shut(Cause::Permission));
        assert!(matches!(verdict.answer, Answer::Stopped { .. }), "{verdict:?}");
    }
}

#[test]
fn too_many_slows_down_and_waits_as_told_or_a_minute() {
    let quota = r#"{"error":{"code":429,"message":"Quota exceeded.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"QUOTA_EXCEEDED"}]}}"#;
    let why = "429 RESOURCE_EXHAUSTED QUOTA_EXCEEDED";
    let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_007));
    for (headers, seconds) in [
        (vec![], 60),
        (vec![("retry-after", "7")], 7),
        (vec![("retry-after", date.as_str())], 7),
        (vec![("retry-after", "soon")], 60),
    ] {
        let verdict = read(429, &headers, quota);
        assert_eq!((verdict.answer, verdict.effect), (later(seconds, why), Effect::SlowDown));
    }
    for body in ["", "<html>", &body(429, "Quota exceeded.", "RESOURCE_EXHAUSTED", &[fcm_error("NEW_CODE")])] {
        let verdict = read(429, &[], body);
        assert!(matches!(verdict.answer, Answer::Later { after: Some(WAIT_WHEN_TOO_MANY), .. }), "{verdict:?}");
        assert_eq!(verdict.effect, Effect::SlowDown);
    }
}

#[test]
fn one_device_that_gets_too_much_does_not_slow_the_others() {
    let quota =
        json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"subject": "device:1"}]});
    let text = body(429, "Quota exceeded.", "RESOURCE_EXHAUSTED", &[quota, fcm_error("QUOTA_EXCEEDED")]);
    let verdict = read(429, &[], &text);
    assert!(matches!(verdict.answer, Answer::Later { after: Some(WAIT_WHEN_TOO_MANY), .. }));
    assert_eq!(verdict.effect, Effect::Fine);
}

#[test]
fn a_failing_service_is_tried_again_and_may_say_when() {
    let internal = r#"{"error":{"code":500,"message":"Internal error encountered.","status":"INTERNAL","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INTERNAL"}]}}"#;
    let unavailable = r#"{"error":{"code":503,"message":"The service is currently unavailable.","status":"UNAVAILABLE","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNAVAILABLE"}]}}"#;
    let verdict = read(500, &[], internal);
    assert_eq!((verdict.answer, verdict.effect), (later(None, "500 INTERNAL"), Effect::Failing));
    let verdict = read(503, &[("retry-after", "30")], unavailable);
    assert_eq!((verdict.answer, verdict.effect), (later(30, "503 UNAVAILABLE"), Effect::Failing));
}

#[test]
fn pages_and_silence_from_the_way_there_are_tried_again() {
    let html = "<!DOCTYPE html>\n<html lang=en>\n<title>Error 502 (Server Error)!!1</title>";
    for (status, body) in [(502, html), (500, ""), (504, ""), (503, "upstream connect error"), (408, ""), (302, "")] {
        let verdict = read(status, &[], body);
        assert_eq!((verdict.answer, verdict.effect), (later(None, &status.to_string()), Effect::Failing));
    }
}

#[test]
fn codes_nobody_told_us_about_are_tried_again() {
    for (status, text) in [
        (400, body(400, "x", "INVALID_ARGUMENT", &[fcm_error("UNSPECIFIED_ERROR")])),
        (403, body(403, "x", "PERMISSION_DENIED", &[fcm_error("NEW_CODE")])),
        (404, body(404, "x", "NOT_FOUND", &[fcm_error("NEW_CODE")])),
        (409, body(409, "x", "ABORTED", &[])),
        (418, String::new()),
    ] {
        let verdict = read(status, &[], &text);
        assert!(matches!(verdict.answer, Answer::Later { after: None, .. }), "{verdict:?}");
        assert_eq!(verdict.effect, Effect::Failing);
    }
}

#[test]
fn the_code_is_found_wherever_it_stands() {
    let other = json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "X", "errorCode": "INTERNAL"});
    let mut details = vec![other, violation("message.data"), fcm_error("UNREGISTERED")];
    for _ in 0..details.len() {
        details.rotate_left(1);
        let verdict = read(404, &[], &body(404, "x", "NOT_FOUND", &details));
        assert!(matches!(verdict.answer, Answer::TokenVoid { .. }), "{verdict:?}");
    }
}

#[test]
fn json_of_another_shape_counts_by_its_http_status() {
    for body in
        [r#"{"error":"invalid_grant"}"#, r#"{"error":{"details":"x"}}"#, "[1,2]", r#"{"error":{"details":[7]}}"#]
    {
        assert_eq!(read(403, &[], body).effect, Effect::Shut(Cause::Permission), "{body}");
        assert_eq!(read(503, &[], body).effect, Effect::Failing, "{body}");
    }
}

#[test]
fn what_is_repeated_of_an_answer_is_short_and_plain() {
    let long = "X\n\u{1f600} ".repeat(1_000);
    let text = body(503, "secret", &long, &[fcm_error(&long), violation(&long)]);
    let Answer::Later { why, .. } = read(503, &[], &text).answer else { panic!() };
    assert!(why.len() < 300 && why.chars().all(|c| c == ' ' || c.is_ascii_graphic()) && !why.contains("secret"));
}
