//! Every path of the public surface, in one list, and what surrounds them.

use crate::{
    Api, channels, connect, devices,
    error::Error,
    extract::{BODY_LIMIT, URL_LIMIT},
    history, limits, logins, members, quiet, send, sync, trace, users, wishes,
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::HeaderValue,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Method, StatusCode, header};
use std::{any::Any, sync::Arc, time::Duration};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
    set_header::SetResponseHeaderLayer,
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

/// After this a request is answered with 504, whatever it waits for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Touchline",
        description = "Chat messages over REST; delivery over WebSocket: see PROTOCOL.md.",
        license(name = "Apache-2.0")
    ),
    modifiers(&BearerToken)
)]
struct Document;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// The paths and the document that describes them.
fn described() -> (Router<Arc<Api>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(users::sign_up, users::find))
        .routes(routes!(users::me))
        .routes(routes!(logins::log_in))
        .routes(routes!(logins::refresh))
        .routes(routes!(logins::log_out))
        .routes(routes!(channels::create, channels::list))
        .routes(routes!(channels::get, channels::rename))
        .routes(routes!(members::list, members::add))
        .routes(routes!(members::set_role, members::remove))
        .routes(routes!(send::send, history::list))
        .routes(routes!(history::mark_read))
        .routes(routes!(wishes::put, wishes::get))
        .routes(routes!(devices::list))
        .routes(routes!(devices::put, devices::forget))
        .routes(routes!(quiet::put, quiet::get, quiet::clear))
        .routes(routes!(sync::sync))
        .routes(routes!(connect::connect))
        .split_for_parts()
}

/// The OpenAPI 3.1 document of the public surface.
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().1
}

/// The whole service.
pub fn router(api: Arc<Api>) -> Router {
    let (paths, document) = described();
    let no_sniffing =
        SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let cors = cors(&api.config.allowed_origins);
    paths
        // Before the probes are added: those must never be refused.
        .layer(middleware::from_fn_with_state(Arc::clone(&api), limits::by_address))
        .route("/livez", get(|| async { StatusCode::OK }))
        .route("/readyz", get(readyz))
        .with_state(Arc::clone(&api))
        .merge(SwaggerUi::new("/docs").url("/v1/openapi.json", document))
        .fallback(|| async { Error::NoSuchPath })
        .method_not_allowed_fallback(|| async { Error::MethodNotAllowed })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(bound))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(no_sniffing)
        .layer(cors)
        .layer(middleware::from_fn(trace::trace))
}

/// Exact origins, without credentials: browsers send the bearer token themselves.
fn cors(origins: &[String]) -> CorsLayer {
    let origins: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, http::HeaderName::from_static("traceparent")])
        .expose_headers([header::RETRY_AFTER, http::HeaderName::from_static("traceparent")])
        .max_age(Duration::from_secs(600))
}

/// Bounds every request in the length of its URL and in time.
async fn bound(request: Request, next: Next) -> Response {
    let length = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if length > URL_LIMIT {
        return Error::UrlTooLong { limit: URL_LIMIT }.into_response();
    }
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Error::Timeout.into_response(),
    }
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    // The connection's task ends with it, and the connection with that.
    #[cfg(feature = "failpoints")]
    if panic.is::<crate::failpoints::Cut>() {
        std::panic::resume_unwind(panic);
    }
    Error::Internal(format!("panic: {}", touchline_mesh::vital::what(panic.as_ref()))).into_response()
}

/// Ready means: the database answers. Not the registry: without it sends go on, as broadcasts, and taking every api out
/// of rotation would end them.
async fn readyz(State(api): State<Arc<Api>>) -> Result<StatusCode, Error> {
    if api.shutdown.is_stopping() {
        return Err(Error::Unavailable { what: "this server is stopping" });
    }
    api.storage.ping().await?;
    Ok(StatusCode::OK)
}
