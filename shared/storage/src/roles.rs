//! What a member may do to a channel, by role.

use crate::Action;
use sea_orm::{DeriveActiveEnum, EnumIter, sea_query::StringLen};
use serde::{Deserialize, Serialize};
use touchline_ids::UserId;

/// A member's role in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, EnumIter, DeriveActiveEnum)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))", rename_all = "snake_case")]
pub enum Role {
    /// Exactly one, except in a channel everybody left: may do everything, and leaves last or hands over.
    Owner,
    /// Renames, adds, and removes plain members.
    Admin,
    /// Reads, writes and leaves.
    Member,
}

impl Role {
    /// As stored, and as clients see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }
}

/// What the roles say to an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// It is so already.
    Unchanged,
    Forbidden,
    NoSuchMember,
    OwnerMustHandOver,
}

/// Whether `actor` in the role `role` may do `action` to a member in the role `target` (`None`: not in the channel, or
/// the action has no target). `alone`: nobody else is in the channel.
pub(crate) fn judge(actor: UserId, role: Role, action: &Action, target: Option<Role>, alone: bool) -> Verdict {
    use Verdict::{Allowed, Forbidden, NoSuchMember, OwnerMustHandOver, Unchanged};
    match (action, role) {
        (Action::Remove(user), Role::Owner) if *user == actor => {
            if alone {
                Allowed
            } else {
                OwnerMustHandOver
            }
        }
        (Action::Remove(user), _) if *user == actor => Allowed,
        // Whoever may not do it to anybody learns nothing of who is there.
        (_, Role::Member) => Forbidden,
        (Action::Rename(_), Role::Owner | Role::Admin) => Allowed,
        (Action::Add { role: Role::Member, .. }, Role::Owner | Role::Admin) => Allowed,
        (Action::Add { role: Role::Admin, .. }, Role::Owner) => Allowed,
        // A second owner, or an admin who makes another admin.
        (Action::Add { .. }, _) => Forbidden,
        (Action::Remove(_), Role::Owner | Role::Admin) => match (role, target) {
            (_, None) => NoSuchMember,
            (Role::Owner, Some(_)) | (_, Some(Role::Member)) => Allowed,
            (_, Some(Role::Owner | Role::Admin)) => Forbidden,
        },
        (Action::SetRole { .. }, Role::Admin) => Forbidden,
        (Action::SetRole { user, role: new }, Role::Owner) => match target {
            None => NoSuchMember,
            Some(old) if old == *new => Unchanged,
            // The owner themself: they step down by making another one owner.
            Some(_) if *user == actor => OwnerMustHandOver,
            Some(_) => Allowed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::{Admin, Member, Owner};
    use Verdict::{Allowed, Forbidden, NoSuchMember, OwnerMustHandOver, Unchanged};

    /// What an owner, an admin and a member hear.
    fn heard(action: &Action, target: Option<Role>) -> [Verdict; 3] {
        [Owner, Admin, Member].map(|role| judge(UserId::new(), role, action, target, false))
    }

    #[test]
    fn roles_decide_what_one_does_to_others() {
        let other = UserId::new();
        let add = |role| Action::Add { users: vec![other], role };
        let set = |role| Action::SetRole { user: other, role };
        let remove = Action::Remove(other);
        #[rustfmt::skip]
        let table = [
            (Action::Rename("x".into()), None,         [Allowed,      Allowed,      Forbidden]),
            (add(Member),                None,         [Allowed,      Allowed,      Forbidden]),
            (add(Admin),                 None,         [Allowed,      Forbidden,    Forbidden]),
            (add(Owner),                 None,         [Forbidden,    Forbidden,    Forbidden]),
            (remove.clone(),             Some(Member), [Allowed,      Allowed,      Forbidden]),
            (remove.clone(),             Some(Admin),  [Allowed,      Forbidden,    Forbidden]),
            (remove.clone(),             Some(Owner),  [Allowed,      Forbidden,    Forbidden]),
            (remove,                     None,         [NoSuchMember, NoSuchMember, Forbidden]),
            (set(Admin),                 Some(Member), [Allowed,      Forbidden,    Forbidden]),
            (set(Member),                Some(Admin),  [Allowed,      Forbidden,    Forbidden]),
            (set(Owner),                 Some(Member), [Allowed,      Forbidden,    Forbidden]),
            (set(Admin),                 Some(Admin),  [Unchanged,    Forbidden,    Forbidden]),
            (set(Admin),                 None,         [NoSuchMember, Forbidden,    Forbidden]),
        ];
        for (action, target, expected) in table {
            assert_eq!(heard(&action, target), expected, "{action:?} to {target:?}");
        }
    }

    #[test]
    fn everybody_may_leave_but_an_owner_leaves_last() {
        let me = UserId::new();
        let leave = |role, alone| judge(me, role, &Action::Remove(me), Some(role), alone);
        assert_eq!(leave(Member, false), Allowed);
        assert_eq!(leave(Admin, false), Allowed);
        assert_eq!(leave(Owner, false), OwnerMustHandOver);
        assert_eq!(leave(Owner, true), Allowed);
    }

    #[test]
    fn an_owner_does_not_step_down_without_a_successor() {
        let me = UserId::new();
        let step = |role| judge(me, Owner, &Action::SetRole { user: me, role }, Some(Owner), false);
        assert_eq!(step(Owner), Unchanged);
        assert_eq!(step(Admin), OwnerMustHandOver);
        assert_eq!(step(Member), OwnerMustHandOver);
    }
}
