//! The two programs.

use ovs_ebpf_common::{
    Reason,
    abi::{
        EVENT_INTERVAL, FdbFlags, PortFlags, TUNNEL_CAPACITY, TunnelFlags, TunnelIndexFlags,
        TunnelIndexKey, TunnelKind, TunnelValue,
    },
};

use super::forwarding::{Origin, Place, fits, place};
use super::read::{self, ETHERNET, IP, Overlay, UDP};
use super::{Forwarded, Model, Received};

impl Model {
    /// From a bridge port: to another port as it is, or into a tunnel.
    pub(super) fn port_ingress(
        &mut self,
        now: u64,
        packet: &Received<'_>,
    ) -> Result<Forwarded, Reason> {
        self.lease(now)?;
        let port = *self.tables.ports.get(&packet.device).ok_or(Reason::PortUnknown)?;
        if packet.frame.len() < ETHERNET + 20 {
            return Err(Reason::Truncated);
        }
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
        let frame = packet.frame;
        let kind = self.classify(packet)?;
        self.lease(now)?;
        let outer_len = accept(kind, frame)?;

        let gre_key = || read::four(frame, UDP + 4);
        let (key, dst_port) = match kind {
            TunnelKind::VxlanIpv4 => {
                ([0, frame[UDP + 12], frame[UDP + 13], frame[UDP + 14]], read::word(frame, UDP + 2))
            }
            TunnelKind::GreIpv4 => ([0; 4], 0),
            TunnelKind::GreKeyIpv4 => (gre_key(), 0),
        };
        let index = TunnelIndexKey {
            remote: read::four(frame, IP + 12),
            local: read::four(frame, IP + 16),
            key,
            dst_port: dst_port.to_be_bytes(),
            kind: kind as u8,
            reserved: 0,
        };
        let tunnel = *self.tables.tunnel_index.get(&index).ok_or(Reason::TunnelUnknown)?;
        if tunnel.uplink != packet.device {
            return Err(Reason::WrongUplink);
        }

        let inner = &frame[outer_len..];
        let mut origin = Origin {
            place: Place::Tunnel(tunnel.tunnel),
            bridge: tunnel.bridge,
            vlan: tunnel.vlan,
            takes_tags: tunnel.flags & TunnelIndexFlags::TAGGED != 0,
            tells: tunnel.flags & TunnelIndexFlags::EVENTS != 0,
            next_event: tunnel.next_event,
        };
        let (untagged, tag) = read::untag(inner)?;
        origin.enter(tag)?;
        let outcome = self.deliver(now, packet, &untagged, tag, &origin);
        if let Err(reason) = &outcome
            && let Some(event) = self.event(now, &origin, inner, *reason)
        {
            self.events.push(event);
            let tunnel = self.tables.tunnel_index.get_mut(&index).expect("read just now");
            tunnel.next_event = now + EVENT_INTERVAL;
        }
        let tag = outcome?;
        if (tunnel.tunnel as usize) < TUNNEL_CAPACITY {
            let counters = self.tunnel_counters.entry(tunnel.tunnel).or_default();
            counters.rx_packets += 1;
            counters.rx_bytes += inner.len() as u64;
        }
        Ok(Forwarded::exactly(untagged, tag))
    }

    /// Whether the frame that came in a packet from a tunnel is delivered, and with which tag. It came
    /// with `tag`, which `inner` is without.
    fn deliver(
        &mut self,
        now: u64,
        packet: &Received<'_>,
        inner: &[u8],
        tag: Option<[u8; 4]>,
        origin: &Origin,
    ) -> Result<Option<[u8; 4]>, Reason> {
        let overlay = read::overlay(inner)?;
        let station = self.stations(now, origin, &overlay)?;
        if let Place::Tunnel(_) = place(&station) {
            return Err(Reason::DestinationIsTunnel);
        }
        if packet.gso.is_some() && station.flags & FdbFlags::HARDWARE != 0 {
            return Err(Reason::HardwareGso);
        }
        if changes_ecn(packet.frame[IP + 1] % 4, overlay.tos % 4) {
            return Err(Reason::EcnMark);
        }
        fits(&station, packet, inner.len())?;
        if packet.gso.is_some_and(|gso| !gso.tunnelable) {
            return Err(Reason::DecapRefused);
        }
        Ok(origin.tag_to(&station, tag))
    }

    /// Which encapsulation a packet to this host has.
    fn classify(&self, packet: &Received<'_>) -> Result<TunnelKind, Reason> {
        let frame = packet.frame;
        // IPv4 with UDP or GRE, as long as a UDP header needs.
        if !packet.for_host
            || packet.tag.is_some()
            || frame.len() < UDP + 8
            || frame[12..14] != [0x08, 0x00]
            || ![17, 47].contains(&frame[IP + 9])
        {
            return Err(Reason::NotTunnel);
        }
        // RFC 791: More Fragments, or an offset.
        let (more, offset) = (frame[IP + 6] & 0x20, read::word(frame, IP + 6) & 0x1fff);
        if more != 0 || offset != 0 {
            return Err(Reason::OuterFragment);
        }
        if frame[IP] != 0x45 {
            return Err(Reason::OuterMalformed);
        }
        if frame[IP + 9] == 17 {
            // An unused place holds port 0. No tunnel has that: what is sent there is looked at like
            // a tunnel's, and belongs to none.
            let port = &frame[UDP + 2..UDP + 4];
            let known = self.tables.control.vxlan_ports.iter().any(|known| known == port);
            return if known { Ok(TunnelKind::VxlanIpv4) } else { Err(Reason::NotTunnel) };
        }
        // RFC 2784 and 2890: version 0, Transparent Ethernet Bridging, at most the key bit.
        match frame[UDP..UDP + 4] {
            [0x00, 0x00, 0x65, 0x58] => Ok(TunnelKind::GreIpv4),
            [0x20, 0x00, 0x65, 0x58] => Ok(TunnelKind::GreKeyIpv4),
            _ => Err(Reason::TunnelFlags),
        }
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
        let kind = [TunnelKind::VxlanIpv4, TunnelKind::GreIpv4, TunnelKind::GreKeyIpv4]
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
        let outer_len = outer_len(kind);
        let total_len = u16::try_from(outer_len - ETHERNET + inner.len());
        let total_len = total_len.map_err(|_| Reason::TooBig)?;
        if largest - ETHERNET > path.mtu as usize {
            return Err(Reason::TooBig);
        }
        if packet.gso.is_some_and(|gso| !gso.tunnelable) {
            return Err(Reason::EncapRefused);
        }

        let mut frame = path.header[..outer_len].to_vec();
        // RFC 6040, normal mode: the inner ECN field outside too.
        let tos = if has(TunnelFlags::TOS_INHERIT) { overlay.tos } else { tunnel.tos };
        frame[IP + 1] = tos / 4 * 4 + overlay.tos % 4;
        frame[IP + 2..IP + 4].copy_from_slice(&total_len.to_be_bytes());
        frame[IP + 8] = if has(TunnelFlags::TTL_INHERIT) { overlay.ttl } else { tunnel.ttl };
        read::set_ipv4_checksum(&mut frame[IP..UDP]);
        let source_port = (kind == TunnelKind::VxlanIpv4).then(|| source_ports(&tunnel));
        if let Some(ports) = &source_port {
            frame[UDP..UDP + 2].copy_from_slice(&ports.start().to_be_bytes());
            frame[UDP + 4..UDP + 6].copy_from_slice(&(total_len - 20).to_be_bytes());
        }
        frame.extend_from_slice(&inner);

        let counters = self.tunnel_counters.entry(id).or_default();
        counters.tx_packets += 1;
        counters.tx_bytes += inner.len() as u64;
        let any_identification = has(TunnelFlags::NEEDS_ID);
        Ok(Forwarded { frame, tag: None, source_port, any_identification })
    }
}

/// The ports that `udp_flow_src_port` may pick: it scales a 32-bit hash, which never reaches 1.
fn source_ports(tunnel: &TunnelValue) -> std::ops::RangeInclusive<u16> {
    let (min, span) = (tunnel.source_port_min, tunnel.source_port_span);
    min..=min + span.saturating_sub(1)
}

/// Bytes in front of the inner Ethernet header: Ethernet, IPv4, and UDP with VXLAN or GRE.
fn outer_len(kind: TunnelKind) -> usize {
    UDP + match kind {
        TunnelKind::VxlanIpv4 => 8 + 8,
        TunnelKind::GreIpv4 => 4,
        TunnelKind::GreKeyIpv4 => 4 + 4,
    }
}

/// Checks the outer headers of a packet that is a tunnel's by its looks. Gives their length.
fn accept(kind: TunnelKind, frame: &[u8]) -> Result<usize, Reason> {
    let outer_len = outer_len(kind);
    // Of GRE the place of the key is read, whether there is one or not.
    let needed = if kind == TunnelKind::GreIpv4 { UDP + 8 } else { outer_len };
    if frame.len() < needed {
        return Err(Reason::Truncated);
    }
    let total_len = usize::from(read::word(frame, IP + 2));
    let whole = total_len == frame.len() - ETHERNET;
    if !whole || read::ones_complement_sum(&frame[IP..UDP]) != 0xffff {
        return Err(Reason::OuterMalformed);
    }
    if kind == TunnelKind::VxlanIpv4 {
        if usize::from(read::word(frame, UDP + 4)) != frame.len() - UDP {
            return Err(Reason::OuterMalformed);
        }
        // RFC 7348: the I flag; all other bits are reserved, or an extension's.
        let (flags, vni) = (&frame[UDP + 8..UDP + 12], &frame[UDP + 12..UDP + 16]);
        if flags != [0x08, 0, 0, 0] || vni[3] != 0 {
            return Err(Reason::TunnelFlags);
        }
    }
    Ok(outer_len)
}

/// RFC 6040, figure 4: whether decapsulation has to change the inner ECN field or to drop.
fn changes_ecn(outer: u8, inner: u8) -> bool {
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    match (outer, inner) {
        (CE, CE) => false,
        (CE, _) | (ECT_1, ECT_0) => true,
        _ => false,
    }
}
