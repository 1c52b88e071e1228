//! (stub, being written)
use crate::error::Error;
/// Log in.
#[utoipa::path(post, path = "/v1/sessions", tag = "people")]
pub async fn log_in() -> Error {
    Error::NoSuchPath
}
/// Refresh.
#[utoipa::path(post, path = "/v1/sessions/refresh", tag = "people")]
pub async fn refresh() -> Error {
    Error::NoSuchPath
}
/// Log out.
#[utoipa::path(delete, path = "/v1/sessions/current", tag = "people")]
pub async fn log_out() -> Error {
    Error::NoSuchPath
}
