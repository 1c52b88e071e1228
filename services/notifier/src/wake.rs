//! The one call a notifier serves: somebody was missed, look now.

use std::sync::Arc;
use tokio::sync::Notify;
use tonic::{Request, Response, Status, async_trait};
use touchline_proto::notify::{WakeRequest, WakeResponse, notify_service_server::NotifyService};

/// Wakes whoever waits for work. Calls while nobody waits are one call.
pub(crate) struct Wake(pub(crate) Arc<Notify>);

#[async_trait]
impl NotifyService for Wake {
    async fn wake(&self, _: Request<WakeRequest>) -> Result<Response<WakeResponse>, Status> {
        self.0.notify_one();
        Ok(Response::new(WakeResponse {}))
    }
}
