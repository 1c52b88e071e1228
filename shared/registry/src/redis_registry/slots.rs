//! Which master of a Cluster holds which slots, as far as it takes to send one pipeline per master. Being wrong costs
//! a detour, never an answer: the nodes themselves refuse what is not theirs.

use redis::Value;

/// Number of slots of a Cluster.
const SLOTS: usize = 16_384;

/// CRC-16/XMODEM, which Redis' cluster specification prescribes.
const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The slot of a key without a hash tag, or of a hash tag.
pub(super) fn slot(key: &[u8]) -> u16 {
    let crc = key.iter().fold(0u16, |crc, byte| (crc << 8) ^ CRC[usize::from((crc >> 8) as u8 ^ byte)]);
    crc % SLOTS as u16
}

/// One master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Master {
    /// Host and port as the Cluster names them.
    pub(super) address: String,
    /// One of its slots, to route by.
    pub(super) slot: u16,
    /// A hash tag that lies on it.
    pub(super) tag: String,
}

/// Masters and their slots at some moment.
#[derive(Debug)]
pub(super) struct SlotMap {
    masters: Vec<Master>,
    owner: Vec<u16>,
}

impl SlotMap {
    /// Nothing known: everything goes to one imagined master, whose pipeline is then refused and sent call by call.
    pub(super) fn unknown() -> Self {
        Self { masters: vec![master(String::new(), 0, |_| true)], owner: vec![0; SLOTS] }
    }

    /// Reads the answer to `CLUSTER SLOTS`; `None` when it makes no sense or names no master.
    pub(super) fn read(answer: &Value) -> Option<Self> {
        let Value::Array(ranges) = answer else { return None };
        let (mut addresses, mut owner) = (Vec::<(String, u16)>::new(), vec![0; SLOTS]);
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(node), ..] = range.as_slice() else { return None };
            let [host, Value::Int(port), ..] = node.as_slice() else { return None };
            let host = match host {
                Value::BulkString(host) => String::from_utf8_lossy(host).into_owned(),
                _ => String::new(),
            };
            let (address, first, last) = (format!("{host}:{port}"), u16::try_from(*first).ok()?, *last as usize);
            let index = addresses.iter().position(|(known, _)| *known == address).unwrap_or_else(|| {
                addresses.push((address, first));
                addresses.len() - 1
            });
            owner.get_mut(usize::from(first)..=last)?.fill(u16::try_from(index).ok()?);
        }
        if addresses.is_empty() {
            return None;
        }
        let lies_on = |index: usize, slot: u16| usize::from(owner[usize::from(slot)]) == index;
        let masters = addresses.into_iter().enumerate();
        let masters = masters.map(|(index, (address, first))| master(address, first, |slot| lies_on(index, slot)));
        Some(Self { masters: masters.collect(), owner })
    }

    pub(super) fn masters(&self) -> &[Master] {
        &self.masters
    }

    /// Position in [`SlotMap::masters`] of the one that holds `slot`.
    pub(super) fn owner(&self, slot: u16) -> usize {
        usize::from(self.owner[usize::from(slot)])
    }
}

fn master(address: String, slot: u16, holds: impl Fn(u16) -> bool) -> Master {
    // Some ten tries for each master there is; a master with few slots may go without, which only weakens its mark.
    let tag = (0..100_000).map(|n: u32| n.to_string()).find(|tag| holds(self::slot(tag.as_bytes())));
    Master { address, slot, tag: tag.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, port: i64) -> Value {
        let node = Value::Array(vec![Value::BulkString(b"10.0.0.1".to_vec()), Value::Int(port)]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node])
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b""), 0);
    }

    #[test]
    fn every_slot_has_its_master_and_every_master_a_tag() {
        let answer = Value::Array(vec![range(0, 99, 1), range(100, 9_999, 2), range(10_000, 16_383, 1)]);
        let map = SlotMap::read(&answer).unwrap();
        let addresses: Vec<_> = map.masters().iter().map(|master| master.address.as_str()).collect();
        assert_eq!(addresses, ["10.0.0.1:1", "10.0.0.1:2"]);
        assert_eq!([0, 99, 100, 9_999, 10_000, 16_383].map(|slot| map.owner(slot)), [0, 0, 1, 1, 0, 0]);
        for (index, master) in map.masters().iter().enumerate() {
            assert_eq!(map.owner(slot(master.tag.as_bytes())), index);
            assert_eq!(map.owner(master.slot), index);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for answer in [Value::Nil, Value::Array(vec![]), Value::Array(vec![range(0, 16_384, 1)])] {
            assert!(SlotMap::read(&answer).is_none(), "{answer:?}");
        }
    }
}
