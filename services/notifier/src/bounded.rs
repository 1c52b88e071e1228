//! Bodies of answers, read no further than they are of use.

use reqwest::Response;

/// The body, or its first `most` bytes.
///
/// # Errors
/// The connection's.
pub(crate) async fn body(mut response: Response, most: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < most
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk[..chunk.len().min(most - body.len())]);
    }
    Ok(body)
}
