//! People and how they are recognised.

use crate::{
    Storage,
    connection::{commit, in_time},
    entity::{identities, users},
    error::Result,
    rows::{self, VALUES},
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QuerySelect,
    QueryTrait, SqlErr,
};
use std::collections::{BTreeSet, HashSet};
use touchline_ids::UserId;

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// The unique name, as the caller normalised it.
    pub handle: String,
    /// The name to show.
    pub display_name: String,
    /// When they signed up, Unix milliseconds.
    pub created_at_ms: i64,
}

/// A person of an outside identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The provider, at most 255 bytes.
    pub issuer: String,
    /// The provider's name for the person, at most 255 bytes.
    pub subject: String,
}

/// A person to be.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Drawn by the caller.
    pub id: UserId,
    /// Normalised by the caller; unique; at most 64 characters.
    pub handle: String,
    /// At most 128 characters.
    pub display_name: String,
    /// The password's argon2id hash, for those who log in here.
    pub password_hash: Option<String>,
    /// For those who come from an outside provider.
    pub external: Option<External>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// What creating a user found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateUser {
    /// They exist now.
    Created(User),
    /// Somebody has that handle.
    HandleTaken,
    /// That external person is this user already, perhaps since a moment ago.
    ExternalExists(User),
}

impl Storage {
    /// Creates a user, with the external identity if there is one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_user(&self, user: NewUser) -> Result<CreateUser> {
        let transaction = self.begin().await?;
        match in_time(insert(&transaction, &user)).await? {
            Inserted::Yes => commit(transaction).await?,
            Inserted::Taken => {
                in_time(async { Ok(transaction.rollback().await?) }).await?;
                if let Some(external) = &user.external
                    && let Some(known) = self.find_external_user(&external.issuer, &external.subject).await?
                {
                    return Ok(CreateUser::ExternalExists(known));
                }
                return Ok(CreateUser::HandleTaken);
            }
        }
        Ok(CreateUser::Created(User {
            id: user.id,
            handle: user.handle,
            display_name: user.display_name,
            created_at_ms: user.created_at_ms,
        }))
    }

    /// Finds a user by id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_user(&self, id: UserId) -> Result<Option<User>> {
        let row = self.reach(async { Ok(users::Entity::find_by_id(id).one(&self.reader).await?) }).await?;
        Ok(row.map(User::from))
    }

    /// Finds a user by exact handle.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_user_by_handle(&self, handle: &str) -> Result<Option<User>> {
        Ok(self.find_credentials(handle).await?.map(|(user, _)| user))
    }

    /// Finds a user and their password's hash (none for those of an outside provider) by exact handle.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_credentials(&self, handle: &str) -> Result<Option<(User, Option<String>)>> {
        let query = users::Entity::find().filter(users::Column::Handle.eq(handle));
        let row = self.reach(async { Ok(query.one(&self.reader).await?) }).await?;
        Ok(row.map(|mut row| {
            let hash = row.password_hash.take();
            (row.into(), hash)
        }))
    }

    /// Finds the user whom an outside provider names so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_external_user(&self, issuer: &str, subject: &str) -> Result<Option<User>> {
        in_time(async {
            let key = (issuer.to_owned(), subject.to_owned());
            let Some(identity) = identities::Entity::find_by_id(key).one(&self.reader).await? else { return Ok(None) };
            Ok(users::Entity::find_by_id(identity.user_id).one(&self.reader).await?.map(User::from))
        })
        .await
    }
}

impl From<users::Model> for User {
    fn from(row: users::Model) -> Self {
        Self { id: row.id, handle: row.handle, display_name: row.display_name, created_at_ms: row.created_at }
    }
}

enum Inserted {
    Yes,
    /// The handle or the external identity belongs to somebody.
    Taken,
}

async fn insert(transaction: &DatabaseTransaction, user: &NewUser) -> Result<Inserted> {
    let row = users::ActiveModel {
        id: Set(user.id),
        handle: Set(user.handle.clone()),
        display_name: Set(user.display_name.clone()),
        password_hash: Set(user.password_hash.clone()),
        created_at: Set(user.created_at_ms),
    };
    if taken(users::Entity::insert(row).exec_without_returning(transaction).await)? {
        return Ok(Inserted::Taken);
    }
    if let Some(external) = &user.external {
        let row = identities::ActiveModel {
            issuer: Set(external.issuer.clone()),
            subject: Set(external.subject.clone()),
            user_id: Set(user.id),
        };
        if taken(identities::Entity::insert(row).exec_without_returning(transaction).await)? {
            return Ok(Inserted::Taken);
        }
    }
    Ok(Inserted::Yes)
}

fn taken<T>(result: std::result::Result<T, DbErr>) -> Result<bool> {
    match result {
        Ok(_) => Ok(false),
        Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Those of `users` who are nobody, sorted.
pub(crate) async fn unknown(db: &impl ConnectionTrait, users: &BTreeSet<UserId>) -> Result<Vec<UserId>> {
    let asked: Vec<_> = users.iter().copied().collect();
    let mut known = HashSet::new();
    for some in asked.chunks(VALUES) {
        let query = users::Entity::find().filter(users::Column::Id.is_in(some.iter().copied()));
        known.extend(rows::all::<Known>(db, query.select_only().column(users::Column::Id).as_query()).await?);
    }
    Ok(asked.into_iter().filter(|&id| !known.contains(&Known { id })).collect())
}

#[derive(PartialEq, Eq, Hash, sea_orm::FromQueryResult)]
struct Known {
    id: UserId,
}
