use super::{at_once, user};
use crate::{Rotation, Storage, error::Result};
use touchline_ids::UserId;
use uuid::Uuid;

const DAY: i64 = 86_400_000;

fn hash(n: u8) -> [u8; 32] {
    [n; 32]
}

/// What a good token gives: everything the answer to its holder needs.
async fn rotated_by(storage: &Storage, user: UserId, login: Uuid) -> Result<Rotation> {
    let user = storage.find_user(user).await?.expect("signed up");
    Ok(Rotation::Rotated { user, login })
}

pub async fn a_refresh_token_rotates(one: Storage, two: Storage) -> Result<()> {
    let (ada, login) = (user(&one).await?, Uuid::now_v7());
    one.create_login(login, ada, hash(1), 0, DAY).await?;
    let rotated = rotated_by(&one, ada, login).await?;
    assert_eq!(two.rotate_refresh_token(hash(1), hash(2), 10, DAY + 10).await?, rotated);
    assert_eq!(one.rotate_refresh_token(hash(2), hash(3), 20, DAY + 20).await?, rotated);
    assert_eq!(two.rotate_refresh_token(hash(9), hash(4), 30, DAY).await?, Rotation::Unknown);
    // Days later: the used ones have expired and are gone, the newest works.
    assert_eq!(two.rotate_refresh_token(hash(3), hash(4), DAY + 15, 2 * DAY).await?, rotated);
    assert_eq!(one.rotate_refresh_token(hash(1), hash(5), DAY + 16, 2 * DAY).await?, Rotation::Unknown);
    assert_eq!(one.rotate_refresh_token(hash(4), hash(5), DAY + 17, 2 * DAY).await?, rotated);
    Ok(())
}

pub async fn a_reused_refresh_token_revokes_its_family(one: Storage, two: Storage) -> Result<()> {
    let (ada, login) = (user(&one).await?, Uuid::now_v7());
    one.create_login(login, ada, hash(1), 0, DAY).await?;
    one.rotate_refresh_token(hash(1), hash(2), 10, DAY).await?;
    assert_eq!(two.rotate_refresh_token(hash(1), hash(3), 20, DAY).await?, Rotation::Reused { user: ada, login });
    for (old, new) in [(2, 4), (1, 5), (3, 6)] {
        assert_eq!(one.rotate_refresh_token(hash(old), hash(new), 30, DAY).await?, Rotation::Unknown);
    }
    Ok(())
}

pub async fn of_concurrent_rotations_one_wins_and_the_family_is_revoked(one: Storage, two: Storage) -> Result<()> {
    let (ada, login) = (user(&one).await?, Uuid::now_v7());
    one.create_login(login, ada, hash(0), 0, DAY).await?;
    let storages = [one.clone(), two].into_iter().cycle().take(8);
    let tasks = storages
        .zip(1..)
        .map(|(storage, n)| async move { storage.rotate_refresh_token(hash(0), hash(n), 10, DAY).await });
    let answers = at_once(tasks).await?;
    let count = |rotation| answers.iter().filter(|answer| **answer == rotation).count();
    assert_eq!(count(rotated_by(&one, ada, login).await?), 1);
    assert_eq!(count(Rotation::Reused { user: ada, login }), 1);
    assert_eq!(count(Rotation::Unknown), 6);
    for n in 1..=8 {
        assert_eq!(one.rotate_refresh_token(hash(n), hash(99), 20, DAY).await?, Rotation::Unknown);
    }
    Ok(())
}

pub async fn an_expired_refresh_token_is_unknown(one: Storage, _: Storage) -> Result<()> {
    let (ada, login) = (user(&one).await?, Uuid::now_v7());
    one.create_login(login, ada, hash(1), 0, DAY).await?;
    assert_eq!(one.rotate_refresh_token(hash(1), hash(2), DAY, 2 * DAY).await?, Rotation::Unknown);
    let rotated = rotated_by(&one, ada, login).await?;
    assert_eq!(one.rotate_refresh_token(hash(1), hash(2), DAY - 1, 2 * DAY).await?, rotated);
    Ok(())
}

pub async fn a_revoked_login_is_over_and_others_live_on(one: Storage, two: Storage) -> Result<()> {
    let (ada, phone, laptop) = (user(&one).await?, Uuid::now_v7(), Uuid::now_v7());
    one.create_login(phone, ada, hash(1), 0, DAY).await?;
    one.create_login(laptop, ada, hash(2), 0, DAY).await?;
    two.revoke_login(phone).await?;
    two.revoke_login(phone).await?;
    two.revoke_login(Uuid::now_v7()).await?;
    assert_eq!(one.rotate_refresh_token(hash(1), hash(3), 10, DAY).await?, Rotation::Unknown);
    let rotated = rotated_by(&one, ada, laptop).await?;
    assert_eq!(one.rotate_refresh_token(hash(2), hash(4), 10, DAY).await?, rotated);
    Ok(())
}

pub async fn expired_logins_are_forgotten(one: Storage, _: Storage) -> Result<()> {
    use crate::entity::{logins, refresh_tokens};
    use sea_orm::{EntityTrait, PaginatorTrait};
    let ada = user(&one).await?;
    for n in 1..=3 {
        one.create_login(Uuid::now_v7(), ada, hash(n), 0, DAY).await?;
    }
    one.create_login(Uuid::now_v7(), ada, hash(4), DAY, 2 * DAY).await?;
    assert_eq!(logins::Entity::find().count(&one.reader).await?, 1);
    assert_eq!(refresh_tokens::Entity::find().count(&one.reader).await?, 1);
    Ok(())
}
