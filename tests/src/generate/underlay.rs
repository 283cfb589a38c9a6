//! Frames of the underlay: what arrives from other hosts.

use ovs_ebpf_common::abi::{TunnelIndexKey6, TunnelKind};

use super::{
    Arrival, Random, Scene, overlay,
    scene::{Domain, End, Station},
};

const IP: usize = 14;

/// A frame that arrives on the underlay: mostly out of a tunnel.
pub(super) fn arrive(random: &mut Random, scene: &Scene, arrival: &mut Arrival) {
    let end = end(random, scene);
    arrival.device =
        if random.one_in(16) { random.of(&scene.devices).ifindex } else { end.value.uplink };
    let device = scene.devices.iter().find(|device| device.ifindex == arrival.device);
    let mut mac = device.expect("a device of the scene").mac;
    if random.one_in(24) {
        mac[random.below(6)] ^= 1 << random.below(8);
    }
    if random.one_in(16) {
        // All the rest of what a host receives.
        overlay::frame(random, &mut arrival.frame, mac, [0x02, 0, 0, 0, 1, 1], None, 0);
        return;
    }
    let headers = tunnelled(random, scene, &end, mac, &mut arrival.frame);
    if random.one_in(12) {
        arrival.gso_size = overlay::gso_size(random, headers);
    }
}

/// A tunnel that sends: mostly one with stations behind it.
fn end(random: &mut Random, scene: &Scene) -> End {
    let behind: Vec<&Station> =
        scene.stations.iter().filter(|station| overlay::is_behind_tunnel(station)).collect();
    if behind.is_empty() || random.one_in(8) {
        return random.of(&scene.ends);
    }
    let id = random.of(&behind).value.target;
    let ends: Vec<&End> = scene.ends.iter().filter(|end| end.value.tunnel == id).collect();
    if ends.is_empty() { random.of(&scene.ends) } else { *random.of(&ends) }
}

/// Appends a tunnel's packet; gives the length of the inner headers.
fn tunnelled(
    random: &mut Random,
    scene: &Scene,
    end: &End,
    mac: [u8; 6],
    frame: &mut Vec<u8>,
) -> usize {
    let key = wrong_now_and_then(random, end.key);
    let is = |kinds: [TunnelKind; 2]| kinds.iter().any(|kind| *kind as u8 == key.kind);
    let gre = !is([TunnelKind::VxlanIpv4, TunnelKind::VxlanIpv6]);
    frame.extend(mac);
    frame.extend([0x02, 0, 0, 0, 1, 1]);
    let protocol = if gre { 47 } else { 17 };
    if key.kind < TunnelKind::VxlanIpv6 as u8 {
        ipv4(random, frame, &key, protocol);
    } else {
        ipv6(random, frame, &key, protocol);
    }
    if gre {
        let with_key = is([TunnelKind::GreKeyIpv4, TunnelKind::GreKeyIpv6]);
        let mut flags = if with_key { 0x20 } else { 0 };
        if random.one_in(16) {
            // Checksum, routing, key, sequence number, strict source route.
            flags ^= 0x80 >> random.below(8);
        }
        let version = if random.one_in(24) { random.byte() } else { 0 };
        let protocol: u16 = if random.one_in(24) { random.of(&[0x0800, 0x88be]) } else { 0x6558 };
        frame.extend([flags, version]);
        frame.extend(protocol.to_be_bytes());
        if with_key {
            frame.extend(key.key);
        }
    } else {
        let checksum = if random.one_in(4) { random.word() } else { 0 };
        frame.extend(random.word().to_be_bytes());
        frame.extend(key.dst_port);
        frame.extend([0, 0]);
        frame.extend(checksum.to_be_bytes());
        let mut header = [0x08, 0, 0, 0, key.key[1], key.key[2], key.key[3], 0];
        if random.one_in(16) {
            header[random.below(8)] ^= 1 << random.below(8);
        }
        frame.extend(header);
    }
    let headers = inside(random, scene, end, frame);
    repair(frame);
    if random.one_in(16) {
        break_a_length(random, frame);
    }
    headers
}

fn ipv4(random: &mut Random, frame: &mut Vec<u8>, key: &TunnelIndexKey6, protocol: u8) {
    let fragment: u16 = match random.below(32) {
        0 => random.word(),
        1 => 0x8000,
        _ => random.of(&[0x4000, 0]),
    };
    let tos = if random.one_in(3) { random.byte() } else { 0 };
    frame.extend([0x08, 0x00, 0x45, tos, 0, 0]);
    frame.extend(random.word().to_be_bytes());
    frame.extend(fragment.to_be_bytes());
    frame.extend([random.byte(), protocol, 0, 0]);
    frame.extend(key.remote[..4].iter().chain(&key.local[..4]));
    let options = if random.one_in(24) { 1 + random.below(10) } else { 0 };
    frame[IP] += options as u8;
    random.fill(frame, options * 4);
}

fn ipv6(random: &mut Random, frame: &mut Vec<u8>, key: &TunnelIndexKey6, protocol: u8) {
    let class = if random.one_in(3) { random.byte() } else { 0 };
    let version = if random.one_in(32) { random.byte() & 0xf0 } else { 0x60 };
    frame.extend([0x86, 0xdd, version | class >> 4, class << 4 | random.byte() & 0x0f]);
    frame.extend(random.word().to_be_bytes());
    frame.extend([0, 0, protocol, random.byte()]);
    frame.extend(key.remote.iter().chain(&key.local));
    if random.one_in(24) {
        // Hop-by-hop options, routing, fragment, authentication, destination options, anything.
        let any = random.byte();
        frame[IP + 6] = random.of(&[0, 43, 44, 51, 60, any]);
        frame.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
    }
}

/// The frame inside: from a station behind the tunnel to one of the same bridge.
fn inside(random: &mut Random, scene: &Scene, end: &End, frame: &mut Vec<u8>) -> usize {
    let value = end.value;
    let is_behind = |station: &&Station| {
        overlay::is_behind_tunnel(station)
            && station.value.target == value.tunnel
            && station.domain.meets(value.bridge, value.vlan, end.takes_tags())
    };
    let behind: Vec<&Station> = scene.stations.iter().filter(is_behind).collect();
    let own = Domain { bridge: value.bridge, vlan: value.vlan };
    let (source, domain) = if behind.is_empty() || random.one_in(16) {
        (random.of(&scene.stations).mac, own)
    } else {
        let station: &Station = random.of(&behind);
        (overlay::mac(random, station), station.domain)
    };
    // Of its own VLAN too, now and then.
    let tagged = domain != own || (domain.vlan % 4096 != 0 && random.one_in(8));
    let vlan = tagged.then_some(domain.vlan % 4096);
    // Seldom back into a tunnel.
    let back = random.one_in(8);
    let fit = |station: &Station| back || !overlay::is_behind_tunnel(station);
    let destination = overlay::destination(random, scene, domain, fit);
    let outer_len = frame.len();
    overlay::frame(random, frame, destination, source, vlan, outer_len)
}

fn wrong_now_and_then(random: &mut Random, mut key: TunnelIndexKey6) -> TunnelIndexKey6 {
    let byte = if key.kind < TunnelKind::VxlanIpv6 as u8 { 4 } else { 16 };
    let byte = random.below(byte);
    match random.below(48) {
        0 => key.remote[byte] ^= 1 << random.below(8),
        1 => key.local[byte] ^= 1 << random.below(8),
        2 => key.key[random.below(4)] ^= 1 << random.below(8),
        3 => key.dst_port = random.of(&[4789u16, 8472, 0, 53]).to_be_bytes(),
        4 => key.kind = random.of(&TunnelKind::ALL) as u8,
        _ => {}
    }
    key
}

/// Makes one of the lengths disagree with the frame, or the checksum with the header.
fn break_a_length(random: &mut Random, frame: &mut Vec<u8>) {
    let by = random.of(&[1u16, 2, 4, 8, 0xffff, 0xfffe]);
    let Place { length, l4, .. } = place(frame);
    let mut add = |at: usize| {
        if let Some(word) = frame.get_mut(at..at + 2) {
            let value = u16::from_be_bytes([word[0], word[1]]).wrapping_add(by);
            word.copy_from_slice(&value.to_be_bytes());
        }
    };
    match random.below(5) {
        0 => {
            add(length);
            set_checksum(frame);
        }
        1 => add(l4 + 4),
        2 => add(IP + 10),
        // Padding, as a short packet has on Ethernet.
        3 => frame.extend([0; 6]),
        _ => frame.truncate(frame.len() - 1 - random.below(8)),
    }
}

/// Where the outer IP header has its length field, from where on that counts, and where UDP or GRE
/// begins.
struct Place {
    length: usize,
    counts_from: usize,
    l4: usize,
}

fn place(frame: &[u8]) -> Place {
    if is_ipv6(frame) {
        return Place { length: IP + 4, counts_from: IP + 40, l4: IP + 40 };
    }
    let words = usize::from(frame[IP] & 15).max(5);
    Place { length: IP + 2, counts_from: IP, l4: IP + words * 4 }
}

fn is_ipv6(frame: &[u8]) -> bool {
    frame[12..14] == [0x86, 0xdd]
}

/// Makes the outer lengths and the IPv4 checksum agree with the frame, as far as it has them.
pub(super) fn repair(frame: &mut [u8]) {
    if frame.len() < IP + 20 || (is_ipv6(frame) && frame.len() < IP + 40) {
        return;
    }
    let frame_len = frame.len();
    let Place { length, counts_from, l4 } = place(frame);
    let ip_len = (frame_len - counts_from) as u16;
    frame[length..length + 2].copy_from_slice(&ip_len.to_be_bytes());
    let protocol = frame[IP + if is_ipv6(frame) { 6 } else { 9 }];
    if protocol == 17 && frame_len >= l4 + 8 {
        frame[l4 + 4..l4 + 6].copy_from_slice(&((frame_len - l4) as u16).to_be_bytes());
    }
    set_checksum(frame);
}

fn set_checksum(frame: &mut [u8]) {
    if is_ipv6(frame) {
        return;
    }
    let words = usize::from(frame[IP] & 15).max(5);
    if let Some(header) = frame.get_mut(IP..IP + words * 4) {
        crate::model::set_ipv4_checksum(header);
    }
}
