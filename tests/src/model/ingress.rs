//! The two programs.

use ovs_ebpf_common::{
    Reason,
    abi::{
        EVENT_INTERVAL, FdbFlags, PortFlags, TUNNEL_CAPACITY, TunnelFlags, TunnelIndexFlags,
        TunnelKind,
    },
};

use super::forwarding::{Origin, Place, fits, place};
use super::outer::{self, decapsulated_ecn};
use super::read::{self, ETHERNET, Overlay};
use super::{Forwarded, Model, Received};

/// How a frame came out of a tunnel.
struct By {
    vxlan: bool,
    /// Of the outer header.
    ecn: u8,
    tag: Option<[u8; 4]>,
}

impl Model {
    /// From a bridge port: to another port as it is, or into a tunnel.
    pub(super) fn port_ingress(
        &mut self,
        now: u64,
        packet: &Received<'_>,
    ) -> Result<Forwarded, Reason> {
        self.lease(now)?;
        if packet.frame.len() < ETHERNET + 20 {
            return Err(Reason::Truncated);
        }
        let port = *self.tables.ports.get(&packet.device).ok_or(Reason::PortUnknown)?;
        let mut origin = Origin {
            place: Place::Port(packet.device),
            bridge: port.bridge,
            vlan: port.vlan,
            takes_tags: port.flags & PortFlags::TAGGED != 0,
            tells: port.flags & PortFlags::EVENTS != 0,
            next_event: port.next_event,
        };
        origin.enter(packet.tag)?;
        let outcome = self.switch(now, packet, &origin);
        if let Err(reason) = &outcome
            && let Some(event) = self.event(now, &origin, packet.frame, *reason)
        {
            self.events.push(event);
            let port = self.tables.ports.get_mut(&packet.device).expect("read just now");
            port.next_event = now + EVENT_INTERVAL;
        }
        outcome
    }

    fn switch(
        &mut self,
        now: u64,
        packet: &Received<'_>,
        origin: &Origin,
    ) -> Result<Forwarded, Reason> {
        let overlay = read::overlay(packet.frame)?;
        let station = self.stations(now, origin, &overlay)?;
        let tag = origin.tag_to(&station, packet.tag);
        match place(&station) {
            Place::Tunnel(id) => self.encapsulate(id, packet, &overlay, tag),
            Place::Port(_) => {
                fits(&station, packet, packet.frame.len())?;
                Ok(Forwarded::exactly(packet.frame.to_vec(), tag))
            }
        }
    }

    /// From the underlay: out of a tunnel to a local port.
    pub(super) fn uplink_ingress(
        &mut self,
        now: u64,
        packet: &Received<'_>,
    ) -> Result<Forwarded, Reason> {
        let kind = outer::classify(packet, &self.tables.control.vxlan_ports)?;
        self.lease(now)?;
        let outer = outer::read(kind, packet.frame)?;
        let inner = &packet.frame[outer.len..];
        let (untagged, tag) = read::untag(inner)?;
        let tunnel = *outer.tunnel(&mut self.tables).ok_or(Reason::TunnelUnknown)?;
        if tunnel.uplink != packet.device {
            return Err(Reason::WrongUplink);
        }
        let mut origin = Origin {
            place: Place::Tunnel(tunnel.tunnel),
            bridge: tunnel.bridge,
            vlan: tunnel.vlan,
            takes_tags: tunnel.flags & TunnelIndexFlags::TAGGED != 0,
            tells: tunnel.flags & TunnelIndexFlags::EVENTS != 0,
            next_event: tunnel.next_event,
        };
        origin.enter(tag)?;
        let by = By { vxlan: kind.is_vxlan(), ecn: outer.ecn, tag };
        let outcome = self.deliver(now, packet, &untagged, &by, &origin);
        if let Err(reason) = &outcome
            && let Some(event) = self.event(now, &origin, inner, *reason)
        {
            self.events.push(event);
            let tunnel = outer.tunnel(&mut self.tables).expect("read just now");
            tunnel.next_event = now + EVENT_INTERVAL;
        }
        let (delivered, tag) = outcome?;
        if (tunnel.tunnel as usize) < TUNNEL_CAPACITY {
            let counters = self.tunnel_counters.entry(tunnel.tunnel).or_default();
            counters.rx_packets += 1;
            counters.rx_bytes += inner.len() as u64;
        }
        Ok(Forwarded::exactly(delivered, tag))
    }

    /// What is delivered of the frame that came in a packet from a tunnel, and with which tag. `inner` is
    /// without the one that it came with.
    fn deliver(
        &mut self,
        now: u64,
        packet: &Received<'_>,
        inner: &[u8],
        by: &By,
        origin: &Origin,
    ) -> Result<(Vec<u8>, Option<[u8; 4]>), Reason> {
        let overlay = read::overlay(inner)?;
        let station = self.stations(now, origin, &overlay)?;
        if let Place::Tunnel(_) = place(&station) {
            return Err(Reason::DestinationIsTunnel);
        }
        if packet.gso.is_some() && station.flags & FdbFlags::HARDWARE != 0 {
            return Err(Reason::HardwareGso);
        }
        if packet.gso.is_some() && by.vxlan && overlay.protocol != 6 {
            return Err(Reason::UncutDatagrams);
        }
        let ecn = decapsulated_ecn(by.ecn, overlay.tos % 4).ok_or(Reason::EcnMark)?;
        fits(&station, packet, inner.len())?;
        if packet.gso.is_some_and(|gso| !gso.tunnelable) {
            return Err(Reason::DecapRefused);
        }
        let tag = origin.tag_to(&station, by.tag);
        if ecn == overlay.tos % 4 {
            return Ok((inner.to_vec(), tag));
        }
        Ok((read::with_tos(inner, overlay.tos, overlay.tos / 4 * 4 + ecn), tag))
    }

    fn encapsulate(
        &mut self,
        id: u32,
        packet: &Received<'_>,
        overlay: &Overlay,
        tag: Option<[u8; 4]>,
    ) -> Result<Forwarded, Reason> {
        let inner = match tag {
            Some(tag) => [&packet.frame[..12], &tag, &packet.frame[12..]].concat(),
            None => packet.frame.to_vec(),
        };
        let unresolved = Reason::TunnelUnresolved;
        if id as usize >= TUNNEL_CAPACITY {
            return Err(unresolved);
        }
        let tunnel = *self.tables.tunnels.get(&id).ok_or(unresolved)?;
        let has = |flag| tunnel.flags & flag != 0;
        let path = &tunnel.paths[usize::from(tunnel.active % 2)];
        let kind = TunnelKind::ALL
            .into_iter()
            .find(|kind| *kind as u8 == path.kind && has(TunnelFlags::READY))
            .ok_or(unresolved)?;

        // The largest frame on the wire, with the tag, which the underlay has to carry too.
        let largest = match packet.gso {
            None => inner.len(),
            Some(gso) => {
                let headers = overlay.headers_of_segments.ok_or(Reason::TooBig)?;
                headers + gso.size as usize + inner.len() - packet.frame.len()
            }
        };
        // The outer IP header's length field: of IPv4 with that header, of IPv6 without it.
        let outer_len = outer::len(kind);
        let ip_len = outer_len - outer::ip_len_from(kind) + inner.len();
        let ip_len = u16::try_from(ip_len).map_err(|_| Reason::TooBig)?;
        if largest - ETHERNET > path.mtu as usize {
            return Err(Reason::TooBig);
        }
        // A device for GRE over IPv6 looks there for an encapsulation limit (RFC 2473).
        if [TunnelKind::GreIpv6, TunnelKind::GreKeyIpv6].contains(&kind) && overlay.ipv6_options {
            return Err(Reason::InnerOptions);
        }
        // And finds no ECN field behind a tag.
        if [TunnelKind::GreIpv6, TunnelKind::GreKeyIpv6].contains(&kind) && tag.is_some() {
            return Err(Reason::VlanTagged);
        }
        if packet.gso.is_some_and(|gso| !gso.tunnelable) {
            return Err(Reason::EncapRefused);
        }

        // As the kernel's GRE device has it for Open vSwitch (`ip_md_tunnel_xmit`).
        let gre = [TunnelKind::GreIpv4, TunnelKind::GreKeyIpv4].contains(&kind);
        let ect_1 = gre && tag.is_none() && overlay.tos % 4 == 1 && has(TunnelFlags::ECT_1_INHERIT);
        // The kernel's own bridges leave it to the device, which finds no packet behind a tag.
        let hidden = gre && tag.is_some() && has(TunnelFlags::TAG_HIDES);
        let inherits = ect_1 || (has(TunnelFlags::TOS_INHERIT) && !hidden);
        let tos = if inherits { overlay.tos } else { tunnel.tos };
        // RFC 6040, normal mode: the inner ECN field outside too.
        // But that of a packet behind a tag within GRE is not looked for.
        let ecn = if gre && tag.is_some() { 0 } else { overlay.tos % 4 };
        let tos = tos / 4 * 4 + ecn;
        let inherits_ttl = has(TunnelFlags::TTL_INHERIT) && !hidden;
        let ttl = if inherits_ttl { overlay.ttl } else { tunnel.ttl };
        let mut forwarded = outer::write(kind, path, &tunnel, (ip_len, tos, ttl));
        forwarded.frame.extend_from_slice(&inner);

        let counters = self.tunnel_counters.entry(id).or_default();
        counters.tx_packets += 1;
        counters.tx_bytes += inner.len() as u64;
        Ok(forwarded)
    }
}
