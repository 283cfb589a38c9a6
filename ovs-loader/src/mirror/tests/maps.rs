//! Maps in memory that check, at every write, what the programs rely on.

use std::collections::BTreeMap;

use ovs_ebpf_common::abi::{
    FdbFlags, FdbKey, FdbValue, IndexKey, PortValue, TunnelIndexValue, TunnelValue, VXLAN_PORTS,
};

use crate::bridge::model::IfIndex;
use crate::datapath::Written;
use crate::mirror::{MapReader, MapWriter};

/// A write that the fake was told to refuse.
#[derive(Debug)]
pub(super) struct Broken;

#[derive(Clone, Debug, Default)]
pub(super) struct Maps {
    pub(super) contents: Contents,
    /// How many FDB entries there is room for.
    pub(super) capacity: usize,
    /// How many writes were tried.
    pub(super) writes: usize,
    /// How many more writes succeed.
    pub(super) breaks_after: Option<usize>,
    /// What the tunnel of each FDB entry meant when the entry was written.
    meanings: BTreeMap<FdbKey, IndexKey>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) ports: BTreeMap<IfIndex, PortValue>,
    pub(super) fdb: BTreeMap<FdbKey, FdbValue>,
    pub(super) tunnels: BTreeMap<u32, TunnelValue>,
    pub(super) index: BTreeMap<IndexKey, TunnelIndexValue>,
    pub(super) vxlan_ports: [u16; VXLAN_PORTS],
}

impl Maps {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    fn meaning(&self, id: u32) -> Option<IndexKey> {
        let mut keys = self.contents.index.iter().filter(|(_, value)| value.tunnel == id);
        let found = keys.next().map(|(key, _)| *key);
        assert!(keys.next().is_none(), "tunnel {id} is in the index twice");
        found
    }

    /// Counts a write, or refuses it.
    fn write(&mut self) -> Result<(), Broken> {
        self.writes += 1;
        match &mut self.breaks_after {
            Some(0) => return Err(Broken),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    /// Gives whether there was room.
    fn set_one(&mut self, key: &FdbKey, value: &FdbValue) -> Result<bool, Broken> {
        self.write()?;
        let fdb = &mut self.contents.fdb;
        if fdb.len() >= self.capacity && !fdb.contains_key(key) {
            return Ok(false);
        }
        fdb.insert(*key, *value);
        self.meanings.remove(key);
        if value.flags & FdbFlags::TUNNEL != 0 {
            let meaning = self.meaning(value.target).expect("a new FDB entry's tunnel is there");
            self.meanings.insert(*key, meaning);
        }
        self.check();
        Ok(true)
    }

    fn check(&self) {
        for (key, value) in &self.contents.index {
            assert!(self.contents.tunnels.contains_key(&value.tunnel), "{key:?} names no tunnel");
        }
        for (key, value) in &self.contents.fdb {
            if value.flags & FdbFlags::TUNNEL != 0 {
                let id = value.target;
                assert!(self.contents.tunnels.contains_key(&id), "{key:?} points at no tunnel");
                let meaning = self.meaning(id).expect("an FDB entry's tunnel is in the index");
                assert_eq!(meaning, self.meanings[key], "tunnel {id} got another meaning");
                let index = self.contents.index[&meaning];
                assert_eq!(index.bridge, key.bridge);
                if value.flags & FdbFlags::TAGGED == 0 {
                    assert_eq!(index.vlan, key.vlan, "tunnel {id} is another VLAN's");
                }
            }
        }
    }
}

impl MapWriter for Maps {
    type Error = Broken;

    fn set_vxlan_ports(&mut self, ports: [u16; VXLAN_PORTS]) -> Result<(), Broken> {
        self.write()?;
        self.contents.vxlan_ports = ports;
        Ok(())
    }

    fn set_port(&mut self, ifindex: IfIndex, value: PortValue) -> Result<(), Broken> {
        self.write()?;
        self.contents.ports.insert(ifindex, value);
        Ok(())
    }

    fn remove_port(&mut self, ifindex: IfIndex) -> Result<(), Broken> {
        self.write()?;
        self.contents.ports.remove(&ifindex).expect("a removed port was there");
        Ok(())
    }

    fn set_fdb(&mut self, entries: &[(FdbKey, FdbValue)]) -> Written<Broken> {
        for (done, (key, value)) in entries.iter().enumerate() {
            match self.set_one(key, value) {
                Ok(true) => {}
                outcome => return Written { done, outcome: outcome.map(drop) },
            }
        }
        Written { done: entries.len(), outcome: Ok(()) }
    }

    fn remove_fdb(&mut self, keys: &[FdbKey]) -> Written<Broken> {
        for (done, key) in keys.iter().enumerate() {
            if let Err(broken) = self.write() {
                return Written { done, outcome: Err(broken) };
            }
            self.contents.fdb.remove(key).expect("a removed FDB entry was there");
        }
        Written { done: keys.len(), outcome: Ok(()) }
    }

    fn set_tunnel(&mut self, id: u32, value: &TunnelValue) -> Result<(), Broken> {
        self.write()?;
        self.contents.tunnels.insert(id, *value);
        self.check();
        Ok(())
    }

    fn clear_tunnel(&mut self, id: u32) -> Result<(), Broken> {
        self.write()?;
        self.contents.tunnels.remove(&id).expect("a cleared tunnel was there");
        self.check();
        Ok(())
    }

    fn set_tunnel_index(&mut self, key: &IndexKey, value: &TunnelIndexValue) -> Result<(), Broken> {
        self.write()?;
        self.contents.index.insert(*key, *value);
        self.check();
        Ok(())
    }

    fn remove_tunnel_index(&mut self, key: &IndexKey) -> Result<(), Broken> {
        self.write()?;
        self.contents.index.remove(key).expect("a removed tunnel was in the index");
        self.check();
        Ok(())
    }
}

impl MapReader for Maps {
    type Error = Broken;

    fn vxlan_ports(&self) -> Result<[u16; VXLAN_PORTS], Broken> {
        Ok(self.contents.vxlan_ports)
    }

    fn ports(&self) -> Result<Vec<(IfIndex, PortValue)>, Broken> {
        Ok(self.contents.ports.clone().into_iter().collect())
    }

    fn fdb(&self) -> Result<Vec<(FdbKey, FdbValue)>, Broken> {
        let visited = |value| FdbValue { next_revalidation: 12_345, ..value };
        Ok(self.contents.fdb.iter().map(|(key, value)| (*key, visited(*value))).collect())
    }

    fn tunnel(&self, id: u32) -> Result<TunnelValue, Broken> {
        // As the kernel's map may have it: the other slot in use, an old path in the first.
        let mut value = self.contents.tunnels[&id];
        value.paths.swap(0, 1);
        value.active = 1;
        value.paths[0].mtu = 1;
        Ok(value)
    }

    fn tunnel_index(&self) -> Result<Vec<(IndexKey, TunnelIndexValue)>, Broken> {
        Ok(self.contents.index.clone().into_iter().collect())
    }
}
