use super::{at_once, channel, user};
use crate::{Storage, StorageError, error::Result};
use sea_orm::ConnectionTrait;

pub async fn migrations_go_up_and_down_and_up_again(one: Storage, two: Storage) -> Result<()> {
    let steps: Vec<_> = one.migration_status().await?.into_iter().map(|(name, _)| name).collect();
    assert!(steps.is_sorted() && steps.len() >= 5, "{steps:?}");
    let applied =
        async || -> Result<usize> { Ok(two.migration_status().await?.iter().filter(|(_, applied)| *applied).count()) };
    assert_eq!(applied().await?, steps.len());
    assert_eq!(one.migrate_up().await?, Vec::<String>::new());
    for left in (0..steps.len()).rev() {
        one.migrate_down(1).await?;
        assert_eq!(applied().await?, left);
    }
    assert_eq!(one.migrate_up().await?, steps);
    two.require_current_schema().await?;
    let ada = user(&two).await?;
    channel(&two, ada, &[]).await?;

    one.migrate_down(steps.len() as u32).await?;
    assert_eq!(one.migrate_up().await?, steps);
    assert_eq!(two.find_user(ada).await?, None);
    Ok(())
}

pub async fn an_older_schema_is_refused_and_a_newer_one_is_not(one: Storage, two: Storage) -> Result<()> {
    one.migrate_down(2).await?;
    let steps = one.migration_status().await?;
    let error = two.require_current_schema().await.expect_err("two steps are missing");
    let text = error.to_string();
    let StorageError::Schema { pending } = error else { panic!("{text}") };
    assert_eq!(pending, steps[steps.len() - 2..].iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    assert!(text.contains(&pending[1]) && text.contains("touchline migrate up"), "{text}");

    // Without any table too, and without making one.
    one.migrate_down(steps.len() as u32).await?;
    one.writer.execute_unprepared("DROP TABLE seaql_migrations").await?;
    assert!(matches!(two.require_current_schema().await, Err(StorageError::Schema { .. })));
    assert!(two.reader.execute_unprepared("SELECT * FROM seaql_migrations").await.is_err());

    one.migrate_up().await?;
    one.writer.execute_unprepared("INSERT INTO seaql_migrations VALUES ('m9999_later', 1)").await?;
    two.require_current_schema().await?;
    assert_eq!(two.migration_status().await?.len(), steps.len());
    Ok(())
}

pub async fn two_processes_migrate_at_once(one: Storage, two: Storage) -> Result<()> {
    let steps = one.migration_status().await?.len();
    one.migrate_down(steps as u32).await?;
    let tasks = [one.clone(), two.clone(), one, two.clone()].map(|storage| async move { storage.migrate_up().await });
    let mut applied: Vec<_> = at_once(tasks).await?.iter().map(Vec::len).collect();
    applied.sort();
    assert_eq!(applied, [0, 0, 0, steps]);
    user(&two).await?;
    Ok(())
}
