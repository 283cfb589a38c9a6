//! The maps as the mirror needs them, so that it can be tested without a kernel.

use ovs_ebpf_common::abi::{
    FdbKey, FdbValue, IndexKey, PortValue, TunnelIndexValue, TunnelValue, VXLAN_PORTS,
};

use crate::bridge::model::IfIndex;
use crate::datapath::{TableError, Tables, Written};

/// What an earlier daemon left is read from.
pub trait MapReader {
    /// What a read fails with.
    type Error;
    /// The UDP ports of the VXLAN tunnels.
    fn vxlan_ports(&self) -> Result<[u16; VXLAN_PORTS], Self::Error>;
    /// All ports.
    fn ports(&self) -> Result<Vec<(IfIndex, PortValue)>, Self::Error>;
    /// All FDB entries.
    fn fdb(&self) -> Result<Vec<(FdbKey, FdbValue)>, Self::Error>;
    /// A tunnel, whichever of its paths is in use.
    fn tunnel(&self, id: u32) -> Result<TunnelValue, Self::Error>;
    /// What received packets of each tunnel belong to.
    fn tunnel_index(&self) -> Result<Vec<(IndexKey, TunnelIndexValue)>, Self::Error>;
}

/// What a plan is written to.
pub trait MapWriter {
    /// What a write fails with.
    type Error;
    /// Sets the UDP ports of the VXLAN tunnels.
    fn set_vxlan_ports(&mut self, ports: [u16; VXLAN_PORTS]) -> Result<(), Self::Error>;
    /// Adds or replaces a port.
    fn set_port(&mut self, ifindex: IfIndex, value: PortValue) -> Result<(), Self::Error>;
    /// Removes a port.
    fn remove_port(&mut self, ifindex: IfIndex) -> Result<(), Self::Error>;
    /// Adds or replaces FDB entries, one after the other until the map is full. There is always room
    /// to replace.
    fn set_fdb(&mut self, entries: &[(FdbKey, FdbValue)]) -> Written<Self::Error>;
    /// Removes FDB entries.
    fn remove_fdb(&mut self, keys: &[FdbKey]) -> Written<Self::Error>;
    /// Sets a tunnel, whose wanted path is `value.paths[0]`.
    fn set_tunnel(&mut self, id: u32, value: &TunnelValue) -> Result<(), Self::Error>;
    /// Frees a tunnel's id.
    fn clear_tunnel(&mut self, id: u32) -> Result<(), Self::Error>;
    /// Adds or replaces what received packets of a tunnel belong to.
    fn set_tunnel_index(
        &mut self,
        key: &IndexKey,
        value: &TunnelIndexValue,
    ) -> Result<(), Self::Error>;
    /// Removes a tunnel from the index.
    fn remove_tunnel_index(&mut self, key: &IndexKey) -> Result<(), Self::Error>;
}

impl MapReader for Tables {
    type Error = TableError;

    fn vxlan_ports(&self) -> Result<[u16; VXLAN_PORTS], TableError> {
        self.vxlan_ports()
    }

    fn ports(&self) -> Result<Vec<(IfIndex, PortValue)>, TableError> {
        self.ports()
    }

    fn fdb(&self) -> Result<Vec<(FdbKey, FdbValue)>, TableError> {
        self.fdb()
    }

    fn tunnel(&self, id: u32) -> Result<TunnelValue, TableError> {
        self.tunnel(id)
    }

    fn tunnel_index(&self) -> Result<Vec<(IndexKey, TunnelIndexValue)>, TableError> {
        self.tunnel_index()
    }
}

impl MapWriter for Tables {
    type Error = TableError;

    fn set_vxlan_ports(&mut self, ports: [u16; VXLAN_PORTS]) -> Result<(), TableError> {
        self.set_vxlan_ports(ports)
    }

    fn set_port(&mut self, ifindex: IfIndex, value: PortValue) -> Result<(), TableError> {
        self.set_port(ifindex, value)
    }

    fn remove_port(&mut self, ifindex: IfIndex) -> Result<(), TableError> {
        self.remove_port(ifindex)
    }

    fn set_fdb(&mut self, entries: &[(FdbKey, FdbValue)]) -> Written<TableError> {
        self.set_fdb(entries)
    }

    fn remove_fdb(&mut self, keys: &[FdbKey]) -> Written<TableError> {
        self.remove_fdb(keys)
    }

    fn set_tunnel(&mut self, id: u32, value: &TunnelValue) -> Result<(), TableError> {
        self.set_tunnel(id, value)
    }

    fn clear_tunnel(&mut self, id: u32) -> Result<(), TableError> {
        self.clear_tunnel(id)
    }

    fn set_tunnel_index(
        &mut self,
        key: &IndexKey,
        value: &TunnelIndexValue,
    ) -> Result<(), TableError> {
        self.set_tunnel_index(key, value)
    }

    fn remove_tunnel_index(&mut self, key: &IndexKey) -> Result<(), TableError> {
        self.remove_tunnel_index(key)
    }
}
