//! Devices that can be pushed to: one push token each, and a token is one device's.

use crate::{
    Platform, Storage, StorageError, TargetKind,
    connection::{commit, in_time},
    entity::{
        devices::{ActiveModel, Column, Entity, Model},
        logins, users,
    },
    error::Result,
    rows::{self, KEYS},
};
use sea_orm::{
    ActiveValue::Set,
    ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult, Iterable, QuerySelect, SqlErr,
    sea_query::{
        Cond, DeleteStatement, Expr, ExprTrait, LockBehavior, LockType, OnConflict, Order, Query, SelectStatement,
        UpdateStatement,
    },
};
use std::{cmp::Reverse, fmt};
use touchline_ids::{DeviceId, UserId};
use uuid::Uuid;

/// Most devices of one user.
pub const MOST_DEVICES: usize = 20;
/// `last_seen_at` is not raised for less, milliseconds.
const SEEN_EVERY_MS: i64 = 3_600_000;
/// How often a device is put when others take the same token at the same moment.
const TRIES: usize = 5;

/// A device to register.
#[derive(Clone)]
pub struct NewDevice {
    /// Whose.
    pub user_id: UserId,
    /// Which.
    pub device_id: DeviceId,
    /// What it runs.
    pub platform: Platform,
    /// What kind of name `push_token` is.
    pub target_kind: TargetKind,
    /// Its name at the push service, at most 512 bytes. Never in a log.
    pub push_token: String,
    /// The log-in that registers it, of ours: when that ends, the device is forgotten.
    pub login: Option<Uuid>,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// A device that can be pushed to.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    /// Whose.
    pub user_id: UserId,
    /// Which.
    pub device_id: DeviceId,
    /// What it runs.
    pub platform: Platform,
    /// What kind of name `push_token` is.
    pub target_kind: TargetKind,
    /// Its name at the push service. Never in a log.
    pub push_token: String,
    /// When it was registered first, Unix milliseconds.
    pub created_at_ms: i64,
    /// When its push token came, Unix milliseconds.
    pub updated_at_ms: i64,
    /// When it was here last, Unix milliseconds; up to an hour and some seconds behind.
    pub last_seen_at_ms: i64,
    /// Since when the push service says that the token is another sender's, Unix milliseconds.
    pub suspect_since_ms: Option<i64>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .field("last_seen_at_ms", &self.last_seen_at_ms)
            .finish_non_exhaustive()
    }
}

impl From<Model> for Device {
    fn from(row: Model) -> Self {
        Self {
            user_id: row.user_id,
            device_id: row.device_id,
            platform: row.platform,
            target_kind: row.target_kind,
            push_token: row.push_token,
            created_at_ms: row.created_at,
            updated_at_ms: row.updated_at,
            last_seen_at_ms: row.last_seen_at,
            suspect_since_ms: row.suspect_since,
        }
    }
}

/// What registering a device found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutDevice {
    /// It is registered so.
    Put(Device),
    /// No such user.
    NoSuchUser,
    /// The log-in is over; its access token just lives on.
    LoggedOut,
}

impl Storage {
    /// Registers a device, or what is new of it. The token moves here from whoever held it. A user's device beyond
    /// [`MOST_DEVICES`] takes the place of the one that was unseen for longest.
    ///
    /// # Errors
    /// When the database fails; `Unavailable` also when others keep taking the same token.
    pub async fn put_device(&self, device: NewDevice) -> Result<PutDevice> {
        let mut tries = 0;
        loop {
            let transaction = self.begin().await?;
            match in_time(put(&transaction, &device)).await {
                Ok(put) => {
                    commit(transaction).await?;
                    return Ok(put);
                }
                // Somebody takes the same token at this moment: their row could not be seen, and can be now.
                Err(StorageError::Database(error))
                    if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) =>
                {
                    in_time(async { Ok(transaction.rollback().await?) }).await?;
                    tries += 1;
                    if tries == TRIES {
                        return Err(StorageError::Unavailable(error));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A user's devices, by their names.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn devices_of(&self, user: UserId) -> Result<Vec<Device>> {
        let rows: Vec<Model> = self.read_all(&of_user(user)).await?;
        Ok(rows.into_iter().map(Device::from).collect())
    }

    /// Forgets a device; one that is not there stays so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_device(&self, user: UserId, device: DeviceId) -> Result<()> {
        let delete = deleting(&[Key { user_id: user, device_id: device }]);
        self.reach(async { Ok(self.writer.execute(&delete).await?) }).await?;
        Ok(())
    }

    /// These devices were here now: raises when they were seen last, if that is an hour ago. Those that are not
    /// registered are passed over.
    ///
    /// # Errors
    /// When the database fails; then some may be noted, and noting all again does no harm.
    pub async fn seen(&self, devices: &[(UserId, DeviceId)], now_ms: i64) -> Result<()> {
        for some in devices.chunks(KEYS) {
            let raise = |keys: &[Key]| updating(keys).value(Column::LastSeenAt, now_ms).take();
            self.change_found(&seen_before(some, now_ms - SEEN_EVERY_MS), raise).await?;
        }
        Ok(())
    }

    /// Finds and locks devices, and then changes them by a second statement, which sees what the locks waited for.
    pub(crate) async fn change_found<S: sea_orm::StatementBuilder>(
        &self,
        find: &SelectStatement,
        change: impl FnOnce(&[Key]) -> S,
    ) -> Result<u64> {
        let transaction = self.begin().await?;
        let changed = in_time(async {
            let keys: Vec<Key> = rows::all(&transaction, find).await?;
            if keys.is_empty() {
                return Ok(0);
            }
            Ok(transaction.execute(&change(&keys)).await?.rows_affected())
        })
        .await?;
        commit(transaction).await?;
        Ok(changed)
    }
}

/// Forgets the devices of a log-in that this transaction ends: after the log-in's row is locked and revoked, so that
/// none can be registered by it any more.
pub(crate) async fn forget_login(transaction: &DatabaseTransaction, login: Uuid) -> Result<()> {
    let keys: Vec<Key> = rows::all(transaction, &of_login(login)).await?;
    if !keys.is_empty() {
        transaction.execute(&deleting(&keys)).await?;
    }
    Ok(())
}

/// Locks before it writes: the log-in, the user (so that there are never too many devices), then devices in order of
/// their keys, as everybody here does who waits for such a lock.
async fn put(transaction: &DatabaseTransaction, new: &NewDevice) -> Result<PutDevice> {
    if let Some(login) = new.login {
        let login = logins::Entity::find_by_id(login).lock_shared().one(transaction).await?;
        if login.is_some_and(|login| login.revoked) {
            return Ok(PutDevice::LoggedOut);
        }
    }
    if transaction.query_one(&locking_user(new.user_id)).await?.is_none() {
        return Ok(PutDevice::NoSuchUser);
    }
    let there: Vec<Model> =
        rows::all(transaction, &around(new.user_id, new.target_kind, new.push_token.clone())).await?;
    let same_device = |row: &Model| row.user_id == new.user_id && row.device_id == new.device_id;
    let same_token = |row: &Model| row.target_kind == new.target_kind && row.push_token == new.push_token;
    let (holder, mut others): (Vec<&Model>, Vec<&Model>) =
        there.iter().filter(|row| !same_device(row)).partition(|row| same_token(row));
    others.sort_unstable_by_key(|row| Reverse(row.last_seen_at));
    let gone: Vec<Key> = holder.into_iter().chain(others.into_iter().skip(MOST_DEVICES - 1)).map(Key::of).collect();
    if !gone.is_empty() {
        transaction.execute(&deleting(&gone)).await?;
    }

    let before = there.iter().find(|row| same_device(row));
    let row = Model {
        user_id: new.user_id,
        device_id: new.device_id.clone(),
        platform: new.platform,
        target_kind: new.target_kind,
        push_token: new.push_token.clone(),
        last_seen_at: new.now_ms,
        created_at: before.map_or(new.now_ms, |before| before.created_at),
        updated_at: before.filter(|before| same_token(before)).map_or(new.now_ms, |before| before.updated_at),
        login_id: new.login,
        suspect_since: None,
    };
    // Last, for it may wait for another user's row with the same token: whoever waits so has nothing left to lock.
    upsert(transaction, row.clone()).await?;
    Ok(PutDevice::Put(row.into()))
}

async fn upsert(transaction: &DatabaseTransaction, row: Model) -> Result<()> {
    let columns = Column::iter().filter(|column| !matches!(column, Column::UserId | Column::DeviceId));
    let mut replace = OnConflict::columns([Column::UserId, Column::DeviceId]);
    replace.update_columns(columns);
    let row = ActiveModel {
        user_id: Set(row.user_id),
        device_id: Set(row.device_id),
        platform: Set(row.platform),
        target_kind: Set(row.target_kind),
        push_token: Set(row.push_token),
        last_seen_at: Set(row.last_seen_at),
        created_at: Set(row.created_at),
        updated_at: Set(row.updated_at),
        login_id: Set(row.login_id),
        suspect_since: Set(row.suspect_since),
    };
    Entity::insert(row).on_conflict(replace).exec_without_returning(transaction).await?;
    Ok(())
}

#[derive(Clone, FromQueryResult)]
pub(crate) struct Key {
    pub(crate) user_id: UserId,
    pub(crate) device_id: DeviceId,
}

impl Key {
    fn of(row: &Model) -> Self {
        Self { user_id: row.user_id, device_id: row.device_id.clone() }
    }
}

fn locking_user(user: UserId) -> SelectStatement {
    let is_user = Expr::col(users::Column::Id).eq(user);
    Query::select().column(users::Column::Id).from(users::Entity).and_where(is_user).lock(LockType::NoKeyUpdate).take()
}

/// A user's devices, and whoever has this token.
pub(crate) fn around(user: UserId, kind: TargetKind, token: String) -> SelectStatement {
    let has_token = Expr::col(Column::TargetKind).eq(kind).and(Expr::col(Column::PushToken).eq(token));
    Query::select()
        .columns(Column::iter())
        .from(Entity)
        .cond_where(Cond::any().add(Expr::col(Column::UserId).eq(user)).add(has_token))
        .order_by(Column::UserId, Order::Asc)
        .order_by(Column::DeviceId, Order::Asc)
        .lock(LockType::Update)
        .take()
}

pub(crate) fn of_user(user: UserId) -> SelectStatement {
    Query::select()
        .columns(Column::iter())
        .from(Entity)
        .and_where(Expr::col(Column::UserId).eq(user))
        .order_by(Column::DeviceId, Order::Asc)
        .take()
}

pub(crate) fn of_login(login: Uuid) -> SelectStatement {
    in_order(Query::select().from(Entity).and_where(Expr::col(Column::LoginId).eq(login)).take())
}

/// Passes over locked rows: whoever holds one registers, suspects or forgets the device.
pub(crate) fn seen_before(devices: &[(UserId, DeviceId)], before_ms: i64) -> SelectStatement {
    Query::select()
        .columns([Column::UserId, Column::DeviceId].map(|column| (Entity, column)))
        .from_values(devices.iter().cloned(), "keys")
        .inner_join(Entity, named())
        .and_where(Expr::col((Entity, Column::LastSeenAt)).lt(before_ms))
        .lock_with_tables_behavior(LockType::Update, [Entity], LockBehavior::SkipLocked)
        .take()
}

/// The device that a row of `keys` names.
pub(crate) fn named() -> Expr {
    let column = |column: Column| Expr::col((Entity, column));
    column(Column::UserId).equals(("keys", "column1")).and(column(Column::DeviceId).equals(("keys", "column2")))
}

/// The keys of what is selected, locked in their order, so that nobody waits for another crosswise.
pub(crate) fn in_order(mut select: SelectStatement) -> SelectStatement {
    select
        .columns([Column::UserId, Column::DeviceId].map(|column| (Entity, column)))
        .order_by((Entity, Column::UserId), Order::Asc)
        .order_by((Entity, Column::DeviceId), Order::Asc)
        .lock_with_tables(LockType::Update, [Entity])
        .take()
}

pub(crate) fn deleting(keys: &[Key]) -> DeleteStatement {
    Query::delete().from_table(Entity).and_where(among(keys)).take()
}

pub(crate) fn updating(keys: &[Key]) -> UpdateStatement {
    Query::update().table(Entity).and_where(among(keys)).take()
}

fn among(keys: &[Key]) -> Expr {
    let keys = keys.iter().map(|key| (key.user_id, key.device_id.clone()));
    let keys = Query::select().columns(["column1", "column2"]).from_values(keys, "keys").take();
    Expr::tuple([Expr::col(Column::UserId), Expr::col(Column::DeviceId)]).in_subquery(keys)
}
