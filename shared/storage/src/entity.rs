//! The tables as SeaORM sees them. A table or column that this crate does not use yet is not here yet.

pub(crate) mod users {
    use sea_orm::entity::prelude::*;
    use touchline_ids::UserId;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) id: UserId,
        pub(crate) handle: String,
        pub(crate) display_name: String,
        pub(crate) password_hash: Option<String>,
        pub(crate) created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod identities {
    use sea_orm::entity::prelude::*;
    use touchline_ids::UserId;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identities")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) issuer: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) subject: String,
        pub(crate) user_id: UserId,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod logins {
    use sea_orm::entity::prelude::*;
    use touchline_ids::UserId;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "logins")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) id: Uuid,
        pub(crate) user_id: UserId,
        pub(crate) created_at: i64,
        pub(crate) expires_at: i64,
        pub(crate) revoked: bool,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod refresh_tokens {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "refresh_tokens")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) token_hash: Vec<u8>,
        pub(crate) login_id: Uuid,
        pub(crate) expires_at: i64,
        pub(crate) used_at: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod channels {
    use sea_orm::entity::prelude::*;
    use touchline_ids::{ChannelId, Seq};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "channels")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) id: ChannelId,
        pub(crate) name: String,
        pub(crate) last_seq: Seq,
        pub(crate) members_version: i64,
        pub(crate) created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod members {
    use crate::{NotifyLevel, Role};
    use sea_orm::entity::prelude::*;
    use touchline_ids::{ChannelId, Seq, UserId};

    /// `left_seq` of an interval that has not ended.
    pub(crate) const OPEN: Seq = Seq(i64::MAX);

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "members")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) channel_id: ChannelId,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) user_id: UserId,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) joined_seq: Seq,
        pub(crate) role: Role,
        pub(crate) left_seq: Seq,
        pub(crate) read_seq: Seq,
        pub(crate) delivered_seq: Seq,
        pub(crate) notify_level: NotifyLevel,
        pub(crate) muted_until: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod messages {
    use crate::Kind;
    use sea_orm::entity::prelude::*;
    use touchline_ids::{ChannelId, Check, ClientMessageId, MessageId, Seq, UserId};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "messages")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) channel_id: ChannelId,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) seq: Seq,
        pub(crate) id: MessageId,
        pub(crate) sender_id: UserId,
        pub(crate) client_message_id: Option<ClientMessageId>,
        pub(crate) body_hash: Option<Vec<u8>>,
        pub(crate) kind: Kind,
        #[sea_orm(column_type = "Text")]
        pub(crate) content: String,
        pub(crate) created_at: i64,
        pub(crate) prev: Option<Check>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod outbox {
    use sea_orm::entity::prelude::*;
    use touchline_ids::{ChannelId, Seq};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "outbox")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) channel_id: ChannelId,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) seq: Seq,
        pub(crate) owner: Uuid,
        pub(crate) claim_until: i64,
        pub(crate) attempts: i32,
        pub(crate) no_push: bool,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod notifications {
    use sea_orm::entity::prelude::*;
    use touchline_ids::{ChannelId, Seq, UserId};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notifications")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) user_id: UserId,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) channel_id: ChannelId,
        pub(crate) max_seq: Seq,
        pub(crate) count: i64,
        pub(crate) not_before: i64,
        pub(crate) noted_at: i64,
        pub(crate) sent_seq: Seq,
        pub(crate) sent_at: i64,
        pub(crate) attempts: i32,
        pub(crate) tries: i32,
        pub(crate) owner: Option<Uuid>,
        pub(crate) claim_until: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod notification_walks {
    use sea_orm::entity::prelude::*;
    use touchline_ids::{ChannelId, Seq, UserId};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notification_walks")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) channel_id: ChannelId,
        pub(crate) max_seq: Seq,
        pub(crate) walk_seq: Seq,
        pub(crate) walked_seq: Seq,
        pub(crate) after_user_id: Option<UserId>,
        pub(crate) not_before: i64,
        pub(crate) noted_at: i64,
        pub(crate) attempts: i32,
        pub(crate) owner: Option<Uuid>,
        pub(crate) claim_until: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod mentions {
    use sea_orm::entity::prelude::*;
    use touchline_ids::{ChannelId, Seq, UserId};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "mentions")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) user_id: UserId,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) channel_id: ChannelId,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) seq: Seq,
        pub(crate) created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod quiet_hours {
    use sea_orm::entity::prelude::*;
    use touchline_ids::UserId;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "quiet_hours")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) user_id: UserId,
        pub(crate) from_minute: i32,
        pub(crate) to_minute: i32,
        pub(crate) time_zone: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod devices {
    use crate::{Platform, TargetKind};
    use sea_orm::entity::prelude::*;
    use touchline_ids::{DeviceId, UserId};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "devices")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) user_id: UserId,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) device_id: DeviceId,
        pub(crate) platform: Platform,
        pub(crate) target_kind: TargetKind,
        pub(crate) push_token: String,
        pub(crate) last_seen_at: i64,
        pub(crate) created_at: i64,
        pub(crate) updated_at: i64,
        pub(crate) login_id: Option<Uuid>,
        pub(crate) suspect_since: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod push_outcomes {
    use crate::PushOutcome;
    use sea_orm::entity::prelude::*;
    use touchline_ids::{ChannelId, DeviceId, Seq, UserId};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "push_outcomes")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) channel_id: ChannelId,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) seq: Seq,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) user_id: UserId,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) device_id: DeviceId,
        pub(crate) after_seq: Seq,
        pub(crate) outcome: PushOutcome,
        pub(crate) answer: String,
        pub(crate) tries: i32,
        pub(crate) at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
