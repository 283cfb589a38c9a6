//! The maps with their types, and the update rules that keep a running program from seeing half of
//! a change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use nix::time::{ClockId, clock_gettime};
use ovs_ebpf_common::abi::{
    Control, FdbKey, FdbValue, GuardKey, GuardValue, IndexKey, PortValue, Program, ProgramCounters,
    SOURCE_CAPACITY, SourceCounters, SourceKey, TunnelCounters, TunnelFlags, TunnelIndexKey,
    TunnelIndexKey6, TunnelIndexValue, TunnelValue, UplinkValue, VXLAN_PORTS,
};
use ovs_ebpf_common::{PACKET_REASONS, Reason};

use super::batch::{BATCH, BatchMap, Written};
use crate::bridge::model::IfIndex;

/// A map could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's map is full.
    #[error("the map {0} is full")]
    Full(&'static str),
    /// Anything else: the map's name and what happened.
    #[error("cannot {what} the map {map}")]
    Map {
        /// What was tried.
        what: &'static str,
        /// The map.
        map: &'static str,
        /// What the kernel said.
        source: MapError,
    },
}

pub(super) fn error(what: &'static str, map: &'static str) -> impl FnOnce(MapError) -> Error {
    move |source| match &source {
        MapError::SyscallError(syscall)
            if syscall.io_error.raw_os_error() == Some(nix::libc::E2BIG) =>
        {
            Error::Full(map)
        }
        _ => Error::Map { what, map, source },
    }
}

/// One program's counters over all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets forwarded.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets left to the bridge, by reason; without zeros.
    pub reasons: Vec<(Reason, u64)>,
}

/// The maps.
pub struct Tables {
    control: Array<MapData, Control>,
    /// The last one written.
    generation: u64,
    ports: HashMap<MapData, u32, PortValue>,
    fdb: BatchMap<FdbKey, FdbValue>,
    tunnels: Array<MapData, TunnelValue>,
    tunnel_index: HashMap<MapData, TunnelIndexKey, TunnelIndexValue>,
    tunnel_index6: HashMap<MapData, TunnelIndexKey6, TunnelIndexValue>,
    counters: PerCpuArray<MapData, ProgramCounters>,
    tunnel_counters: PerCpuArray<MapData, TunnelCounters>,
    guards: HashMap<MapData, GuardKey, GuardValue>,
    uplinks: HashMap<MapData, u32, UplinkValue>,
    sources: HashMap<MapData, SourceKey, SourceCounters>,
}

impl Tables {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            control: take(ebpf, "control")?,
            // More than any daemon before has written: none makes one every nanosecond.
            generation: u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX),
            ports: take(ebpf, "ports")?,
            fdb: BatchMap::take(ebpf, "fdb")?,
            tunnels: take(ebpf, "tunnels")?,
            tunnel_index: take(ebpf, "tunnel_index")?,
            tunnel_index6: take(ebpf, "tunnel_index6")?,
            counters: take(ebpf, "counters")?,
            tunnel_counters: take(ebpf, "tunnel_counters")?,
            guards: take(ebpf, "guards")?,
            uplinks: take(ebpf, "xdp_uplinks")?,
            sources: take(ebpf, "xdp_sources")?,
        })
    }

    /// Allows the programs to forward for `lease` from now on; zero ends it at once.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn renew_lease(&mut self, lease: Duration) -> Result<(), Error> {
        let deadline = if lease.is_zero() { Duration::ZERO } else { monotonic() + lease };
        let deadline = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        self.set_control(|control| control.lease_deadline = deadline)
    }

    /// The UDP destination ports of the VXLAN tunnels, in network byte order.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn vxlan_ports(&self) -> Result<[u16; VXLAN_PORTS], Error> {
        self.control.get(&0, 0).map(|control| control.vxlan_ports).map_err(error("read", "control"))
    }

    /// Sets the UDP destination ports of the VXLAN tunnels.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_vxlan_ports(&mut self, ports: [u16; VXLAN_PORTS]) -> Result<(), Error> {
        self.set_control(|control| control.vxlan_ports = ports)
    }

    /// Each time with a new generation: a program may have forgotten all flows since the last one was
    /// written, and they must not come back.
    fn set_control(&mut self, change: impl FnOnce(&mut Control)) -> Result<(), Error> {
        let mut control = self.control.get(&0, 0).map_err(error("read", "control"))?;
        change(&mut control);
        self.generation += 1;
        control.generation = self.generation;
        self.control.set(0, control, 0).map_err(error("write", "control"))
    }

    /// All ports.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn ports(&self) -> Result<Vec<(IfIndex, PortValue)>, Error> {
        self.ports.iter().collect::<Result<_, _>>().map_err(error("read", "ports"))
    }

    /// Adds or replaces a port.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_port(&mut self, ifindex: IfIndex, value: PortValue) -> Result<(), Error> {
        self.ports.insert(ifindex, value, 0).map_err(error("write", "ports"))?;
        self.forget_flows()
    }

    /// Removes a port, if it is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove_port(&mut self, ifindex: IfIndex) -> Result<(), Error> {
        absent_is_fine(self.ports.remove(&ifindex)).map_err(error("write", "ports"))?;
        self.forget_flows()
    }

    /// All FDB entries.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn fdb(&self) -> Result<Vec<(FdbKey, FdbValue)>, Error> {
        self.fdb.entries()
    }

    /// Adds or replaces FDB entries, in this order, until the map is full.
    ///
    /// The programs hear of it batch by batch.
    pub fn set_fdb(&mut self, entries: &[(FdbKey, FdbValue)]) -> Written<Error> {
        self.change_fdb(entries, BatchMap::set)
    }

    /// Removes the FDB entries that are there.
    pub fn remove_fdb(&mut self, keys: &[FdbKey]) -> Written<Error> {
        self.change_fdb(keys, BatchMap::remove)
    }

    fn change_fdb<T>(
        &mut self,
        items: &[T],
        write: impl Fn(&mut BatchMap<FdbKey, FdbValue>, &[T]) -> Written<Error>,
    ) -> Written<Error> {
        let mut done = 0;
        for batch in items.chunks(BATCH) {
            let written = write(&mut self.fdb, batch);
            done += written.done;
            let outcome = written.outcome.and(self.forget_flows());
            if outcome.is_err() || written.done < batch.len() {
                return Written { done, outcome };
            }
        }
        Written { done, outcome: Ok(()) }
    }

    /// Has the programs look everything up again, after a change.
    fn forget_flows(&mut self) -> Result<(), Error> {
        // They read the generation first and the tables then; here it is the other way round.
        fence(Ordering::SeqCst);
        self.set_control(|_| ())
    }

    /// All tunnels in the index.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn tunnel_index(&self) -> Result<Vec<(IndexKey, TunnelIndexValue)>, Error> {
        let over_ipv4 = self.tunnel_index.iter().map(|entry| {
            entry
                .map(|(key, value)| (IndexKey::Ipv4(key), value))
                .map_err(error("read", "tunnel_index"))
        });
        let over_ipv6 = self.tunnel_index6.iter().map(|entry| {
            entry
                .map(|(key, value)| (IndexKey::Ipv6(key), value))
                .map_err(error("read", "tunnel_index6"))
        });
        over_ipv4.chain(over_ipv6).collect()
    }

    /// Adds or replaces what received packets of a tunnel belong to.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_tunnel_index(
        &mut self,
        key: &IndexKey,
        value: &TunnelIndexValue,
    ) -> Result<(), Error> {
        match key {
            IndexKey::Ipv4(key) => {
                self.tunnel_index.insert(key, value, 0).map_err(error("write", "tunnel_index"))
            }
            IndexKey::Ipv6(key) => {
                self.tunnel_index6.insert(key, value, 0).map_err(error("write", "tunnel_index6"))
            }
        }?;
        self.forget_flows()
    }

    /// Removes a tunnel from the index, if it is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove_tunnel_index(&mut self, key: &IndexKey) -> Result<(), Error> {
        match key {
            IndexKey::Ipv4(key) => absent_is_fine(self.tunnel_index.remove(key))
                .map_err(error("write", "tunnel_index")),
            IndexKey::Ipv6(key) => absent_is_fine(self.tunnel_index6.remove(key))
                .map_err(error("write", "tunnel_index6")),
        }?;
        self.forget_flows()
    }

    /// A tunnel's value.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn tunnel(&self, id: u32) -> Result<TunnelValue, Error> {
        self.tunnels.get(&id, 0).map_err(error("read", "tunnels"))
    }

    /// Sets everything of a tunnel but `active` and the path that is not in use; `value.paths[0]` is
    /// the path wanted.
    ///
    /// The path in use is never written to: a new one goes into the other slot first.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_tunnel(&mut self, id: u32, value: &TunnelValue) -> Result<(), Error> {
        let current = self.tunnel(id)?;
        let write = |tables: &mut Self, value: TunnelValue| {
            tables.tunnels.set(id, value, 0).map_err(error("write", "tunnels"))
        };
        let active = current.active & 1;
        let mut next = TunnelValue { active, paths: current.paths, ..*value };
        let wanted = value.paths[0];
        // Without a path the old one stays: a program may have found the tunnel ready just before.
        let ready = value.flags & TunnelFlags::READY != 0;
        if ready && wanted != current.paths[usize::from(active)] {
            next.active = active ^ 1;
            next.paths[usize::from(next.active)] = wanted;
            write(self, TunnelValue { paths: next.paths, ..current })?;
        }
        write(self, next)
    }

    /// Marks a tunnel id as unused.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn clear_tunnel(&mut self, id: u32) -> Result<(), Error> {
        let cpus = zeroes(&self.tunnel_counters, id)?;
        // The paths stay: a program may have found the tunnel ready just before.
        let TunnelValue { active, paths, .. } = self.tunnel(id)?;
        let unused = TunnelValue { active, paths, ..TunnelValue::default() };
        self.tunnels.set(id, unused, 0).map_err(error("write", "tunnels"))?;
        self.tunnel_counters.set(id, cpus, 0).map_err(error("write", "tunnel_counters"))
    }

    /// All that the filter on the uplinks knows.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn guards(&self) -> Result<BTreeSet<GuardKey>, Error> {
        self.guards.keys().collect::<Result<_, _>>().map_err(error("read", "guards"))
    }

    /// Adds to what the filter knows.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn add_guard(&mut self, key: &GuardKey) -> Result<(), Error> {
        self.guards.insert(key, 1, 0).map_err(error("write", "guards"))
    }

    /// Removes from what the filter knows.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove_guard(&mut self, key: &GuardKey) -> Result<(), Error> {
        absent_is_fine(self.guards.remove(key)).map_err(error("write", "guards"))
    }

    /// The uplinks where packets are filtered.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn uplinks(&self) -> Result<BTreeMap<IfIndex, UplinkValue>, Error> {
        self.uplinks.iter().collect::<Result<_, _>>().map_err(error("read", "xdp_uplinks"))
    }

    /// Adds or replaces an uplink.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_uplink(&mut self, ifindex: IfIndex, value: UplinkValue) -> Result<(), Error> {
        self.uplinks.insert(ifindex, value, 0).map_err(error("write", "xdp_uplinks"))
    }

    /// Removes an uplink, if it is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove_uplink(&mut self, ifindex: IfIndex) -> Result<(), Error> {
        absent_is_fine(self.uplinks.remove(&ifindex)).map_err(error("write", "xdp_uplinks"))
    }

    /// The sources of discarded packets that were seen last.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn sources(&self) -> Result<BTreeMap<SourceKey, SourceCounters>, Error> {
        let mut sources = BTreeMap::new();
        // In a flood of sources each may make room for another before the next is asked for, and
        // the kernel begins again: no more questions than that.
        for key in self.sources.keys().take(2 * SOURCE_CAPACITY) {
            let key = key.map_err(error("read", "xdp_sources"))?;
            if let Ok(counters) = self.sources.get(&key, 0) {
                sources.insert(key, counters);
            }
        }
        Ok(sources)
    }

    /// A program's counters.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn counters(&self, program: Program) -> Result<Counters, Error> {
        let cpus = self.counters.get(&(program as u32), 0).map_err(error("read", "counters"))?;
        let mut total = Counters::default();
        let mut reasons = [0u64; PACKET_REASONS];
        for cpu in cpus.iter() {
            total.packets += cpu.packets;
            total.bytes += cpu.bytes;
            for (sum, count) in reasons.iter_mut().zip(cpu.reasons) {
                *sum += count;
            }
        }
        total.reasons = Reason::ALL
            .iter()
            .filter(|reason| reason.counts_packets())
            .map(|&reason| (reason, reasons[reason as usize]))
            .filter(|(_, count)| *count > 0)
            .collect();
        Ok(total)
    }

    /// A tunnel's traffic.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn tunnel_counters(&self, id: u32) -> Result<TunnelCounters, Error> {
        let cpus = self.tunnel_counters.get(&id, 0).map_err(error("read", "tunnel_counters"))?;
        Ok(cpus.iter().fold(TunnelCounters::default(), |sum, cpu| TunnelCounters {
            tx_packets: sum.tx_packets + cpu.tx_packets,
            tx_bytes: sum.tx_bytes + cpu.tx_bytes,
            rx_packets: sum.rx_packets + cpu.rx_packets,
            rx_bytes: sum.rx_bytes + cpu.rx_bytes,
        }))
    }
}

pub(super) fn take<M>(ebpf: &mut Ebpf, map: &'static str) -> Result<M, Error>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    ebpf.take_map(map).ok_or_else(|| missing(map)).and_then(M::try_from).map_err(error("find", map))
}

/// A map that the object has not.
pub(super) fn missing(map: &'static str) -> MapError {
    MapError::InvalidName { name: map.to_owned() }
}

pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(syscall))
            if syscall.io_error.raw_os_error() == Some(nix::libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// Zeroes for every CPU.
fn zeroes(
    counters: &PerCpuArray<MapData, TunnelCounters>,
    id: u32,
) -> Result<aya::maps::PerCpuValues<TunnelCounters>, Error> {
    let cpus = counters.get(&id, 0).map_err(error("read", "tunnel_counters"))?.len();
    aya::maps::PerCpuValues::try_from(vec![TunnelCounters::default(); cpus]).map_err(|source| {
        Error::Map { what: "size", map: "tunnel_counters", source: MapError::IoError(source) }
    })
}
