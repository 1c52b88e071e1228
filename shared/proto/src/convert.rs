//! Packed ids: 16 bytes each, one after another. 10,000 recipients are one allocation and one copy.

use crate::push::{Acks, PushAnswer, PushResult, push_answer::Answer};
use bytes::{Bytes, BytesMut};
use touchline_ids::{InvalidId, UserId};

/// Bytes of one packed id.
pub const ID_LEN: usize = 16;

/// Packs user ids, 16 bytes each.
pub fn pack_users<'a>(users: impl ExactSizeIterator<Item = &'a UserId>) -> Bytes {
    let mut packed = BytesMut::with_capacity(users.len() * ID_LEN);
    for user in users {
        packed.extend_from_slice(user.as_bytes());
    }
    packed.freeze()
}

/// The user ids in a packed list.
///
/// # Errors
/// [`InvalidId`] when the length is not a multiple of 16.
pub fn unpack_users(packed: &[u8]) -> Result<impl ExactSizeIterator<Item = UserId> + '_, InvalidId> {
    let (ids, rest) = packed.as_chunks::<ID_LEN>();
    if rest.is_empty() { Ok(ids.iter().map(|id| UserId(uuid::Uuid::from_bytes(*id)))) } else { Err(InvalidId) }
}

impl From<PushResult> for PushAnswer {
    fn from(result: PushResult) -> Self {
        Self { answer: Some(Answer::Result(result)) }
    }
}

impl From<Acks> for PushAnswer {
    fn from(acks: Acks) -> Self {
        Self { answer: Some(Answer::Acks(acks)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_users_come_back_in_order() {
        let users: Vec<_> = (0..100).map(|_| UserId::new()).collect();
        let packed = pack_users(users.iter());
        assert_eq!(packed.len(), 1600);
        assert_eq!(unpack_users(&packed).map(Vec::from_iter), Ok(users));
        assert!(unpack_users(&packed[1..]).is_err());
    }
}
