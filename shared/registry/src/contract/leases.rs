//! Who is alive.

use super::{ANSWERS, Fixture, lease};
use crate::{GatewayState, Renewal};
use touchline_ids::IncarnationId;

/// The first renewal creates the lease, the next one updates it.
pub async fn a_lease_is_missing_then_renewed_and_listed(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let mut first = lease("gw-1", IncarnationId::new());
    let second = lease("gw-2", IncarnationId::new());
    assert_eq!(registry.gateways().await.expect(ANSWERS), []);
    assert_eq!(registry.renew_lease(&first).await.expect(ANSWERS), Renewal::Missing);
    assert_eq!(registry.renew_lease(&second).await.expect(ANSWERS), Renewal::Missing);
    first.sessions = 42;
    first.state = GatewayState::Draining;
    assert_eq!(registry.renew_lease(&first).await.expect(ANSWERS), Renewal::Renewed);
    let mut listed = registry.gateways().await.expect(ANSWERS);
    listed.sort_by_key(|lease| lease.incarnation);
    assert_eq!(listed, [first, second]);
}

/// A restarted gateway takes its name over; the life before it cannot take it back.
pub async fn an_earlier_incarnation_is_fenced_and_changes_nothing(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let earlier = lease("gw-1", IncarnationId::new());
    let later = lease("gw-1", IncarnationId::new());
    assert_eq!(registry.renew_lease(&earlier).await.expect(ANSWERS), Renewal::Missing);
    assert_eq!(registry.renew_lease(&later).await.expect(ANSWERS), Renewal::Missing);
    assert_eq!(registry.renew_lease(&earlier).await.expect(ANSWERS), Renewal::Fenced);
    assert_eq!(registry.renew_lease(&later).await.expect(ANSWERS), Renewal::Renewed);
    assert_eq!(registry.gateways().await.expect(ANSWERS), [later]);
}

/// The gateway must learn that its routes may be lost too.
pub async fn a_lost_lease_is_missing_again(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let lease = lease("gw-1", IncarnationId::new());
    registry.renew_lease(&lease).await.expect(ANSWERS);
    assert_eq!(registry.renew_lease(&lease).await.expect(ANSWERS), Renewal::Renewed);
    fixture.lose_lease(&lease.gateway).await;
    assert_eq!(registry.gateways().await.expect(ANSWERS), []);
    assert_eq!(registry.renew_lease(&lease).await.expect(ANSWERS), Renewal::Missing);
    assert_eq!(registry.renew_lease(&lease).await.expect(ANSWERS), Renewal::Renewed);
    assert_eq!(registry.gateways().await.expect(ANSWERS), [lease]);
}

/// A stopping incarnation that was already replaced ends nothing.
pub async fn a_released_lease_is_gone_but_only_ones_own(fixture: &impl Fixture) {
    let registry = fixture.registry();
    let earlier = lease("gw-1", IncarnationId::new());
    let later = lease("gw-1", IncarnationId::new());
    registry.renew_lease(&earlier).await.expect(ANSWERS);
    registry.renew_lease(&later).await.expect(ANSWERS);
    registry.release_lease(&earlier.gateway, earlier.incarnation).await.expect(ANSWERS);
    assert_eq!(registry.gateways().await.expect(ANSWERS), std::slice::from_ref(&later));
    registry.release_lease(&later.gateway, later.incarnation).await.expect(ANSWERS);
    assert_eq!(registry.gateways().await.expect(ANSWERS), []);
    registry.release_lease(&later.gateway, later.incarnation).await.expect(ANSWERS);
}
