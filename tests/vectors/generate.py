#!/usr/bin/python3
"""Writes the test vectors beside this file with Scapy, an implementation independent of ours.

    /usr/bin/python3 tests/vectors/generate.py      (Debian: python3-scapy)

Nothing here is random and nothing depends on the host: another run writes the same bytes. Frames are
hex, without the Ethernet FCS.

encap.json       frames from a container and the frames the tunnel makes of them; read backwards,
                 frames from the underlay that a host takes apart
encap_punt.json  frames from a container that are left to the bridge, and why
decap.json       frames from the underlay that differ from those by exactly one thing, and what
                 becomes of them: the inner frame, or the reason for leaving them to the kernel
vlan.json        frames with and without VLAN tags that arrive on ports and out of tunnels, with the VLANs that
                 those take, and how they leave, or the reason for leaving them to the bridge
ecn.json         RFC 6040: the tables of normal mode ingress and of egress
"""

import json
import struct
from pathlib import Path

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

# The container that sends, the one that receives, and a station that nobody knows.
SENDER = {"mac": "02:00:00:00:0a:01", "ip": "10.0.0.1", "ip6": "fd00::1"}
RECEIVER = {"mac": "02:00:00:00:0b:02", "ip": "10.0.0.2", "ip6": "fd00::2"}
STRANGER = "02:00:00:00:0c:03"

UNDERLAY = {
    "local": "192.0.2.1",
    "remote": "192.0.2.2",
    "source_mac": "02:00:00:00:01:01",
    "next_hop_mac": "02:00:00:00:01:02",
}
UNDERLAY6 = {**UNDERLAY, "local": "2001:db8::1", "remote": "2001:db8::2"}
VXLAN_PORT = 4789
SOURCE_PORT = 54321
UNDERLAY_MTU = 1500
TEB = 0x6558  # Transparent Ethernet Bridging, GRE's protocol type for frames

NOT_ECT, ECT_1, ECT_0, CE = 0, 1, 2, 3
ECN_NAMES = ["Not-ECT", "ECT(1)", "ECT(0)", "CE"]


# --- tunnels and frames ------------------------------------------------------------------------


def tunnel(kind, key, **options):
    """A tunnel's parameters; `None` for ttl or tos means inherited from the inner packet."""
    parameters = {"kind": kind, "key": key, **UNDERLAY, "ttl": 64, "tos": 0, "df": True}
    if kind == "vxlan":
        parameters["destination_port"] = VXLAN_PORT
    return {**parameters, **options}


def tunnel6(kind, key, **options):
    """The same over IPv6, where there is no DF."""
    return tunnel(kind, key, **{**UNDERLAY6, "df": False, **options})


def over_ipv6(t):
    return ":" in t["local"]


def label(t):
    key = "" if t["key"] is None else f"_{t['key']}"
    return t["kind"] + ("6" if over_ipv6(t) else "") + key


TUNNELS = [
    tunnel("vxlan", 42),
    tunnel("vxlan", 16777215),
    tunnel("gre", None),
    tunnel("gre", 0x0000002A),
    tunnel("gre", 0xFFFFFFFF),
    tunnel6("vxlan", 42),
    tunnel6("gre", None),
    tunnel6("gre", 0x2A),
]

# One of each kind.
KINDS = [
    tunnel("vxlan", 42),
    tunnel("gre", None),
    tunnel("gre", 0x2A),
    tunnel6("vxlan", 42),
    tunnel6("gre", None),
    tunnel6("gre", 0x2A),
]


def ip_len(t):
    """Bytes of the outer IP header."""
    return 40 if over_ipv6(t) else 20


def l4(t):
    """Where the outer UDP or GRE header begins."""
    return 14 + ip_len(t)


def overhead(t):
    """Bytes between the underlay's MTU and the largest inner IP packet: headers and inner Ethernet."""
    tunnel_header = {"vxlan": 16, "gre": 4 if t["key"] is None else 8}[t["kind"]]
    return ip_len(t) + tunnel_header + 14


def payload(length):
    return Raw(bytes((7 * i + 1) & 0xFF for i in range(length)))


def ether(**fields):
    return Ether(**{"src": SENDER["mac"], "dst": RECEIVER["mac"], **fields})


def ip(**fields):
    return IP(**{"src": SENDER["ip"], "dst": RECEIVER["ip"], "id": 0x1234, "ttl": 63, **fields})


def ip6(**fields):
    return IPv6(**{"src": SENDER["ip6"], "dst": RECEIVER["ip6"], "hlim": 62, **fields})


def udp_frame(length=26, **ip_fields):
    """An IPv4 frame with `length` bytes of UDP payload."""
    return bytes(ether() / ip(**ip_fields) / UDP(sport=4000, dport=5000) / payload(length))


def tcp_frame6(length=26, **ip_fields):
    """An IPv6 frame with `length` bytes of TCP payload."""
    return bytes(ether() / ip6(**ip_fields) / TCP(sport=4000, dport=80, seq=1, flags="PA") / payload(length))


def inner_ip(frame):
    """The TOS or traffic class, and the TTL or hop limit of the packet in a frame."""
    packet = Ether(frame)
    if IP in packet:
        return packet[IP].tos, packet[IP].ttl
    return packet[IPv6].tc, packet[IPv6].hlim


def outer_ip(t, inner, **changes):
    tos, ttl = inner_ip(inner)
    dscp = tos if t["tos"] is None else t["tos"]
    ecn = tos & 0x03  # RFC 6040, section 4.1, normal mode
    if over_ipv6(t):
        fields = {
            "src": t["local"],
            "dst": t["remote"],
            "hlim": ttl if t["ttl"] is None else t["ttl"],
            "tc": (dscp & 0xFC) | ecn,
            "fl": 0,
        }
        return IPv6(**{**fields, **changes})
    if t["kind"] == "gre" and Dot1Q in Ether(inner):
        ecn = 0  # the kernel's device (ip_tunnel_ecn_encap) finds no packet behind a tag
    fields = {
        "src": t["local"],
        "dst": t["remote"],
        "ttl": ttl if t["ttl"] is None else t["ttl"],
        "tos": (dscp & 0xFC) | ecn,
        "flags": "DF" if t["df"] else 0,
        "id": 0,
    }
    return IP(**{**fields, **changes})


def tunnel_header(t, **changes):
    if t["kind"] == "vxlan":
        udp = UDP(**{"sport": SOURCE_PORT, "dport": VXLAN_PORT, "chksum": 0, **changes.pop("udp", {})})
        return udp / VXLAN(**{"flags": 0x08, "vni": t["key"], **changes})
    fields = {"proto": TEB}
    if t["key"] is not None:
        fields.update(key_present=1, key=t["key"])
    return GRE(**{**fields, **changes})


def outer_frame(t, inner, ip_changes=None, **tunnel_changes):
    """The frame a tunnel makes of `inner`, whose checksums and lengths Scapy fills in."""
    link = Ether(src=t["source_mac"], dst=t["next_hop_mac"])
    return bytes(link / outer_ip(t, inner, **(ip_changes or {})) / tunnel_header(t, **tunnel_changes) / Raw(inner))


# --- encap.json --------------------------------------------------------------------------------


def encap_vector(name, description, t, inner):
    return {
        "name": name,
        "description": description,
        "tunnel": t,
        # Ours to choose (RFC 7348, section 4.1); the other bytes are not.
        **({"source_port": SOURCE_PORT} if t["kind"] == "vxlan" else {}),
        "inner": inner.hex(),
        "outer": outer_frame(t, inner).hex(),
    }


def zero_checksum_remote(t, inner):
    """The tunnel with a remote for which the outer header's checksum is 0x0000, the end of its range."""
    # Adding a header's checksum to any of its words makes the new checksum zero (RFC 1624).
    checksum = outer_frame({**t, "remote": "198.18.0.0"}, inner)[24:26]
    changed = {**t, "remote": f"198.18.{checksum[0]}.{checksum[1]}"}
    assert outer_frame(changed, inner)[24:26] == b"\0\0"
    return changed


def encap_vectors():
    for t in TUNNELS:
        room = UNDERLAY_MTU - overhead(t)
        inners = {
            "ipv4_udp_minimum": ("IPv4/UDP without payload", udp_frame(0)),
            "ipv4_udp_odd": ("IPv4/UDP, an odd number of bytes", udp_frame(1)),
            "ipv4_udp_60": ("IPv4/UDP, the smallest frame on a wire", udp_frame(18)),
            "ipv4_udp_511": ("IPv4/UDP, 511 bytes of payload", udp_frame(511)),
            "ipv4_udp_mtu_less_1": ("IPv4/UDP, one byte below the MTU", udp_frame(room - 29)),
            "ipv4_udp_mtu": ("IPv4/UDP, exactly the MTU", udp_frame(room - 28)),
            "ipv4_udp_no_checksum": (
                "IPv4/UDP, sent without a checksum",
                bytes(ether() / ip() / UDP(sport=4000, dport=5000, chksum=0) / payload(26)),
            ),
            "ipv4_tcp_syn": (
                "IPv4/TCP, a SYN with its options",
                bytes(ether() / ip(flags="DF") / TCP(sport=4000, dport=80, seq=1, options=[("MSS", 1410), ("WScale", 7)])),
            ),
            "ipv4_tcp_data": (
                "IPv4/TCP, 100 bytes of data",
                bytes(ether() / ip(flags="DF") / TCP(sport=4000, dport=80, seq=1, flags="PA") / payload(100)),
            ),
            "ipv4_icmp": ("IPv4/ICMP echo request", bytes(ether() / ip() / ICMP(id=7, seq=1) / payload(56))),
            "ipv4_options": (
                "IPv4 with options, UDP",
                bytes(
                    ether()
                    / ip(options=[IPOption_Router_Alert(), IPOption_NOP(), IPOption_NOP()])
                    / UDP(sport=4000, dport=5000)
                    / payload(26)
                ),
            ),
            "ipv4_fragment": (
                "IPv4, a middle fragment: no ports to read",
                bytes(ether() / ip(flags="MF", frag=185, proto=17) / payload(64)),
            ),
            "ipv4_other_protocol": (
                "IPv4 with a protocol that has no ports",
                bytes(ether() / ip(proto=253) / payload(44)),
            ),
            "ipv4_padded": ("IPv4/UDP in a frame padded to 60 bytes", udp_frame(0).ljust(60, b"\0")),
            "ipv6_tcp": ("IPv6/TCP, 26 bytes of data", tcp_frame6()),
            "ipv6_tcp_mtu": ("IPv6/TCP, exactly the MTU", tcp_frame6(room - 60)),
            "ipv6_icmpv6": (
                "IPv6/ICMPv6 echo request",
                bytes(ether() / ip6() / ICMPv6EchoRequest(id=7, seq=1, data=b"\x5a" * 57)),
            ),
        }
        for name, (description, inner) in inners.items():
            yield encap_vector(f"{label(t)}_{name}", description, t, inner)

    for t in KINDS:
        for tos, wording in [(0, "TOS 0"), (0x28, "DSCP 10"), (None, "TOS inherited")]:
            for inner_tos in [0xB8 | ecn for ecn in range(4)]:
                for version, inner in [(4, udp_frame(tos=inner_tos)), (6, tcp_frame6(tc=inner_tos, fl=0xFEDCB))]:
                    yield encap_vector(
                        f"{label(t)}_tos_{'inherit' if tos is None else tos}_ipv{version}_{inner_tos:#04x}",
                        f"{wording} over an IPv{version} packet of DSCP 46 and {ECN_NAMES[inner_tos & 3]}",
                        {**t, "tos": tos},
                        inner,
                    )
        for ttl in [1, 64, 255]:
            wording = f"TTL {ttl}, whatever the inner packet's"
            yield encap_vector(f"{label(t)}_ttl_{ttl}", wording, {**t, "ttl": ttl}, udp_frame(ttl=128))
        for inner_ttl in [1, 63, 255]:
            inherit = {**t, "ttl": None}
            for version, inner in [(4, udp_frame(ttl=inner_ttl)), (6, tcp_frame6(hlim=inner_ttl))]:
                yield encap_vector(
                    f"{label(t)}_ttl_inherit_ipv{version}_{inner_ttl}",
                    f"TTL inherited from an IPv{version} packet",
                    inherit,
                    inner,
                )
        if over_ipv6(t):
            continue
        yield encap_vector(f"{label(t)}_df_clear", "Don't Fragment clear", {**t, "df": False}, udp_frame())
        yield encap_vector(
            f"{label(t)}_checksum_zero",
            "addresses for which the outer header's checksum is 0x0000",
            zero_checksum_remote(t, udp_frame()),
            udp_frame(),
        )
        yield encap_vector(
            f"{label(t)}_checksum_carries",
            "addresses that make the outer header's checksum carry",
            {**t, "local": "223.255.255.254", "remote": "223.255.255.253"},
            udp_frame(),
        )
    yield encap_vector("vxlan_0", "VNI 0", tunnel("vxlan", 0), udp_frame())
    yield encap_vector("gre_0", "a key of 0 is still a key", tunnel("gre", 0), udp_frame())


# --- encap_punt.json ---------------------------------------------------------------------------


def encap_punt_vectors():
    group4 = bytes(ether(dst="01:00:5e:00:00:fb") / ip(dst="224.0.0.251") / UDP(sport=5353, dport=5353) / payload(26))
    group6 = bytes(ether(dst="33:33:00:00:00:01") / ip6(dst="ff02::1") / ICMPv6EchoRequest(id=7, seq=1))
    after = {
        "broadcast": ("multicast", "broadcast destination", bytes(ether(dst="ff:ff:ff:ff:ff:ff") / ip() / UDP() / payload(26))),
        "multicast_ipv4": ("multicast", "IPv4 multicast destination", group4),
        "multicast_ipv6": ("multicast", "IPv6 multicast destination", group6),
        "arp_request": (
            "multicast",
            "a broadcast ARP request",
            bytes(ether(dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=SENDER["mac"], psrc=SENDER["ip"], pdst=RECEIVER["ip"])),
        ),
        "arp_reply": (
            "not_ip",
            "a unicast ARP reply",
            bytes(
                ether()
                / ARP(op=2, hwsrc=SENDER["mac"], psrc=SENDER["ip"], hwdst=RECEIVER["mac"], pdst=RECEIVER["ip"])
            ),
        ),
        "local_experimental": ("not_ip", "an EtherType for experiments", bytes(ether(type=0x88B5) / payload(46))),
        "ieee_802_3": ("not_ip", "a length in place of the EtherType", bytes(ether(type=46) / payload(46))),
        "source_zero": ("source_unknown", "source all zero", bytes(ether(src="00:00:00:00:00:00") / ip() / UDP() / payload(26))),
        "source_group": ("source_unknown", "source is a group", bytes(ether(src="03:00:00:00:0a:01") / ip() / UDP() / payload(26))),
        "vlan": ("vlan_stacked", "802.1Q tag beside that which reception takes out", bytes(ether() / Dot1Q(vlan=7) / ip() / UDP() / payload(26))),
        "vlan_priority": ("vlan_stacked", "802.1Q priority tag beside it", bytes(ether() / Dot1Q(vlan=0, prio=5) / ip() / UDP() / payload(26))),
        "service_vlan": ("vlan_stacked", "802.1ad tag beside it", bytes(ether() / Dot1AD(vlan=7) / ip() / UDP() / payload(26))),
        "source_unknown": ("source_unknown", "the FDB has no such source", bytes(ether(src=STRANGER) / ip() / UDP() / payload(26))),
        "destination_unknown": (
            "destination_unknown",
            "the FDB has no such destination",
            bytes(ether(dst=STRANGER) / ip() / UDP() / payload(26)),
        ),
        "same_port": ("same_port", "to the station that sends", bytes(ether(dst=SENDER["mac"]) / ip() / UDP() / payload(26))),
        "ethernet_only": ("truncated", "nothing after the Ethernet header", bytes(ether(type=0x0800))),
        "ipv4_cut": ("truncated", "one byte short of an IPv4 header", udp_frame()[: 14 + 19]),
        "ipv6_cut": ("truncated", "one byte short of an IPv6 header", tcp_frame6()[: 14 + 39]),
        "ipv6_cut_as_ipv4": ("truncated", "an IPv6 header as long as IPv4's", tcp_frame6()[: 14 + 20]),
    }
    for name, (reason, description, frame) in after.items():
        yield {"name": name, "description": description, "tunnel": TUNNELS[0], "frame": frame.hex(), "reason": reason}
    for t in KINDS:
        if not over_ipv6(t) or t["kind"] == "vxlan":
            continue
        for name, header in [
            ("hop_by_hop", IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])),
            ("routing", IPv6ExtHdrRouting(addresses=["fd00::9"], segleft=0)),
            ("encapsulation_limit", IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=4, optdata=b"\4"), PadN(optdata=bytes(1))])),
        ]:
            yield {
                "name": f"{label(t)}_inner_{name}",
                "description": "options that an ip6gretap device reads",
                "tunnel": t,
                "frame": bytes(ether() / ip6() / header / UDP(sport=4000, dport=5000) / payload(26)).hex(),
                "reason": "inner_options",
            }
    for t in TUNNELS:
        room = UNDERLAY_MTU - overhead(t)
        for version, frame in [(4, udp_frame(room - 27)), (6, tcp_frame6(room - 59))]:
            yield {
                "name": f"{label(t)}_too_big_ipv{version}",
                "description": "one byte above the MTU",
                "tunnel": t,
                "frame": frame.hex(),
                "reason": "too_big",
            }


# --- decap.json --------------------------------------------------------------------------------


def with_bytes(frame, offset, new):
    return frame[:offset] + new + frame[offset + len(new) :]


def with_ip_checksum(frame):
    """The frame with the checksum its IPv4 header should have, by Scapy."""
    packet = Ether(with_bytes(frame, 24, b"\0\0"))
    del packet[IP].chksum
    return with_bytes(frame, 24, bytes(packet)[24:26])


def cut(frame, length, t):
    """The first `length` bytes, with the lengths in the IP and UDP headers agreeing."""
    if over_ipv6(t):
        frame = with_bytes(frame, 18, struct.pack("!H", max(length - 54, 0)))
    else:
        frame = with_bytes(frame, 16, struct.pack("!H", length - 14))
    if t["kind"] == "vxlan" and length >= l4(t) + 8:
        frame = with_bytes(frame, l4(t) + 4, struct.pack("!H", length - l4(t)))
    return frame[:length] if over_ipv6(t) else with_ip_checksum(frame)[:length]


def outer_changes(t):
    """Outer headers with one thing wrong: name, reason, description, frame."""
    inner = udp_frame()
    good = outer_frame(t, inner)
    total = len(good) - 14
    yield "more_fragments", "outer_fragment", "the first fragment", outer_frame(t, inner, {"flags": "MF"})
    yield "fragment_offset", "outer_fragment", "a later fragment", outer_frame(t, inner, {"flags": 0, "frag": 185})
    # The options stand where the UDP port would.
    options = "not_tunnel" if t["kind"] == "vxlan" else "outer_malformed"
    yield "options", options, "an IPv4 option", outer_frame(t, inner, {"options": [IPOption_NOP()] * 4})
    yield "ip_checksum", "outer_malformed", "a wrong IPv4 checksum", with_bytes(good, 24, bytes([good[24] ^ 0x10]))
    yield "ip_version", "outer_malformed", "IP version 5", outer_frame(t, inner, {"version": 5})
    yield "ip_header_length", "outer_malformed", "a header length of 16 bytes", with_ihl(good, 4)
    yield "total_length_less", "outer_malformed", "a total length one byte short of the frame", outer_frame(t, inner, {"len": total - 1})
    yield "total_length_more", "outer_malformed", "a total length beyond the frame", outer_frame(t, inner, {"len": total + 1})
    yield "padded", "outer_malformed", "bytes after the IPv4 packet", good + bytes(6)
    yield "last_byte_lost", "outer_malformed", "a frame that lost its last byte", good[:-1]
    yield "remote", "tunnel_unknown", "from an address that is no remote", outer_frame(t, inner, {"src": "192.0.2.9"})
    yield "local", "tunnel_unknown", "to an address that is not the tunnel's", outer_frame(t, inner, {"dst": "192.0.2.9"})
    yield "reflected", "tunnel_unknown", "local and remote exchanged", outer_frame(t, inner, {"src": t["remote"], "dst": t["local"]})
    yield from to_others(good)
    yield "tcp", "not_tunnel", "TCP", outer_frame(t, inner, {"proto": 6})
    yield "ipip", "not_tunnel", "IP in IP", outer_frame(t, inner, {"proto": 4})
    yield "underlay_ipv6", "not_tunnel", "an IPv6 EtherType", with_bytes(good, 12, b"\x86\xdd")
    yield "underlay_arp", "not_tunnel", "an ARP EtherType", with_bytes(good, 12, b"\x08\x06")


def to_others(good):
    yield "other_host", "not_tunnel", "to another host's MAC", with_bytes(good, 0, bytes.fromhex("0200000001ff"))
    yield "broadcast", "not_tunnel", "to the broadcast MAC", with_bytes(good, 0, b"\xff" * 6)
    yield "group", "not_tunnel", "to a group MAC", with_bytes(good, 0, bytes.fromhex("01005e000001"))


def outer_changes6(t):
    """The same over IPv6."""
    inner = udp_frame()
    good = outer_frame(t, inner)
    payload_length = len(good) - 54
    with_header = lambda header: bytes(
        Ether(src=t["source_mac"], dst=t["next_hop_mac"]) / outer_ip(t, inner) / header / tunnel_header(t) / Raw(inner)
    )
    fragment = {"id": 7, "nh": good[20]}
    yield "fragment_first", "outer_fragment", "the first fragment", with_header(IPv6ExtHdrFragment(m=1, **fragment))
    yield "fragment_later", "outer_fragment", "a later fragment", with_header(IPv6ExtHdrFragment(offset=185, **fragment))
    yield "fragment_atomic", "outer_fragment", "a fragment that is whole", with_header(IPv6ExtHdrFragment(**fragment))
    yield "fragment_other", "not_tunnel", "a fragment of TCP", with_header(IPv6ExtHdrFragment(id=7, nh=6))
    for name, header in [
        ("hop_by_hop", IPv6ExtHdrHopByHop(nh=good[20], options=[PadN(optdata=bytes(4))])),
        ("encapsulation_limit", IPv6ExtHdrDestOpt(nh=good[20], options=[HBHOptUnknown(otype=4, optdata=b"\4"), PadN(optdata=bytes(1))])),
        ("routing", IPv6ExtHdrRouting(nh=good[20], addresses=["2001:db8::9"], segleft=0)),
    ]:
        yield name, "outer_malformed", f"an extension header: {name}", with_header(header)
    yield "ip_version", "outer_malformed", "IP version 5", outer_frame(t, inner, {"version": 5})
    yield "payload_length_less", "outer_malformed", "a payload length one byte short of the frame", outer_frame(t, inner, {"plen": payload_length - 1})
    yield "payload_length_more", "outer_malformed", "a payload length beyond the frame", outer_frame(t, inner, {"plen": payload_length + 1})
    yield "payload_length_zero", "outer_malformed", "a payload length of zero, as of a jumbogram", outer_frame(t, inner, {"plen": 0})
    yield "padded", "outer_malformed", "bytes after the IPv6 packet", good + bytes(6)
    yield "last_byte_lost", "outer_malformed", "a frame that lost its last byte", good[:-1]
    yield "remote", "tunnel_unknown", "from an address that is no remote", outer_frame(t, inner, {"src": "2001:db8::9"})
    yield "remote_prefix", "tunnel_unknown", "from an address with another prefix", outer_frame(t, inner, {"src": "2001:db9::1"})
    yield "local", "tunnel_unknown", "to an address that is not the tunnel's", outer_frame(t, inner, {"dst": "2001:db8::9"})
    yield "reflected", "tunnel_unknown", "local and remote exchanged", outer_frame(t, inner, {"src": t["remote"], "dst": t["local"]})
    yield "tcp", "not_tunnel", "TCP", outer_frame(t, inner, {"nh": 6})
    yield "icmpv6", "not_tunnel", "ICMPv6", outer_frame(t, inner, {"nh": 58})
    yield "ipip6", "not_tunnel", "IPv6 in IPv6", outer_frame(t, inner, {"nh": 41})
    yield from to_others(good)


def with_ihl(frame, words):
    frame = with_bytes(frame, 14, bytes([0x40 | words]))
    header = with_bytes(frame[14:34], 10, b"\0\0")[: words * 4]
    folded = sum(struct.unpack(f"!{len(header) // 2}H", header))
    folded = (folded & 0xFFFF) + (folded >> 16)
    return with_bytes(frame, 24, struct.pack("!H", ~folded & 0xFFFF))


def vxlan_changes(t):
    inner = udp_frame()
    good = outer_frame(t, inner)
    udp_length = len(good) - l4(t)
    vxlan = l4(t) + 8
    yield "other_port", "not_tunnel", "another UDP port", outer_frame(t, inner, udp={"dport": 4790})
    yield "from_port", "not_tunnel", "the port as source only", outer_frame(t, inner, udp={"sport": 4789, "dport": 54321})
    yield "udp_length_less", "outer_malformed", "a UDP length one byte short", outer_frame(t, inner, udp={"len": udp_length - 1})
    yield "udp_length_more", "outer_malformed", "a UDP length beyond the packet", outer_frame(t, inner, udp={"len": udp_length + 1})
    yield "vni_less_1", "tunnel_unknown", "a VNI that differs in its lowest bit", outer_frame(t, inner, vni=t["key"] ^ 1)
    yield "vni_high", "tunnel_unknown", "a VNI that differs in its highest bit", outer_frame(t, inner, vni=t["key"] ^ 0x800000)
    yield "no_vni_flag", "tunnel_flags", "the I flag clear", with_bytes(good, vxlan, b"\x00")
    for bit in (0x80, 0x40, 0x20, 0x10, 0x04, 0x02, 0x01):
        yield f"flag_{bit:#04x}", "tunnel_flags", f"flag {bit:#04x} set", with_bytes(good, vxlan, bytes([0x08 | bit]))
    for offset in (1, 2, 3, 7):
        yield f"reserved_byte_{offset}", "tunnel_flags", "a reserved byte that is not zero", with_bytes(good, vxlan + offset, b"\x01")


def gre_changes(t):
    inner = udp_frame()
    good = outer_frame(t, inner)
    yield "gre_checksum", "tunnel_flags", "GRE with a checksum", outer_frame(t, inner, chksum_present=1)
    yield "gre_sequence", "tunnel_flags", "GRE with a sequence number", outer_frame(t, inner, seqnum_present=1, seqence_number=1)
    yield "gre_routing", "tunnel_flags", "GRE with the routing bit", outer_frame(t, inner, routing_present=1)
    yield "gre_strict_route", "tunnel_flags", "GRE with the strict source route bit", outer_frame(t, inner, strict_route_source=1)
    yield "gre_recursion", "tunnel_flags", "GRE with recursion control", outer_frame(t, inner, recursion_control=1)
    yield "gre_reserved", "tunnel_flags", "GRE with a reserved flag", outer_frame(t, inner, flags=1)
    yield "gre_version", "tunnel_flags", "GRE version 1 (PPTP)", outer_frame(t, inner, version=1)
    yield "gre_ipv4", "tunnel_flags", "GRE that carries IPv4, not Ethernet", outer_frame(t, inner, proto=0x0800)
    yield "gre_erspan", "tunnel_flags", "GRE that carries ERSPAN, not Ethernet", outer_frame(t, inner, proto=0x88BE)
    if t["key"] is None:
        yield "gre_key", "tunnel_unknown", "a key where the tunnel has none", outer_frame(t, inner, key_present=1, key=0)
    else:
        yield "gre_no_key", "tunnel_unknown", "no key where the tunnel has one", outer_frame(t, inner, key_present=0)
        yield "gre_other_key", "tunnel_unknown", "another key", outer_frame(t, inner, key=t["key"] ^ 0x80000000)
        key_of_zero = with_bytes(good, l4(t) + 4, bytes(4))
        yield "gre_key_0", "tunnel_unknown", "a key of 0", key_of_zero


def truncations(t):
    """Frames that end within a header, while the IP and UDP lengths agree with what is there."""
    good = outer_frame(t, udp_frame())
    inner = len(good) - len(udp_frame())
    yield "ethernet_only", "not a byte of IP", good[:14]
    yield "ip_header", "one byte short of the IP header", good[: l4(t) - 1]
    yield "tunnel_nothing", "nothing after the IP header", cut(good, l4(t), t)
    yield "tunnel_header", "one byte short of the tunnel header", cut(good, inner - 1, t)
    if t["kind"] == "vxlan":
        yield "udp_header", "one byte short of the UDP header", cut(good, l4(t) + 7, t)
        yield "vxlan_nothing", "nothing after the UDP header", cut(good, l4(t) + 8, t)
    elif t["key"] is not None:
        yield "gre_key", "nothing after the first word of GRE", cut(good, l4(t) + 4, t)
    yield "inner_nothing", "no inner frame", cut(good, inner, t)
    yield "inner_ethernet", "one byte short of the inner Ethernet header", cut(good, inner + 13, t)
    yield "inner_ip_nothing", "nothing after the inner Ethernet header", cut(good, inner + 14, t)
    yield "inner_ip", "one byte short of the inner IPv4 header", cut(good, inner + 33, t)


def outer_of(t, inner):
    """The frame a tunnel makes of an inner frame that need not be IP."""
    return outer_frame({**t, "tos": 0, "ttl": 64}, udp_frame())[: -len(udp_frame())] + inner


def relength(frame, t):
    return cut(frame, len(frame), t)


def decap_vectors():
    for t in KINDS:
        changes = vxlan_changes if t["kind"] == "vxlan" else gre_changes
        of_ip = outer_changes6 if over_ipv6(t) else outer_changes
        for name, reason, description, frame in [*of_ip(t), *changes(t)]:
            yield decap_vector(t, name, description, frame, reason=reason)
        for name, description, frame in truncations(t):
            # What ends within the outer headers up to UDP's cannot be told from other traffic.
            reason = "not_tunnel" if len(frame) < l4(t) + 8 else "truncated"
            yield decap_vector(t, f"truncated_{name}", description, frame, reason=reason)
        for length, wording in [(20, "as long as IPv4's"), (39, "one byte short")]:
            frame = cut(outer_frame(t, tcp_frame6()), overhead(t) + 14 + length, t)
            description = f"an inner IPv6 header {wording}"
            yield decap_vector(t, f"truncated_inner_ip6_{length}", description, frame, reason="truncated")
        for vector in encap_punt_vectors():
            # What is wrong with a frame in a tunnel is what is wrong with it anywhere, but that a tag is
            # its only one here.
            if vector["reason"] in ("multicast", "not_ip", "vlan_stacked", "source_unknown", "destination_unknown"):
                frame = relength(outer_of(t, bytes.fromhex(vector["frame"])), t)
                reason = vector["reason"].replace("vlan_stacked", "vlan_tagged")
                description = vector["description"].split(" beside ")[0]
                yield decap_vector(t, f"inner_{vector['name']}", description, frame, reason=reason)
        for inner_ecn in range(4):
            for outer_ecn in range(4):
                for version, inner in [(4, udp_frame(tos=0xB8 | inner_ecn)), (6, tcp_frame6(tc=0xB8 | inner_ecn))]:
                    frame = outer_frame(t, inner, {"tc" if over_ipv6(t) else "tos": outer_ecn})
                    result = egress(inner_ecn, outer_ecn)["result"]
                    yield decap_vector(
                        t,
                        f"ecn_ipv{version}_{inner_ecn}_in_{outer_ecn}",
                        f"{ECN_NAMES[inner_ecn]} in {ECN_NAMES[outer_ecn]}, IPv{version}",
                        frame,
                        **({"reason": "ecn_mark"} if result is None else {"inner": with_ecn(inner, result)}),
                    )
        if t["kind"] == "vxlan":
            # RFC 7348, section 4.1: a receiver may do without verifying it.
            checksums = [("", "a right", None), ("_wrong", "a wrong", 0xBAD1), ("_ones", "an all-ones", 0xFFFF)]
            for name, wording, checksum in checksums:
                for version, inner in [(4, udp_frame()), (6, tcp_frame6())]:
                    frame = outer_frame(t, inner, udp={"chksum": checksum})
                    assert frame[l4(t) + 6 : l4(t) + 8] != bytes(2)
                    description = f"{wording} UDP checksum over an IPv{version} packet"
                    yield decap_vector(t, f"udp_checksum{name}_ipv{version}", description, frame, inner=inner)
        ttl, dscp = ("hlim", "tc") if over_ipv6(t) else ("ttl", "tos")
        yield decap_vector(t, "ttl_1", "an outer TTL of 1 is still for us", outer_frame(t, udp_frame(), {ttl: 1}), inner=udp_frame())
        yield decap_vector(t, "dscp", "an outer DSCP stays outside", outer_frame(t, udp_frame(), {dscp: 0xB8}), inner=udp_frame())
        if over_ipv6(t):
            labelled = outer_frame(t, udp_frame(), {"fl": 0xFEDCB})
            yield decap_vector(t, "flow_label", "a flow label", labelled, inner=udp_frame())
        else:
            fragmentable = outer_frame(t, udp_frame(), {"flags": 0, "id": 0xABCD})
            yield decap_vector(t, "no_df", "Don't Fragment clear, with an id", fragmentable, inner=udp_frame())


def with_ecn(frame, ecn):
    """The frame with another ECN field in its IP header, and the checksum that Scapy computes for it."""
    packet = Ether(frame)
    if IP in packet:
        packet[IP].tos = packet[IP].tos & 0xFC | ecn
        del packet[IP].chksum
    else:
        packet[IPv6].tc = packet[IPv6].tc & 0xFC | ecn
    return bytes(packet)


def decap_vector(t, name, description, frame, inner=None, reason=None):
    expected = {"inner": inner.hex()} if reason is None else {"reason": reason}
    return {"name": f"{label(t)}_{name}", "description": description, "tunnel": t, "outer": frame.hex(), **expected}


# --- vlan.json ---------------------------------------------------------------------------------

# The VLAN of frames without a tag, and whether frames with a tag are taken.
VLAN_PORTS = {"access": (10, False), "native": (10, True), "trunk": (None, True)}
VLAN_TAGS = {
    "untagged": (),
    "10": (Dot1Q(vlan=10),),
    "10_priority": (Dot1Q(vlan=10, prio=5),),
    "20_priority": (Dot1Q(vlan=20, prio=3),),
    "4094": (Dot1Q(vlan=4094, prio=7),),
    "no_vlan": (Dot1Q(vlan=0, prio=5),),
    "no_vlan_no_priority": (Dot1Q(vlan=0),),
    "eligible": (Dot1Q(vlan=20, prio=3, id=1),),
    "service": (Dot1AD(vlan=20),),
    "stacked": (Dot1Q(vlan=20), Dot1Q(vlan=30)),
    "service_stacked": (Dot1AD(vlan=20), Dot1Q(vlan=30)),
}


def with_tags(frame, tags):
    """The frame with these tags, outermost first."""
    packet = Ether(frame)
    link, rest = packet.copy(), packet.payload
    link.remove_payload()
    del link.type
    for tag in tags:
        link = link / tag.copy()
    return bytes(link / rest)


def vlan_outcome(native, takes_tags, tags):
    """The VLAN of an arriving frame and the priority of its tag, or the reason against it."""
    if not tags:
        return (native, None) if native is not None else "vlan_untagged"
    if not takes_tags:
        return "vlan_tagged"
    if len(tags) > 1 or isinstance(tags[0], Dot1AD):
        return "vlan_stacked"
    if tags[0].vlan == 0 or tags[0].id:
        return "vlan_priority"
    return tags[0].vlan, tags[0].prio


def vlan_rows():
    """What arrives where, and how it leaves: name, port, tags, VLAN of the stations, tagged."""
    for port in VLAN_PORTS:
        for tag in VLAN_TAGS:
            for tagged in [False, True]:
                yield f"{port}_{tag}_{'tagged' if tagged else 'untagged'}", port, tag, None, tagged
    # Stations of another VLAN are none of the frame's.
    yield "access_untagged_elsewhere", "access", "untagged", 20, False
    yield "native_20_elsewhere", "native", "20_priority", 10, False
    yield "trunk_10_elsewhere", "trunk", "10", 20, True


def vlan_vectors():
    t = tunnel("vxlan", 42)
    room = UNDERLAY_MTU - overhead(t)
    ways = [("port", "port", t), ("port", "tunnel", t), ("tunnel", "port", t)]
    ways += [(a, b, g) for g in [tunnel("gre", None), tunnel("gre", 0x2A)] for a, b in [("port", "tunnel"), ("tunnel", "port")]]
    for source, destination, t in ways:
        way = f"{source}_{destination}" if source == destination else f"{source}_{destination}_{label(t)}"
        for row, port, tag, stations, tagged in vlan_rows():
            for version, inner in [(4, udp_frame(tos=0xBA)), (6, tcp_frame6(tc=0xBA))]:
                name = f"{way}_{row}_ipv{version}"
                yield vlan_vector(name, source, destination, t, port, tag, stations, tagged, inner)
        # What a tag takes of the underlay's MTU, and not of a port's.
        limit = 1500
        if destination == "tunnel":
            limit = UNDERLAY_MTU - overhead(t)
        for port, tag, tagged in [("access", "untagged", False), ("access", "untagged", True), ("trunk", "10_priority", True), ("trunk", "10", False)]:
            most = limit - (4 if tagged and destination == "tunnel" else 0)
            for over in [0, 1]:
                name = f"{way}_{port}_{tag}_{'tagged' if tagged else 'untagged'}_{'too_big' if over else 'mtu'}"
                yield vlan_vector(
                    name, source, destination, t, port, tag, None, tagged, udp_frame(most + over - 28), "too_big" if over else None
                )


def vlan_vector(name, source, destination, t, port, tag, stations, tagged, inner, reason=None):
    native, takes_tags = VLAN_PORTS[port]
    tags = VLAN_TAGS[tag]
    outcome = vlan_outcome(native, takes_tags, tags)
    frame = with_tags(inner, tags)
    arriving = outer_frame(t, frame) if source == "tunnel" else frame
    vector = {
        "name": name,
        "tunnel": t,
        "from": source,
        "to": destination,
        # Of the port or tunnel that the frame arrives by.
        "native": native,
        "takes_tags": takes_tags,
        # Both stations are known in this VLAN.
        "vlan": stations or 10,
        # Whether the destination's frames leave with a tag.
        "tagged": tagged,
        "frame": arriving.hex(),
    }
    if isinstance(outcome, str):
        return {**vector, "reason": outcome}
    vlan, priority = outcome
    if stations not in (None, vlan):
        return {**vector, "reason": "source_unknown"}
    vector["vlan"] = vlan
    if reason is not None:
        return {**vector, "reason": reason}
    leaving = with_tags(inner, [Dot1Q(vlan=vlan, prio=priority or 0)] if tagged else [])
    if destination == "tunnel":
        leaving = outer_frame(t, leaving)
    return {**vector, "leaves": leaving.hex()}


# --- ecn.json ----------------------------------------------------------------------------------

# RFC 6040, figure 4: by arriving inner field, then outer field in the order Not-ECT, ECT(0), ECT(1), CE.
EGRESS = {
    NOT_ECT: [(NOT_ECT, ""), (NOT_ECT, "(!!!)"), (NOT_ECT, "(!!!)"), (None, "(!!!)")],
    ECT_0: [(ECT_0, ""), (ECT_0, ""), (ECT_1, ""), (CE, "")],
    ECT_1: [(ECT_1, ""), (ECT_1, "(!)"), (ECT_1, ""), (CE, "")],
    CE: [(CE, ""), (CE, ""), (CE, "(!!!)"), (CE, "")],
}


def egress(inner, outer):
    result, concern = EGRESS[inner][[NOT_ECT, ECT_0, ECT_1, CE].index(outer)]
    return {"inner": inner, "outer": outer, "result": result, "concern": concern}


def write(name, description, **content):
    """One vector a line, so that a difference shows which one."""
    head = f'{{"description": {json.dumps(description)}'
    lists = (
        f'"{key}": [\n' + ",\n".join(json.dumps(item) for item in items) + "\n]" for key, items in content.items()
    )
    path = Path(__file__).with_name(name)
    path.write_text(head + ",\n" + ",\n".join(lists) + "}\n")
    return {key: len(items) for key, items in content.items()}


def unique(vectors):
    vectors = list(vectors)
    assert len({vector["name"] for vector in vectors}) == len(vectors), "two vectors have one name"
    return vectors


def main():
    written = {
        "encap.json": write(
            "encap.json",
            "Frames from a container and what a tunnel makes of them. A ttl or tos of null is inherited.",
            vectors=unique(encap_vectors()),
        ),
        "encap_punt.json": write(
            "encap_punt.json",
            "Frames from a container that are left to the bridge, for the reason given.",
            vectors=unique(encap_punt_vectors()),
        ),
        "decap.json": write(
            "decap.json",
            "Frames from the underlay with one thing out of the ordinary: forwarded as the inner frame, or left to"
            " the kernel for the reason given. The tunnel is described from the sender's side.",
            vectors=unique(decap_vectors()),
        ),
        "vlan.json": write(
            "vlan.json",
            "Frames that arrive with and without VLAN tags, and how they leave: `from` and `to` are a port or the"
            " tunnel, `native` is the VLAN of frames without a tag, both stations are known in `vlan`, and `tagged`"
            " says whether the destination's frames leave with a tag. The tunnel is described from the sender's side.",
            vectors=unique(vlan_vectors()),
        ),
        "ecn.json": write(
            "ecn.json",
            "RFC 6040: ingress is normal mode (figure 3), egress is figure 4 with its marks of concern; a result of"
            " null is a drop. 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.",
            ingress=[{"inner": ecn, "outer": ecn} for ecn in range(4)],
            egress=[egress(inner, outer) for inner in range(4) for outer in range(4)],
        ),
    }
    for name, counts in written.items():
        print(name, counts)


if __name__ == "__main__":
    main()
