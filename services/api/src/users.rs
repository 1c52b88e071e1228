//! (stub, being written)
use crate::error::Error;
/// Sign up.
#[utoipa::path(post, path = "/v1/users", tag = "people")]
pub async fn sign_up() -> Error {
    Error::NoSuchPath
}
/// Find a user by exact handle.
#[utoipa::path(get, path = "/v1/users", tag = "people")]
pub async fn find() -> Error {
    Error::NoSuchPath
}
/// Who am I.
#[utoipa::path(get, path = "/v1/me", tag = "people")]
pub async fn me() -> Error {
    Error::NoSuchPath
}
