//! Tunnel ids: which element of the `tunnels` map a tunnel has.

use std::collections::{BTreeMap, BTreeSet};

use ovs_ebpf_common::abi::{IndexKey, TUNNEL_CAPACITY};

/// Ids by what identifies a tunnel. Stable as long as the tunnel is wanted, across restarts too, and
/// not given away again soon: a packet on its way may still hold a freed one.
#[derive(Clone, Debug, Default)]
pub struct TunnelIds {
    ids: BTreeMap<IndexKey, u32>,
    taken: BTreeSet<u32>,
    last: u32,
}

impl TunnelIds {
    /// Starts from the ids an earlier daemon gave.
    pub fn adopt(ids: impl IntoIterator<Item = (IndexKey, u32)>) -> Self {
        let ids: BTreeMap<_, _> = ids.into_iter().collect();
        let taken: BTreeSet<_> = ids.values().copied().collect();
        let last = taken.last().copied().unwrap_or(0);
        Self { ids, taken, last }
    }

    /// The tunnel's id, a new one if it has none. `None` when all are taken.
    pub fn id(&mut self, key: &IndexKey) -> Option<u32> {
        if let Some(&id) = self.ids.get(key) {
            return Some(id);
        }
        let capacity = TUNNEL_CAPACITY as u32;
        // From the last one on, round and round; 0 is never used.
        let id = (1..capacity)
            .map(|step| (self.last + step - 1) % (capacity - 1) + 1)
            .find(|id| !self.taken.contains(id))?;
        self.ids.insert(*key, id);
        self.taken.insert(id);
        self.last = id;
        Some(id)
    }

    /// Frees the ids of all tunnels but these.
    pub fn retain(&mut self, wanted: impl Fn(&IndexKey) -> bool) {
        self.ids.retain(|key, id| wanted(key) || !self.taken.remove(id));
    }
}

#[cfg(test)]
mod tests {
    use ovs_ebpf_common::abi::TunnelIndexKey;

    use super::*;

    fn key(n: u32) -> IndexKey {
        IndexKey::Ipv4(TunnelIndexKey { remote: n.to_be_bytes(), ..TunnelIndexKey::default() })
    }

    #[test]
    fn an_id_stays_and_a_freed_one_is_not_given_away_at_once() {
        let mut ids = TunnelIds::default();
        assert_eq!(ids.id(&key(1)), Some(1));
        assert_eq!(ids.id(&key(2)), Some(2));
        assert_eq!(ids.id(&key(1)), Some(1));
        ids.retain(|k| *k != key(2));
        assert_eq!(ids.id(&key(3)), Some(3));
    }

    #[test]
    fn adopted_ids_are_kept_and_not_given_twice() {
        let mut ids = TunnelIds::adopt([(key(9), 7)]);
        assert_eq!(ids.id(&key(1)), Some(8));
        assert_eq!(ids.id(&key(9)), Some(7));
    }

    #[test]
    fn every_id_but_zero_can_be_given_and_then_none() {
        let mut ids = TunnelIds::default();
        let given: std::collections::BTreeSet<_> =
            (1..TUNNEL_CAPACITY as u32).map(|n| ids.id(&key(n)).unwrap()).collect();
        assert_eq!(given.len(), TUNNEL_CAPACITY - 1);
        assert_eq!(given.first(), Some(&1));
        assert_eq!(given.last(), Some(&(TUNNEL_CAPACITY as u32 - 1)));
        assert_eq!(ids.id(&key(0)), None);
    }
}
