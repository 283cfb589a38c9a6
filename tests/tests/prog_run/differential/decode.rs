//! A frame's headers in words, one line each, as far as they go.

/// Decodes a frame, with the frame in a tunnel if it has one.
pub(super) fn decode(frame: &[u8]) -> String {
    let mut lines = Vec::new();
    ethernet(frame, &mut lines);
    lines.iter().enumerate().map(|(depth, line)| format!("{:1$}{line}\n", "", depth * 2)).collect()
}

fn ethernet(bytes: &[u8], lines: &mut Vec<String>) {
    let Some((header, rest)) = bytes.split_at_checked(14) else {
        return lines.push(format!("{} bytes", bytes.len()));
    };
    let mac =
        |at: usize| header[at..at + 6].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ether_type = word(header, 12);
    lines.push(format!("Ethernet {} to {}, type {ether_type:#06x}", mac(6), mac(0)));
    match ether_type {
        0x0800 => ipv4(rest, lines),
        0x86dd => ipv6(rest, lines),
        _ => lines.push(format!("{} bytes", rest.len())),
    }
}

fn ipv4(bytes: &[u8], lines: &mut Vec<String>) {
    let Some(header) = bytes.get(..20) else {
        return lines.push(format!("IPv4, cut to {} bytes", bytes.len()));
    };
    let length = usize::from(header[0] & 15) * 4;
    lines.push(format!(
        "IPv4 {} to {}, first byte {:#04x}, TOS {:#04x}, total length {} of {}, fragment field {:#06x}, \
         TTL {}, protocol {}",
        dotted(&header[12..16]), dotted(&header[16..20]), header[0], header[1], word(header, 2),
        bytes.len(), word(header, 6), header[8], header[9],
    ));
    transport(header[9], bytes.get(length..).unwrap_or_default(), lines);
}

fn ipv6(bytes: &[u8], lines: &mut Vec<String>) {
    let Some(header) = bytes.get(..40) else {
        return lines.push(format!("IPv6, cut to {} bytes", bytes.len()));
    };
    lines.push(format!(
        "IPv6, traffic class {:#04x}, payload length {} of {}, next header {}, hop limit {}",
        header[0] << 4 | header[1] >> 4,
        word(header, 4),
        bytes.len() - 40,
        header[6],
        header[7],
    ));
    transport(header[6], &bytes[40..], lines);
}

fn transport(protocol: u8, bytes: &[u8], lines: &mut Vec<String>) {
    match (protocol, bytes) {
        (17, [_, _, _, _, _, _, _, _, rest @ ..]) => {
            lines.push(format!(
                "UDP {} to {}, length {} of {}, checksum {:#06x}",
                word(bytes, 0),
                word(bytes, 2),
                word(bytes, 4),
                bytes.len(),
                word(bytes, 6),
            ));
            // By its looks: which port is VXLAN's, the tables say.
            if let [0x08, _, _, _, a, b, c, _, inner @ ..] = rest {
                let vni = u32::from_be_bytes([0, *a, *b, *c]);
                lines.push(format!("VXLAN {:02x?}, VNI {vni}", &rest[..8]));
                ethernet(inner, lines);
            }
        }
        (47, [flags, version, _, _, rest @ ..]) => {
            let protocol = word(bytes, 2);
            lines.push(format!("GRE flags {flags:#04x} {version:#04x}, protocol {protocol:#06x}"));
            let key = if flags & 0x20 == 0 { 0 } else { 4 };
            ethernet(rest.get(key..).unwrap_or_default(), lines);
        }
        (6, [_, _, _, _, _, _, _, _, _, _, _, _, offset, ..]) => lines.push(format!(
            "TCP {} to {}, header {} of {}",
            word(bytes, 0),
            word(bytes, 2),
            usize::from(offset >> 4) * 4,
            bytes.len(),
        )),
        _ => lines.push(format!("protocol {protocol}, {} bytes", bytes.len())),
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn dotted(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(".")
}
