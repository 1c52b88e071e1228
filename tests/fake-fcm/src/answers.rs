//! FCM's answers, word for word where they were seen.

use crate::request::Reply;
use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

/// A data value that is no string; what [`wrong_type`] says of the first value of a message's data, 12.
pub const DATA_NOT_TEXT: &str = r#"{"error":{"code":400,"message":"Invalid value at 'message.data[0].value' (TYPE_STRING), 12","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message.data[0].value","description":"Invalid value at 'message.data[0].value' (TYPE_STRING), 12"}]}]}}"#;
/// A token of the wrong form.
pub const BAD_TOKEN: &str = r#"{"error":{"code":400,"message":"The registration token is not a valid FCM registration token","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INVALID_ARGUMENT"}]}}"#;
/// The same, told by a violation.
pub const BAD_TOKEN_FIELD: &str = r#"{"error":{"code":400,"message":"Request contains an invalid argument.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INVALID_ARGUMENT"},{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message.token","description":"Invalid registration token"}]}]}}"#;
/// Neither token nor topic nor condition nor fid.
pub const NO_RECIPIENT: &str = r#"{"error":{"code":400,"message":"Recipient of the message is not set.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"message","description":"Recipient of the message is not set."}]},{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INVALID_ARGUMENT"}]}}"#;
/// More than 4,096 bytes.
pub const TOO_BIG: &str =
    r#"{"error":{"code":400,"message":"Request contains an invalid argument.","status":"INVALID_ARGUMENT"}}"#;
/// A dead token.
pub const UNREGISTERED: &str = r#"{"error":{"code":404,"message":"Requested entity was not found.","status":"NOT_FOUND","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}"#;
/// No access token, or one that is not good any more.
pub const UNAUTHENTICATED: &str = r#"{"error":{"code":401,"message":"Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.","status":"UNAUTHENTICATED","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"ACCESS_TOKEN_EXPIRED","domain":"googleapis.com","metadata":{"method":"google.firebase.fcm.v1.FcmService.SendMessage","service":"fcm.googleapis.com"}}]}}"#;
/// FCM's own fault.
pub const INTERNAL: &str = r#"{"error":{"code":500,"message":"Internal error encountered.","status":"INTERNAL","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INTERNAL"}]}}"#;
/// A token of another sender.
pub const WRONG_SENDER: &str = r#"{"error":{"code":403,"message":"SenderId mismatch","status":"PERMISSION_DENIED","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"SENDER_ID_MISMATCH"}]}}"#;
/// The account may not send in this project (here `p`; see [`forbidden`]).
pub const FORBIDDEN: &str = r#"{"error":{"code":403,"message":"Permission 'cloudmessaging.messages.create' denied on resource '//cloudresourcemanager.googleapis.com/projects/p' (or it may not exist).","status":"PERMISSION_DENIED"}}"#;
/// Too many: of the project or to the device.
pub const QUOTA_EXCEEDED: &str = r#"{"error":{"code":429,"message":"Quota exceeded.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"QUOTA_EXCEEDED"}]}}"#;
/// Overloaded.
pub const UNAVAILABLE: &str = r#"{"error":{"code":503,"message":"The service is currently unavailable.","status":"UNAVAILABLE","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNAVAILABLE"}]}}"#;
/// The key for APNs or web push is wrong. No sample was seen; the codes are documented.
pub const PLATFORM_KEY: &str = r#"{"error":{"code":401,"message":"Auth error from APNS or Web Push Service","status":"UNAUTHENTICATED","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"THIRD_PARTY_AUTH_ERROR"}]}}"#;
/// What Google's front end says when nobody is behind it.
pub const HTML_502: &str = "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  <title>Error 502 (Server Error)!!1</title>\n  <p><b>502.</b> <ins>That\u{2019}s an error.</ins>\n  <p>The server encountered a temporary error and could not complete your request.<p>Please try again in 30 seconds.  <ins>That\u{2019}s all we know.</ins>\n";
/// What it says to an address it does not know, such as the old batch endpoint.
pub const HTML_404: &str = "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  <title>Error 404 (Not Found)!!1</title>\n  <p><b>404.</b> <ins>That\u{2019}s an error.</ins>\n  <p>The requested URL was not found on this server.  <ins>That\u{2019}s all we know.</ins>\n";

/// JSON with the status it names.
pub(crate) fn sample(status: u16, body: &'static str) -> Reply {
    Reply::json(status, Bytes::from_static(body.as_bytes()))
}

/// A page of Google's front end.
pub(crate) fn page(status: u16, body: &'static str) -> Reply {
    let mut reply = Reply::json(status, Bytes::from_static(body.as_bytes()));
    reply.content_type("text/html; charset=UTF-8");
    reply
}

/// Accepted. `message` is opaque to clients.
pub(crate) fn accepted(project: &str, message: &str) -> Reply {
    Reply::value(StatusCode::OK, &json!({ "name": format!("projects/{project}/messages/{message}") }))
}

/// [`FORBIDDEN`] for `project`.
pub(crate) fn forbidden(project: &str) -> Reply {
    let message = format!(
        "Permission 'cloudmessaging.messages.create' denied on resource \
         '//cloudresourcemanager.googleapis.com/projects/{project}' (or it may not exist)."
    );
    let error = json!({ "code": 403, "message": message, "status": "PERMISSION_DENIED" });
    Reply::value(StatusCode::FORBIDDEN, &json!({ "error": error }))
}

/// A 400 with a violation: what Google's front end says of JSON that does not have the message's shape.
pub(crate) fn violation(field: &str, description: &str) -> Reply {
    let details = json!([{
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{ "field": field, "description": description }],
    }]);
    let error = json!({ "code": 400, "message": description, "status": "INVALID_ARGUMENT", "details": details });
    Reply::value(StatusCode::BAD_REQUEST, &json!({ "error": error }))
}

/// A 400 of FCM itself: the shape is right, the value is not.
pub(crate) fn invalid(field: &str, description: &str) -> Reply {
    let details = json!([
        {
            "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
            "errorCode": "INVALID_ARGUMENT",
        },
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{ "field": field, "description": description }],
        },
    ]);
    let error = json!({ "code": 400, "message": description, "status": "INVALID_ARGUMENT", "details": details });
    Reply::value(StatusCode::BAD_REQUEST, &json!({ "error": error }))
}
