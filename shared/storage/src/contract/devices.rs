use super::{at_once, user, users};
use crate::{Device, MOST_DEVICES, NewDevice, Platform, PutDevice, Rotation, Storage, TargetKind, error::Result};
use touchline_ids::{DeviceId, UserId};
use uuid::Uuid;

const HOUR: i64 = 3_600_000;

fn named(name: &str) -> DeviceId {
    name.parse().expect("a device id")
}

/// A device with this token, registered by no log-in of ours.
fn device(user_id: UserId, name: &str, token: &str, now_ms: i64) -> NewDevice {
    NewDevice {
        user_id,
        device_id: named(name),
        platform: Platform::Android,
        target_kind: TargetKind::Token,
        push_token: token.to_owned(),
        login: None,
        now_ms,
    }
}

async fn put(storage: &Storage, device: NewDevice) -> Result<Device> {
    match storage.put_device(device).await? {
        PutDevice::Put(device) => Ok(device),
        other => panic!("not put: {other:?}"),
    }
}

/// The user's devices and their tokens.
async fn tokens(storage: &Storage, user: UserId) -> Result<Vec<(String, String)>> {
    let devices = storage.devices_of(user).await?;
    Ok(devices.into_iter().map(|device| (device.device_id.to_string(), device.push_token)).collect())
}

fn known(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|&(name, token)| (name.to_owned(), token.to_owned())).collect()
}

pub async fn a_device_is_registered_once_and_keeps_its_beginning(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let first = put(&one, device(ada, "phone", "a", 10)).await?;
    assert_eq!((first.created_at_ms, first.updated_at_ms, first.last_seen_at_ms), (10, 10, 10));
    assert_eq!(two.devices_of(ada).await?, [first]);
    let again = put(&two, device(ada, "phone", "a", 20)).await?;
    assert_eq!((again.created_at_ms, again.updated_at_ms, again.last_seen_at_ms), (10, 10, 20));
    let fresh = NewDevice { platform: Platform::Web, target_kind: TargetKind::Fid, ..device(ada, "phone", "a", 30) };
    let fresh = put(&one, fresh).await?;
    assert_eq!((fresh.created_at_ms, fresh.updated_at_ms), (10, 30), "another kind is another token");
    assert_eq!((fresh.platform, fresh.target_kind), (Platform::Web, TargetKind::Fid));
    assert_eq!(two.devices_of(ada).await?, [fresh]);

    assert_eq!(one.put_device(device(UserId::new(), "phone", "b", 1)).await?, PutDevice::NoSuchUser);
    two.delete_device(ada, named("phone")).await?;
    two.delete_device(ada, named("phone")).await?;
    assert_eq!(one.devices_of(ada).await?, []);
    Ok(())
}

pub async fn a_token_moves_to_who_registers_it(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    put(&one, device(ada, "phone", "a", 1)).await?;
    put(&one, device(ada, "tablet", "b", 1)).await?;
    put(&two, device(bob, "phone", "a", 2)).await?;
    assert_eq!(tokens(&one, ada).await?, known(&[("tablet", "b")]));
    assert_eq!(tokens(&one, bob).await?, known(&[("phone", "a")]));
    // Also between devices of one user: an app that was installed again may keep its token and not its name.
    put(&one, device(ada, "new-tablet", "b", 3)).await?;
    assert_eq!(tokens(&two, ada).await?, known(&[("new-tablet", "b")]));
    let fid = NewDevice { target_kind: TargetKind::Fid, ..device(ada, "phone", "a", 4) };
    put(&two, fid).await?;
    assert_eq!(tokens(&one, bob).await?.len(), 1, "the same text of another kind is another target");
    Ok(())
}

pub async fn of_two_who_register_one_token_at_once_one_has_it(one: Storage, two: Storage) -> Result<()> {
    let people: [UserId; 2] = users(&one).await?;
    for round in 0..20 {
        let token = format!("token-{}", round / 2);
        let put = |storage: &Storage, user| {
            let (storage, device) = (storage.clone(), device(user, "phone", &token, round));
            async move { storage.put_device(device).await }
        };
        let puts = at_once([put(&one, people[0]), put(&two, people[1])]).await?;
        assert!(puts.iter().all(|put| matches!(put, PutDevice::Put(_))), "{puts:?}");
        let mut holders = 0;
        for user in people {
            holders += tokens(&one, user).await?.iter().filter(|(_, held)| *held == token).count();
        }
        assert_eq!(holders, 1, "{round}");
    }
    Ok(())
}

pub async fn tokens_that_change_places_never_wait_crosswise(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    for round in 0..20 {
        let (a, b) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        let puts = [(one.clone(), ada, a), (two.clone(), bob, b)];
        at_once(puts.map(|(storage, user, token)| async move {
            storage.put_device(device(user, "phone", token, round)).await
        }))
        .await?;
        let mut held: Vec<_> = [tokens(&one, ada).await?, tokens(&one, bob).await?].concat();
        held.sort_by(|left, right| left.1.cmp(&right.1));
        assert!(held.len() <= 2 && !held.is_empty(), "{held:?}");
        assert!(held.windows(2).all(|pair| pair[0].1 != pair[1].1), "{held:?}");
    }
    Ok(())
}

pub async fn the_device_unseen_for_longest_makes_room(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    put(&one, device(bob, "phone", "bobs", 0)).await?;
    for n in 0..MOST_DEVICES as i64 {
        // The tenth is the oldest.
        put(&one, device(ada, &format!("d{n}"), &format!("t{n}"), (n + 10) % MOST_DEVICES as i64 + 1)).await?;
    }
    put(&one, device(ada, "d3", "another", 100)).await?;
    assert_eq!(one.devices_of(ada).await?.len(), MOST_DEVICES, "a known one needs no room");
    put(&two, device(ada, "one-more", "bobs", 101)).await?;
    let names: Vec<_> = tokens(&one, ada).await?.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), MOST_DEVICES);
    assert!(!names.contains(&"d10".to_owned()) && names.contains(&"one-more".to_owned()), "{names:?}");
    assert_eq!(one.devices_of(bob).await?, []);

    let storages = [one.clone(), two].into_iter().cycle().zip(0..10);
    at_once(storages.map(|(storage, n)| async move {
        storage.put_device(device(ada, &format!("e{n}"), &format!("u{n}"), 200)).await
    }))
    .await?;
    assert_eq!(one.devices_of(ada).await?.len(), MOST_DEVICES, "however many come at once");
    Ok(())
}

pub async fn a_log_in_takes_its_devices_along(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    let (phone, laptop, stolen) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    for (login, hash) in [(phone, 1), (laptop, 2), (stolen, 3)] {
        one.create_login(login, ada, [hash; 32], 0, HOUR).await?;
    }
    let by = |login, name: &str| NewDevice { login: Some(login), ..device(ada, name, name, 1) };
    for (login, name) in [(phone, "phone"), (phone, "watch"), (laptop, "laptop"), (stolen, "stolen")] {
        put(&one, by(login, name)).await?;
    }
    put(&one, device(ada, "outside", "outside", 1)).await?;
    // The watch has logged in by itself since.
    put(&two, by(laptop, "watch")).await?;
    two.revoke_login(phone).await?;
    assert_eq!(tokens(&one, ada).await?.len(), 4);
    assert_eq!(one.put_device(by(phone, "phone")).await?, PutDevice::LoggedOut, "its access token lives on");

    one.rotate_refresh_token([3; 32], [4; 32], 10, HOUR).await?;
    let reused = two.rotate_refresh_token([3; 32], [5; 32], 20, HOUR).await?;
    assert!(matches!(reused, Rotation::Reused { .. }));
    assert_eq!(tokens(&one, ada).await?, known(&[("laptop", "laptop"), ("outside", "outside"), ("watch", "watch")]));
    // Log-ins that are not ours are not known here.
    put(&one, by(Uuid::now_v7(), "phone")).await?;
    Ok(())
}

pub async fn a_log_out_and_a_registration_at_once_leave_nothing(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    for round in 0..20 {
        let login = Uuid::now_v7();
        one.create_login(login, ada, [round; 32], 0, HOUR).await?;
        let new = NewDevice { login: Some(login), ..device(ada, "phone", "a", 1) };
        let (put, revoked) = tokio::join!(one.put_device(new), two.revoke_login(login));
        put?;
        revoked?;
        assert_eq!(one.devices_of(ada).await?, [], "{round}");
    }
    Ok(())
}

pub async fn being_seen_is_noted_once_an_hour(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    put(&one, device(ada, "phone", "a", 0)).await?;
    put(&one, device(bob, "phone", "b", 0)).await?;
    let seen = async |user| Ok::<_, crate::StorageError>(one.devices_of(user).await?[0].last_seen_at_ms);
    let ones = [(ada, named("phone")), (ada, named("no-such")), (ada, named("phone"))];
    two.seen(&ones, HOUR).await?;
    assert_eq!(seen(ada).await?, 0, "not yet an hour");
    two.seen(&ones, HOUR + 1).await?;
    two.seen(&ones, HOUR + 2).await?;
    assert_eq!((seen(ada).await?, seen(bob).await?), (HOUR + 1, 0));
    one.seen(&[], 9 * HOUR).await?;
    let many: Vec<_> = (0..2_500).map(|n| (UserId::new(), named(&n.to_string()))).chain([ones[0].clone()]).collect();
    one.seen(&many, 3 * HOUR).await?;
    assert_eq!(seen(ada).await?, 3 * HOUR);
    assert_eq!(one.devices_of(ada).await?.len(), 1, "who is not registered is not made up");
    Ok(())
}

pub async fn a_void_token_is_forgotten_once_and_only_if_unchanged(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    put(&one, device(ada, "phone", "a", 10)).await?;
    put(&one, device(ada, "tablet", "b", 10)).await?;
    let void = |user, name: &str, token: &str, sent_at| (user, named(name), token.to_owned(), sent_at);
    for kept in [
        void(ada, "phone", "b", 20),
        void(ada, "laptop", "a", 20),
        void(bob, "phone", "a", 20),
        void(ada, "phone", "a", 10),
    ] {
        assert_eq!(two.forget_void(&[kept]).await?, 0);
    }
    // It changed to another token and back while the push was under way.
    put(&one, device(ada, "phone", "c", 15)).await?;
    put(&one, device(ada, "phone", "a", 16)).await?;
    assert_eq!(two.forget_void(&[void(ada, "phone", "a", 14)]).await?, 0);
    let all = [void(ada, "phone", "a", 20), void(ada, "tablet", "b", 20), void(bob, "x", "a", 20)];
    assert_eq!(two.forget_void(&all).await?, 2);
    assert_eq!(one.forget_void(&all).await?, 0);
    assert_eq!(one.forget_void(&[]).await?, 0);
    assert_eq!(one.devices_of(ada).await?, []);
    Ok(())
}

pub async fn a_suspect_is_noted_once_and_cleared_by_registering(one: Storage, two: Storage) -> Result<()> {
    let ada = user(&one).await?;
    put(&one, device(ada, "phone", "a", 1)).await?;
    let since = async || Ok::<_, crate::StorageError>(two.devices_of(ada).await?[0].suspect_since_ms);
    let known = |token: &str| (ada, named("phone"), token.to_owned());
    assert_eq!(one.suspect(&[known("b")], 5).await?, 0);
    assert_eq!(one.suspect(&[known("a")], 6).await?, 1);
    assert_eq!(two.suspect(&[known("a")], 7).await?, 0);
    assert_eq!(since().await?, Some(6));
    put(&one, device(ada, "phone", "a", 8)).await?;
    assert_eq!(since().await?, None);
    Ok(())
}

pub async fn devices_that_stay_away_are_swept(one: Storage, two: Storage) -> Result<()> {
    let [ada, bob] = users(&one).await?;
    for n in 1..=6 {
        put(&one, device(ada, &format!("d{n}"), &format!("t{n}"), n)).await?;
    }
    for (n, at) in [(5, 30), (6, 40)] {
        one.suspect(&[(ada, named(&format!("d{n}")), format!("t{n}"))], at).await?;
    }
    assert_eq!(two.sweep_devices(1, 30, 100).await?, 0);
    assert_eq!(two.sweep_devices(4, 31, 2).await?, 3, "two of three unseen ones, and a suspect");
    let left = known(&[("d3", "t3"), ("d4", "t4"), ("d6", "t6")]);
    assert_eq!(tokens(&one, ada).await?, left);
    assert_eq!(two.sweep_devices(4, 31, 2).await?, 1);
    put(&one, device(bob, "phone", "t4", 9)).await?;
    assert_eq!(one.sweep_devices(9, 41, 100).await?, 1);
    assert_eq!(tokens(&one, ada).await?, []);
    assert_eq!(tokens(&one, bob).await?.len(), 1);
    Ok(())
}
