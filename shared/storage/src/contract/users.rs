use super::{at_once, user};
use crate::{CreateUser, External, NewUser, Storage, error::Result};
use touchline_ids::UserId;

fn new(handle: &str) -> NewUser {
    NewUser {
        id: UserId::new(),
        handle: handle.to_owned(),
        display_name: "Ada ✨".to_owned(),
        password_hash: None,
        external: None,
        created_at_ms: 1_700_000_000_123,
    }
}

pub async fn a_user_is_found_by_id_handle_and_identity(one: Storage, two: Storage) -> Result<()> {
    let external = External { issuer: "https://id.example".to_owned(), subject: "42".to_owned() };
    let ada = NewUser { password_hash: Some("$argon2id$…".to_owned()), ..new("ada") };
    let bob = NewUser { external: Some(external), ..new("bob") };
    let CreateUser::Created(ada) = one.create_user(ada).await? else { panic!() };
    let CreateUser::Created(bob) = one.create_user(bob).await? else { panic!() };
    assert_eq!((ada.handle.as_str(), ada.created_at_ms), ("ada", 1_700_000_000_123));

    assert_eq!(two.find_user(ada.id).await?, Some(ada.clone()));
    assert_eq!(two.find_user_by_handle("ada").await?, Some(ada.clone()));
    assert_eq!(two.find_credentials("ada").await?, Some((ada, Some("$argon2id$…".to_owned()))));
    assert_eq!(two.find_credentials("bob").await?, Some((bob.clone(), None)));
    assert_eq!(two.find_external_user("https://id.example", "42").await?, Some(bob));

    assert_eq!(two.find_user(UserId::new()).await?, None);
    assert_eq!(two.find_user_by_handle("ada' OR '1'='1").await?, None);
    assert_eq!(two.find_credentials("nobody").await?, None);
    assert_eq!(two.find_external_user("https://id.example", "43").await?, None);
    assert_eq!(two.find_external_user("https://evil.example", "42").await?, None);
    Ok(())
}

pub async fn a_handle_belongs_to_one_user(one: Storage, two: Storage) -> Result<()> {
    let storages = [one.clone(), two].into_iter().cycle().take(8);
    let tasks = storages.map(|storage| async move { storage.create_user(new("ada")).await });
    let answers = at_once(tasks).await?;
    let created: Vec<_> = answers.iter().filter(|answer| matches!(answer, CreateUser::Created(_))).collect();
    assert_eq!(created.len(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == CreateUser::HandleTaken).count(), 7);
    // The rest of the database is as usable as before.
    user(&one).await?;
    Ok(())
}

pub async fn an_external_person_becomes_one_user(one: Storage, two: Storage) -> Result<()> {
    let storages = [one.clone(), two].into_iter().cycle().take(8);
    let tasks = storages.enumerate().map(|(n, storage)| async move {
        let external = Some(External { issuer: "https://id.example".to_owned(), subject: "42".to_owned() });
        storage.create_user(NewUser { external, ..new(&format!("ada{n}")) }).await
    });
    let mut created = None;
    let mut existing = Vec::new();
    for answer in at_once(tasks).await? {
        match answer {
            CreateUser::Created(user) => assert_eq!(created.replace(user), None),
            CreateUser::ExternalExists(user) => existing.push(user),
            CreateUser::HandleTaken => panic!("each had a handle of its own"),
        }
    }
    let created = created.expect("one was created");
    assert_eq!(existing, vec![created.clone(); 7]);
    // Those who lost left no half of a user behind.
    for n in 0..8 {
        let handle = format!("ada{n}");
        assert_eq!(one.find_user_by_handle(&handle).await?.is_some(), handle == created.handle);
    }
    Ok(())
}
