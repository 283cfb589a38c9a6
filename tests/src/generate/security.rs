//! Secured ports, and what comes from them: in their own name and in others'.

use ovs_ebpf_common::abi::{AllowedKey, FdbKey, SecurityFlags, SecurityValue};

use super::{Arrival, Random, Scene, overlay};
use crate::model::Tables;

/// The stations' numbers: of one port are those that differ from its ifindex by a multiple of three.
const STATIONS: u8 = 9;
const SENT_TO: [[u8; 6]; 4] =
    [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [0x02, 0, 0, 0, 0x0a, 1], [0x02, 0, 0, 0, 0x0d, 0xee]];

fn mac(station: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0x0a, station]
}

fn ipv4(station: u8) -> [u8; 4] {
    [10, 0, 0, station]
}

fn ipv6(station: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, station]
}

/// Secures most of the devices, some in part.
pub(super) fn secure(random: &mut Random, devices: &[u32], tables: &mut Tables) {
    for &device in devices {
        if random.one_in(8) {
            continue;
        }
        let flag = |on, flag| if on { flag } else { 0 };
        // A bucket that is never empty, or always: none depends on the time.
        let empty = random.one_in(4);
        let value = SecurityValue {
            bridge: 9,
            flags: flag(!random.one_in(4), SecurityFlags::MACS)
                | flag(!random.one_in(4), SecurityFlags::ADDRESSES)
                | flag(random.one_in(2), SecurityFlags::FLOOD)
                | flag(random.one_in(2), SecurityFlags::UNKNOWN)
                | flag(random.one_in(2), SecurityFlags::TAGGED),
            full_at: if empty { u64::MAX / 2 } else { 0 },
            ..SecurityValue::default()
        };
        tables.security.insert(device, value);
        for station in own(device) {
            for key in [
                AllowedKey::mac(device, mac(station)),
                AllowedKey::ipv4(device, ipv4(station)),
                AllowedKey::ipv6(device, ipv6(station)),
            ] {
                tables.allowed.insert(key, 1);
            }
        }
    }
    for station in 0..STATIONS {
        if random.one_in(2) {
            tables.stations.insert(FdbKey { bridge: 9, vlan: 0, mac: mac(station) }, 1);
        }
    }
}

fn own(device: u32) -> impl Iterator<Item = u8> {
    (0..STATIONS).filter(move |station| u32::from(*station) % 3 == device / 10 % 3)
}

/// Lets a frame arrive from a port: mostly in its own name in most of what it says.
pub(super) fn arrive(random: &mut Random, scene: &Scene, arrival: &mut Arrival) {
    if random.one_in(4) {
        return overlay::arrive(random, scene, arrival);
    }
    arrival.device = random.of(&scene.devices).ifindex;
    let own: Vec<u8> = own(arrival.device).collect();
    let station = random.of(&own);
    // Each thing that is said of the sender may be another's.
    let mut one =
        |random: &mut Random| if random.one_in(12) { random.byte() % STATIONS } else { station };
    let frame = &mut arrival.frame;
    frame.extend(random.of(&SENT_TO));
    frame.extend(mac(one(random)));
    match random.below(3) {
        0 => {
            frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1 + random.byte() % 2]);
            frame.extend(mac(one(random)));
            frame.extend(if random.one_in(8) { [0; 4] } else { ipv4(one(random)) });
            frame.extend([0; 6]);
            frame.extend(ipv4(random.byte() % STATIONS));
        }
        1 => {
            let nobody = random.one_in(3);
            frame.extend([0x08, 0x00, 0x45, 0, 0, 48, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend(if nobody { [0; 4] } else { ipv4(one(random)) });
            frame.extend(if nobody { [255; 4] } else { ipv4(1) });
            frame.extend([0, 68, 0, 67, 0, 28, 0, 0]);
            frame.extend([0; 20]);
        }
        _ => discovery(random, frame, &mut one),
    }
}

/// IPv6 with a message of neighbour discovery, or another, behind some headers.
fn discovery(random: &mut Random, frame: &mut Vec<u8>, one: &mut impl FnMut(&mut Random) -> u8) {
    let nobody = random.one_in(4);
    let headers: Vec<u8> = (0..random.below(4)).map(|_| random.of(&[0, 43, 44, 51, 60])).collect();
    let kind = random.of(&[128, 131, 133, 134, 135, 136, 137, 143]);
    let fixed = match kind {
        134 => 16,
        135 | 136 => 24,
        137 => 40,
        _ => 8,
    };
    let options = random.below(4);
    let payload = 8 * headers.len() + fixed + 8 * options;
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, payload as u8]);
    frame.push(headers.first().copied().unwrap_or(58));
    frame.push(255);
    frame.extend(if nobody { [0; 16] } else { ipv6(one(random)) });
    let mut destination = ipv6(1);
    if !random.one_in(4) {
        destination[..2].copy_from_slice(&[0xff, 0x02]);
    }
    frame.extend(destination);
    for (at, header) in headers.iter().enumerate() {
        let next = headers.get(at + 1).copied().unwrap_or(58);
        let mut bytes = [next, 0, 0, 0, 0, 0, 0, 0];
        match header {
            // Mostly of a whole packet or a first fragment.
            44 => bytes[3] = random.of(&[0, 0, 1, 8]),
            _ => bytes[1] = 0,
        }
        frame.extend(bytes);
    }
    frame.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    if fixed > 8 {
        frame.extend(ipv6(one(random)));
        frame.resize(frame.len() + fixed.saturating_sub(24), 0);
    }
    for _ in 0..options {
        frame.extend([random.of(&[1, 2, 14, 5]), random.of(&[1, 1, 1, 1, 1, 1, 1, 0])]);
        frame.extend(mac(one(random)));
    }
}
