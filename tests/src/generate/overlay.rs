//! Frames of the overlay: what stations send.

use ovs_ebpf_common::abi::FdbFlags;

use super::{
    Arrival, Random, Scene,
    scene::{Domain, Station},
};

/// What a test run takes at most is a page less the kernel's own needs.
const LONGEST: usize = 3_400;

/// A frame that arrives on a port.
pub(super) fn arrive(random: &mut Random, scene: &Scene, arrival: &mut Arrival) {
    let local: Vec<&Station> =
        scene.stations.iter().filter(|station| !is_behind_tunnel(station)).collect();
    let source = random.of(&local);
    // Now and then from where it should not come from.
    arrival.device =
        if random.one_in(12) { random.of(&scene.devices).ifindex } else { source.value.target };
    let domain = match scene.tables.ports.get(&arrival.device) {
        Some(port) => Domain { bridge: port.bridge, vlan: port.vlan },
        None => source.domain,
    };
    // Seldom where it came from.
    let back = random.one_in(8);
    let fit = |station: &Station| back || station.value.target != arrival.device;
    let destination = destination(random, scene, domain, fit);
    let source = mac(random, source);
    let headers = frame(random, &mut arrival.frame, destination, source, None, 0);
    if random.one_in(10) {
        arrival.gso_size = gso_size(random, headers);
    }
}

pub(super) fn is_behind_tunnel(station: &Station) -> bool {
    station.value.flags & FdbFlags::TUNNEL != 0
}

/// Where to: mostly a station of the domain that is `fit`.
pub(super) fn destination(
    random: &mut Random,
    scene: &Scene,
    domain: Domain,
    fit: impl Fn(&Station) -> bool,
) -> [u8; 6] {
    let is_neighbour = |station: &&Station| station.domain == domain && fit(station);
    let neighbours: Vec<&Station> = scene.stations.iter().filter(is_neighbour).collect();
    match random.below(16) {
        0 => [0xff; 6],
        1 => [0x33, 0x33, 0, 0, 0, random.byte()],
        2 => [0x02, 0, 0, 0, 0x0b, random.byte()],
        3 => random.of(&scene.stations).mac,
        _ if neighbours.is_empty() => [0; 6],
        _ => random.of(&neighbours).mac,
    }
}

/// The station's MAC; now and then one that nobody has.
pub(super) fn mac(random: &mut Random, station: &Station) -> [u8; 6] {
    if random.one_in(24) { [0x02, 0, 0, 0, 0x0c, random.byte()] } else { station.mac }
}

/// Around what usual limits leave for a segment's payload.
pub(super) fn gso_size(random: &mut Random, headers: usize) -> u32 {
    let limit = random.of(&[1500, 1450, 576, 100, 68]) + 14;
    match random.below(4) {
        0 => 1 + random.below(1460) as u32,
        _ => (limit + 2usize).saturating_sub(headers + random.below(5)).max(1) as u32,
    }
}

/// Appends a frame, mostly with the tag of `vlan` and without one else; gives the length of its headers.
/// `overhead` bytes are in front of it on the wire.
pub(super) fn frame(
    random: &mut Random,
    frame: &mut Vec<u8>,
    destination: [u8; 6],
    source: [u8; 6],
    vlan: Option<u16>,
    overhead: usize,
) -> usize {
    let start = frame.len();
    frame.extend(destination.into_iter().chain(source));
    if let Some(vlan) = vlan {
        let priority = u16::from(random.byte() & 0xe0) << 8;
        let eligible = if random.one_in(24) { 0x1000 } else { 0 };
        frame.extend([0x81, 0x00]);
        frame.extend((vlan | priority | eligible).to_be_bytes());
    }
    if random.one_in(24) {
        let tag = random.of(&[[0x81, 0x00], [0x88, 0xa8]]);
        frame.extend(tag);
        let any = random.word();
        frame.extend(random.of(&[0, 0x2000, 7, any]).to_be_bytes());
    }
    match random.below(16) {
        0..8 => ipv4(random, frame, overhead),
        8..14 => ipv6(random, frame, overhead),
        14 => {
            // ARP: 28 bytes, or however many there are.
            frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
            let rest = random.of(&[20, 20, 38, 4]);
            random.fill(frame, rest);
        }
        _ => {
            // LLC's lengths, IEEE 1588, anything.
            let any = random.word();
            frame.extend(random.of(&[38, 0x88f7, 0x8035, any]).to_be_bytes());
            let payload = random.below(64);
            random.fill(frame, payload);
        }
    }
    frame.len().min(start + headers_len(&frame[start..])) - start
}

fn ipv4(random: &mut Random, frame: &mut Vec<u8>, overhead: usize) {
    frame.extend([0x08, 0x00]);
    let start = frame.len();
    // Mostly without options; now and then with a length that can't be.
    let words: usize = match random.below(8) {
        0 => 6 + random.below(10),
        1 if random.one_in(8) => random.below(5),
        _ => 5,
    };
    let protocol = protocol(random);
    let fragment = random.of(&[0x4000, 0x4000, 0, 0, 0x2000, 0x00b9, 0x8000]);
    frame.extend([0x40 | words as u8, random.byte(), 0, 0]);
    frame.extend(random.word().to_be_bytes());
    frame.extend(u16::to_be_bytes(fragment));
    frame.extend([random.byte(), protocol, 0, 0]);
    frame.extend([10, 0, 0, random.byte(), 10, 0, 0, random.byte()]);
    random.fill(frame, words.max(5) * 4 - 20);
    transport(random, frame, protocol);
    payload(random, frame, overhead);
    let total_len = (frame.len() - start) as u16;
    frame[start + 2..start + 4].copy_from_slice(&total_len.to_be_bytes());
}

fn ipv6(random: &mut Random, frame: &mut Vec<u8>, overhead: usize) {
    frame.extend([0x86, 0xdd]);
    let start = frame.len();
    frame.extend([0x60 | random.byte() >> 4, random.byte(), random.byte(), random.byte(), 0, 0]);
    let mut protocol = protocol(random);
    let next_header = frame.len();
    frame.extend([protocol, random.byte()]);
    for _ in 0..2 {
        frame.extend([0x20, 0x01, 0x0d, 0xb8]);
        random.fill(frame, 12);
    }
    if random.one_in(6) {
        // Hop-by-hop options, routing, fragment, destination options: eight bytes each here.
        let extension = random.of(&[0, 43, 44, 60]);
        frame[next_header] = extension;
        frame.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
        if extension == 44 {
            protocol = 59;
        }
    }
    transport(random, frame, protocol);
    payload(random, frame, overhead);
    let payload_len = (frame.len() - start - 40) as u16;
    frame[start + 4..start + 6].copy_from_slice(&payload_len.to_be_bytes());
}

/// TCP and UDP mostly; also ICMP, ICMPv6, GRE, ESP, IPv6 in IP, anything.
fn protocol(random: &mut Random) -> u8 {
    match random.below(8) {
        0..3 => 6,
        3..6 => 17,
        6 => random.of(&[1, 58, 47, 50, 41, 132]),
        _ => random.byte(),
    }
}

fn transport(random: &mut Random, frame: &mut Vec<u8>, protocol: u8) {
    let ports = [random.word(), random.of(&[53, 443, 4789, 0])];
    match protocol {
        6 => {
            let words = if random.one_in(4) { random.below(16) } else { 5 + random.below(4) };
            frame.extend(ports.into_iter().flat_map(u16::to_be_bytes));
            random.fill(frame, 8);
            frame.extend([(words as u8) << 4, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
            random.fill(frame, words.max(5) * 4 - 20);
        }
        17 => {
            frame.extend(ports.into_iter().flat_map(u16::to_be_bytes));
            random.fill(frame, 4);
        }
        _ => random.fill(frame, 8),
    }
}

/// Mostly a few bytes; now and then as many as take the packet to a limit, or a little beyond.
fn payload(random: &mut Random, frame: &mut Vec<u8>, overhead: usize) {
    let count = match random.below(16) {
        0..10 => random.below(64),
        10 => random.below(LONGEST),
        _ => {
            let limit = random.of(&[1500usize, 1450, 576, 100, 68]) + 14 + overhead;
            (limit + random.below(5)).saturating_sub(frame.len() + 2)
        }
    };
    let count = count.min(LONGEST.saturating_sub(frame.len()));
    // What is in it decides nothing: one random word, then zeros.
    let own = count.min(8);
    random.fill(frame, own);
    frame.extend_from_slice(&[0; LONGEST][own..count]);
}

/// Ethernet, IP and TCP or UDP headers of a well-formed frame.
fn headers_len(frame: &[u8]) -> usize {
    let (network, protocol) = match frame.get(12..24) {
        Some([0x08, 0x00, vihl, .., protocol]) => (usize::from(vihl & 15) * 4, *protocol),
        Some([0x86, 0xdd, ..]) => (40, frame[20]),
        _ => return 14,
    };
    14 + network
        + match protocol {
            6 => frame.get(14 + network + 12).map_or(20, |offset| usize::from(offset >> 4) * 4),
            _ => 8,
        }
}
