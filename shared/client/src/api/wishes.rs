//! The calls by which people say where, when and of what they want to be notified.

use super::{Client, Result, accepted, answer};
use crate::model::{NotifyWish, QuietHours, RegisteredDevice};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use touchline_ids::{ChannelId, DeviceId};

impl Client {
    /// Registers a device (`android`, `ios`, `web`) for pushes: by its registration token at the push service (`token`)
    /// or its installation id (`fid`). To be called at every start of the app, and when that name changes.
    pub async fn put_device(
        &self,
        device: &DeviceId,
        platform: &str,
        kind: &str,
        value: &str,
    ) -> Result<RegisteredDevice> {
        let body = json!({"platform": platform, "push": {"kind": kind, "value": value}});
        answer(self.request(Method::PUT, &format!("/v1/devices/{device}")).json(&body)).await
    }

    /// My devices that are registered for pushes.
    pub async fn devices(&self) -> Result<Vec<RegisteredDevice>> {
        #[derive(Deserialize)]
        struct Devices {
            devices: Vec<RegisteredDevice>,
        }
        answer::<Devices>(self.get("/v1/devices")).await.map(|answer| answer.devices)
    }

    /// Has nothing pushed to a device any more.
    pub async fn delete_device(&self, device: &DeviceId) -> Result<()> {
        accepted(self.request(Method::DELETE, &format!("/v1/devices/{device}"))).await.map(drop)
    }

    /// Says of which messages of a channel to notify me.
    pub async fn set_notify(&self, channel: ChannelId, wish: &NotifyWish) -> Result<NotifyWish> {
        answer(self.request(Method::PUT, &format!("/v1/channels/{channel}/notifications")).json(wish)).await
    }

    /// Of which messages of a channel I am notified.
    pub async fn notify(&self, channel: ChannelId) -> Result<NotifyWish> {
        answer(self.get(&format!("/v1/channels/{channel}/notifications"))).await
    }

    /// Sets my quiet hours.
    pub async fn set_quiet_hours(&self, hours: &QuietHours) -> Result<QuietHours> {
        answer(self.request(Method::PUT, "/v1/me/quiet-hours").json(hours)).await
    }

    /// My quiet hours; a 404 when there are none.
    pub async fn quiet_hours(&self) -> Result<QuietHours> {
        answer(self.get("/v1/me/quiet-hours")).await
    }

    /// Ends my quiet hours for good.
    pub async fn clear_quiet_hours(&self) -> Result<()> {
        accepted(self.request(Method::DELETE, "/v1/me/quiet-hours")).await.map(drop)
    }
}
