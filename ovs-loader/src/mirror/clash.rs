//! Tunnels that a received packet may belong to as well as to another one.
//!
//! The kernel and Open vSwitch match a packet against all tunnels that are configured, accelerated or
//! not: the one that it is for must be the one that the fast path takes it for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ovs_ebpf_common::abi::IndexKey;

use super::gate::Facts;
use super::plan::{Plan, Way};
use crate::bridge::model::{BridgeKind, Device, Encap, IfIndex};

/// A way with its bridge and port.
pub(super) type Owned = (IfIndex, IfIndex, Way);

/// What a tunnel takes packets by, as the one who matches them first sees it.
type Flow = (Encap, u16, u32, Option<IpAddr>);

/// A tunnel's claim to a flow.
struct Claim {
    kind: BridgeKind,
    key: Option<u32>,
    /// In metadata mode, the key again.
    vni: Option<u32>,
    local: Option<IpAddr>,
    /// Bridge and port.
    owner: (IfIndex, IfIndex),
    /// What the fast path takes its packets by; none where the way is not accelerated.
    entry: Option<IndexKey>,
}

impl Claim {
    /// Whether a packet of this claim's accelerated way, which is sent to `local`, may be the other's.
    fn may_lose_to(&self, other: &Self, local: IpAddr) -> bool {
        if self.owner == other.owner {
            return false;
        }
        if self.kind != other.kind {
            // The kernel's own tunnels come first, however little they say; and Open vSwitch takes
            // what is left.
            return other.local.is_none_or(|other| other == local);
        }
        // Without a key and with key 0 are the same to Open vSwitch, not to the kernel.
        if self.key != other.key && self.kind == BridgeKind::Linux {
            return false;
        }
        // The one that names its address wins.
        other.local == Some(local)
            || (other.local.is_none() && self.local.is_none())
            || (other.entry.is_some() && other.entry == self.entry)
    }
}

/// The accelerated ways whose packets may be another tunnel's.
pub(super) fn find(facts: &Facts<'_>, plan: &Plan) -> BTreeSet<Owned> {
    let claims = claims(facts, plan);
    let mut clashes = BTreeSet::new();
    for (flow, own) in &claims {
        let (encap, port, key, Some(remote)) = *flow else { continue };
        // Tunnels of the kernel's that take packets of any remote go before those of Open vSwitch's.
        let wild = claims.get(&(encap, port, key, None)).into_iter().flatten();
        let wild: Vec<_> = wild.filter(|claim| claim.kind == BridgeKind::Linux).collect();
        for claim in own {
            let Some(entry) = &claim.entry else { continue };
            let local = entry.local();
            let wild = wild.iter().copied().filter(|_| claim.kind == BridgeKind::Ovs);
            let loses = own.iter().chain(wild).any(|other| claim.may_lose_to(other, local));
            if loses {
                let way = Way { remote, vni: claim.vni };
                clashes.insert((claim.owner.0, claim.owner.1, way));
            }
        }
    }
    clashes
}

fn claims(facts: &Facts<'_>, plan: &Plan) -> BTreeMap<Flow, Vec<Claim>> {
    let mut claims = BTreeMap::<Flow, Vec<Claim>>::new();
    for bridge in facts.bridges.iter() {
        for port in bridge.ports.values() {
            let Device::Tunnel(tunnel) = &port.device else { continue };
            let ways = plan.bridges.get(&bridge.ifindex).and_then(|plan| {
                plan.ports.get(&port.ifindex).and_then(|port| port.tunnels.as_ref())
            });
            let mut claim = |remote, vni: Option<u32>, entry| {
                let key = vni.or(tunnel.key_in);
                let flow = (tunnel.encap, tunnel.dst_port, key.unwrap_or(0), remote);
                claims.entry(flow).or_default().push(Claim {
                    kind: bridge.kind,
                    key,
                    vni,
                    local: tunnel.local,
                    owner: (bridge.ifindex, port.ifindex),
                    entry,
                });
            };
            let ways = ways.into_iter().flatten();
            let mut any = false;
            for (way, plan) in ways {
                any = true;
                claim(Some(way.remote), way.vni, plan.entry.as_ref().map(|entry| entry.key));
            }
            if !any {
                claim(None, None, None);
            }
        }
    }
    claims
}
