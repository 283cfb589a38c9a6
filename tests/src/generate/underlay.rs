//! Frames of the underlay: what arrives from other hosts.

use ovs_ebpf_common::abi::{TunnelIndexKey, TunnelKind};

use super::{
    Arrival, Random, Scene, overlay,
    scene::{Domain, End, Station},
};

const IP: usize = 14;
const L4: usize = 34;

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
    let gre = key.kind != TunnelKind::VxlanIpv4 as u8;
    frame.extend(mac);
    frame.extend([0x02, 0, 0, 0, 1, 1, 0x08, 0x00]);
    let fragment: u16 = match random.below(32) {
        0 => random.word(),
        1 => 0x8000,
        _ => random.of(&[0x4000, 0]),
    };
    let tos = if random.one_in(3) { random.byte() } else { 0 };
    frame.extend([0x45, tos, 0, 0]);
    frame.extend(random.word().to_be_bytes());
    frame.extend(fragment.to_be_bytes());
    frame.extend([random.byte(), if gre { 47 } else { 17 }, 0, 0]);
    frame.extend(key.remote.into_iter().chain(key.local));
    let options = if random.one_in(24) { 1 + random.below(10) } else { 0 };
    frame[IP] += options as u8;
    random.fill(frame, options * 4);
    if gre {
        let with_key = key.kind == TunnelKind::GreKeyIpv4 as u8;
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

fn wrong_now_and_then(random: &mut Random, mut key: TunnelIndexKey) -> TunnelIndexKey {
    match random.below(48) {
        0 => key.remote[3] ^= 1 << random.below(8),
        1 => key.local[3] ^= 1 << random.below(8),
        2 => key.key[random.below(4)] ^= 1 << random.below(8),
        3 => key.dst_port = random.of(&[4789u16, 8472, 0, 53]).to_be_bytes(),
        4 => key.kind = random.of(&[1, 2, 3]),
        _ => {}
    }
    key
}

/// Makes one of the lengths disagree with the frame, or the checksum with the header.
fn break_a_length(random: &mut Random, frame: &mut Vec<u8>) {
    let by = random.of(&[1u16, 2, 4, 8, 0xffff, 0xfffe]);
    let mut add = |at: usize| {
        if let Some(word) = frame.get_mut(at..at + 2) {
            let value = u16::from_be_bytes([word[0], word[1]]).wrapping_add(by);
            word.copy_from_slice(&value.to_be_bytes());
        }
    };
    match random.below(5) {
        0 => {
            add(IP + 2);
            set_checksum(frame);
        }
        1 => add(L4 + 4),
        2 => add(IP + 10),
        // Padding, as a short packet has on Ethernet.
        3 => frame.extend([0; 6]),
        _ => frame.truncate(frame.len() - 1 - random.below(8)),
    }
}

/// Makes the outer lengths and the IPv4 checksum agree with the frame, as far as it has them.
pub(super) fn repair(frame: &mut [u8]) {
    if frame.len() < L4 {
        return;
    }
    let length = frame.len();
    let words = usize::from(frame[IP] & 15).max(5);
    frame[IP + 2..IP + 4].copy_from_slice(&((length - IP) as u16).to_be_bytes());
    let l4 = IP + words * 4;
    if frame[IP + 9] == 17 && length >= l4 + 8 {
        frame[l4 + 4..l4 + 6].copy_from_slice(&((length - l4) as u16).to_be_bytes());
    }
    set_checksum(frame);
}

fn set_checksum(frame: &mut [u8]) {
    let words = usize::from(frame[IP] & 15).max(5);
    if let Some(header) = frame.get_mut(IP..IP + words * 4) {
        crate::model::set_ipv4_checksum(header);
    }
}
