#!/usr/bin/python3
"""Writes security.json beside this file with Scapy: frames from a secured port whose own are one MAC, 10.0.0.1,
fd00::1 and that MAC's link-local address, and why they are discarded; null are those that go on.

    /usr/bin/python3 tests/vectors/security.py      (Debian: python3-scapy)
"""

import socket

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLDMultAddrRec,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
    RouterAlert,
    in6_getnsma,
    in6_getnsmac,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, LLC, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from generate import unique, write

MAC, OTHER = "02:00:00:00:0a:01", "02:00:00:00:0c:03"
IP4, OTHER4 = "10.0.0.1", "10.0.0.3"
IP6, OTHER6 = "fd00::1", "fd00::3"
LINK_LOCAL, OTHER_LINK_LOCAL = "fe80::ff:fe00:a01", "fe80::ff:fe00:c03"
PEER, PEER4, PEER6 = "02:00:00:00:0b:02", "10.0.0.2", "fd00::2"
BROADCAST, ALL_NODES = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
SPOOFED_MAC, SPOOFED_IP, HIDDEN = "spoofed_mac", "spoofed_ip", "sender_hidden"
SLLA, TLLA = ICMPv6NDOptSrcLLAddr, ICMPv6NDOptDstLLAddr

def frame(payload, source=MAC, destination=PEER, **fields):
    return bytes(Ether(src=source, dst=destination, **fields) / payload)

def arp(mac=MAC, address=IP4, source=MAC, destination=BROADCAST, **fields):
    return frame(ARP(hwsrc=mac, psrc=address, hwdst="00:00:00:00:00:00", pdst=PEER4, **fields), source, destination)

def dhcp(address="0.0.0.0", target="255.255.255.255", sport=68, dport=67, **fields):
    discover = BOOTP(chaddr=bytes(6), xid=1) / DHCP(options=[("message-type", "discover"), "end"])
    return frame(IP(src=address, dst=target, **fields) / UDP(sport=sport, dport=dport) / discover, destination=BROADCAST)

def solicit(source=IP6, target=PEER6, *options, headers=()):
    """Asks for a neighbour, or from nobody whether there is one."""
    group = socket.inet_ntop(socket.AF_INET6, in6_getnsma(socket.inet_pton(socket.AF_INET6, target)))
    packet = IPv6(src=source, dst=group, hlim=255)
    for header in headers:
        packet /= header
    packet /= ICMPv6ND_NS(tgt=target)
    for option in options:
        packet /= option
    return frame(packet, destination=in6_getnsmac(socket.inet_pton(socket.AF_INET6, target)))

def nd(message, source=LINK_LOCAL, *options, to="ff02::1", headers=()):
    packet = IPv6(src=source, dst=to, hlim=255)
    for part in (*headers, message, *options):
        packet /= part
    return frame(packet, destination=ALL_NODES)

def options(header):
    return header(options=[PadN(optdata=bytes(4))])

def without_length(data, at):
    """A frame whose option at this place says that it has no length."""
    return data[: at + 1] + b"\0" + data[at + 2 :]

def without_payload(data):
    """An IPv6 packet whose payload length is 0."""
    return data[:18] + b"\0\0" + data[20:]

def rows():
    # Frames.
    yield "ipv4", "from its own address", frame(IP(src=IP4, dst=PEER4) / ICMP()), None
    yield "ipv4_other_mac", "from another MAC", frame(IP(src=IP4, dst=PEER4) / ICMP(), OTHER), SPOOFED_MAC
    yield "ipv4_group_mac", "from a group's MAC", frame(IP(src=IP4, dst=PEER4) / ICMP(), BROADCAST), SPOOFED_MAC
    yield "ipv4_other", "from another address", frame(IP(src=OTHER4, dst=PEER4) / ICMP()), SPOOFED_IP
    yield "ipv4_options", "with options, from another address", frame(
        IP(src=OTHER4, dst=PEER4, options=[IPOption_NOP()] * 4) / ICMP()
    ), SPOOFED_IP
    yield "ipv4_fragment", "a later fragment from another address", frame(
        IP(src=OTHER4, dst=PEER4, frag=100, proto=17) / Raw(bytes(40))
    ), SPOOFED_IP
    yield "ipv4_broadcast", "to all, from its own address", frame(
        IP(src=IP4, dst="10.0.0.255") / UDP() / Raw(bytes(20)), destination=BROADCAST
    ), None
    yield "ipv4_version", "says IPv4 and is not", frame(Raw(b"\x65" + bytes(39)), type=0x0800), HIDDEN
    yield "stp", "neither IP nor ARP", bytes(
        Ether(bytes.fromhex("0180c2000000") + bytes.fromhex("02000000" "0a01") + b"\0\x26") / LLC() / Raw(bytes(35))
    ), None
    yield "stp_other_mac", "neither IP nor ARP, from another MAC", bytes(
        Ether(bytes.fromhex("0180c2000000") + bytes.fromhex("02000000" "0c03") + b"\0\x26") / LLC() / Raw(bytes(35))
    ), SPOOFED_MAC
    yield "tagged", "a tag within the frame", frame(Dot1Q(vlan=5) / IP(src=IP4, dst=PEER4) / ICMP()), HIDDEN
    yield "service_tagged", "a service tag", frame(Dot1AD(vlan=5) / IP(src=IP4, dst=PEER4) / ICMP()), HIDDEN

    # DHCP.
    yield "dhcp", "asks for an address", dhcp(), None
    yield "dhcp_own", "keeps its address", dhcp(IP4), None
    yield "dhcp_other", "from an address that it has not", dhcp(OTHER4), SPOOFED_IP
    yield "dhcp_server", "from nobody, as a server", dhcp(sport=67, dport=68), SPOOFED_IP
    yield "dhcp_unicast", "from nobody, to one", dhcp(target=PEER4), SPOOFED_IP
    yield "dhcp_fragment", "from nobody, a first fragment", dhcp(flags="MF"), SPOOFED_IP
    yield "dhcp_options", "from nobody, with IP options", dhcp(options=[IPOption_NOP()] * 4), SPOOFED_IP
    yield "nobody_udp", "from nobody, to another port", dhcp(dport=53), SPOOFED_IP
    yield "nobody_icmp", "from nobody, an echo", frame(
        IP(src="0.0.0.0", dst="255.255.255.255") / ICMP(), destination=BROADCAST
    ), SPOOFED_IP

    # ARP.
    yield "arp", "asks", arp(), None
    yield "arp_reply", "answers", arp(op=2, destination=PEER), None
    yield "arp_probe", "asks whether an address is free", arp(address="0.0.0.0"), None
    yield "arp_other_mac", "speaks for another MAC", arp(OTHER), SPOOFED_MAC
    yield "arp_other", "speaks for another address", arp(address=OTHER4), SPOOFED_IP
    yield "arp_reply_other", "answers for another", arp(address=OTHER4, op=2, destination=PEER), SPOOFED_IP
    yield "arp_other_frame", "its own ARP in another's frame", arp(source=OTHER), SPOOFED_MAC
    yield "arp_hardware", "of IEEE 802 networks", arp(hwtype=6), HIDDEN
    yield "arp_lengths", "of other lengths", arp(hwlen=8), HIDDEN
    yield "arp_cut", "cut", arp()[:41], HIDDEN
    yield "rarp", "announces itself as a moved virtual machine does", frame(
        ARP(op=3, hwsrc=MAC, hwdst=MAC, psrc="0.0.0.0", pdst="0.0.0.0"), destination=BROADCAST, type=0x8035
    ), None
    yield "rarp_other", "announces another", frame(
        ARP(op=3, hwsrc=OTHER, hwdst=OTHER, psrc="0.0.0.0", pdst="0.0.0.0"), destination=BROADCAST, type=0x8035
    ), SPOOFED_MAC

    # IPv6.
    yield "ipv6", "from its own address", frame(IPv6(src=IP6, dst=PEER6) / UDP() / Raw(bytes(20))), None
    yield "ipv6_link_local", "from its link-local address", frame(
        IPv6(src=LINK_LOCAL, dst=PEER6) / UDP() / Raw(bytes(20))
    ), None
    yield "ipv6_other", "from another address", frame(IPv6(src=OTHER6, dst=PEER6) / UDP() / Raw(bytes(20))), SPOOFED_IP
    yield "ipv6_other_link_local", "from another link-local address", frame(
        IPv6(src=OTHER_LINK_LOCAL, dst=PEER6) / UDP() / Raw(bytes(20))
    ), SPOOFED_IP
    yield "ipv6_mapped", "from the IPv4 address that it has, mapped", frame(
        IPv6(src=f"::ffff:{IP4}", dst=PEER6) / UDP() / Raw(bytes(20))
    ), SPOOFED_IP
    yield "ipv6_nobody", "from nobody, UDP", frame(IPv6(src="::", dst=PEER6) / UDP() / Raw(bytes(20))), SPOOFED_IP
    yield "ipv6_nobody_echo", "from nobody, an echo", frame(
        IPv6(src="::", dst="ff02::1") / ICMPv6EchoRequest(), destination=ALL_NODES
    ), SPOOFED_IP
    yield "ipv6_nobody_fragment", "from nobody, a later fragment", frame(
        IPv6(src="::", dst="ff02::1") / IPv6ExtHdrFragment(nh=58, offset=10) / Raw(bytes(20)), destination=ALL_NODES
    ), SPOOFED_IP
    yield "ipv6_version", "says IPv6 and is not", frame(Raw(b"\x45" + bytes(59)), type=0x86DD), HIDDEN
    yield "ipv6_fragment", "a later fragment", frame(
        IPv6(src=IP6, dst=PEER6) / IPv6ExtHdrFragment(nh=58, offset=10) / Raw(bytes(20))
    ), None
    yield "ipv6_first_fragment", "a long echo's first fragment", frame(
        IPv6(src=IP6, dst=PEER6) / IPv6ExtHdrFragment(nh=58, m=1) / ICMPv6EchoRequest(data=bytes(40))
    ), None
    yield "ipv6_endless", "more headers than anybody sends", frame(
        IPv6(src=IP6, dst=PEER6)
        / options(IPv6ExtHdrDestOpt)
        / options(IPv6ExtHdrDestOpt)
        / options(IPv6ExtHdrDestOpt)
        / options(IPv6ExtHdrDestOpt)
        / options(IPv6ExtHdrDestOpt)
        / options(IPv6ExtHdrDestOpt)
        / UDP()
    ), HIDDEN
    yield "ipv6_cut", "cut within its headers", frame(
        IPv6(src=IP6, dst=PEER6, nh=60) / Raw(bytes([60, 4])) / Raw(bytes(6))
    ), HIDDEN

    # Neighbour discovery.
    yield "ns", "asks for a neighbour", solicit(IP6, PEER6, SLLA(lladdr=MAC)), None
    yield "ns_other_mac", "asks, and speaks for another MAC", solicit(IP6, PEER6, SLLA(lladdr=OTHER)), SPOOFED_MAC
    yield "ns_other", "asks from another's address", solicit(OTHER6, PEER6, SLLA(lladdr=MAC)), SPOOFED_IP
    yield "ns_second_option", "speaks for another MAC behind a nonce", solicit(
        IP6, PEER6, ICMPv6NDOptUnknown(type=14, len=1, data=bytes(6)), SLLA(lladdr=OTHER)
    ), SPOOFED_MAC
    yield "ns_no_length", "an option without length", without_length(solicit(IP6, PEER6, SLLA(lladdr=MAC)), 78), HIDDEN
    yield "ns_cut", "cut within its options", solicit(IP6, PEER6, SLLA(lladdr=MAC))[:-8], HIDDEN
    yield "ns_padded", "with bytes behind its end", solicit(IP6, PEER6) + bytes(10), None
    yield "dad", "asks whether its own address is free", solicit("::", IP6), None
    yield "dad_link_local", "asks whether its link-local address is free", solicit("::", LINK_LOCAL), None
    yield "dad_nonce", "asks with a nonce (RFC 7527)", solicit(
        "::", IP6, ICMPv6NDOptUnknown(type=14, len=1, data=bytes(6))
    ), None
    yield "dad_other", "asks whether another's address is free, to take it", solicit("::", OTHER6), SPOOFED_IP
    yield "dad_unicast", "asks so of one", nd(ICMPv6ND_NS(tgt=IP6), "::", to=PEER6), SPOOFED_IP
    yield "na", "answers for itself", nd(ICMPv6ND_NA(tgt=IP6, O=1), IP6, TLLA(lladdr=MAC)), None
    yield "na_other", "answers for another", nd(ICMPv6ND_NA(tgt=OTHER6, O=1), IP6, TLLA(lladdr=MAC)), SPOOFED_IP
    yield "na_other_mac", "answers with another MAC", nd(ICMPv6ND_NA(tgt=IP6), IP6, TLLA(lladdr=OTHER)), SPOOFED_MAC
    yield "na_behind_options", "answers for another behind destination options", nd(
        ICMPv6ND_NA(tgt=OTHER6), IP6, TLLA(lladdr=MAC), headers=[options(IPv6ExtHdrDestOpt)]
    ), SPOOFED_IP
    yield "na_behind_ah", "answers for another behind an authentication header", nd(
        ICMPv6ND_NA(tgt=OTHER6), IP6, headers=[AH(nh=58, payloadlen=4, spi=1, seq=1, icv=bytes(12))]
    ), SPOOFED_IP
    yield "na_fragment", "answers in a fragment", nd(
        ICMPv6ND_NA(tgt=IP6), IP6, TLLA(lladdr=MAC), headers=[IPv6ExtHdrFragment(nh=58)]
    ), HIDDEN
    yield "na_no_payload", "answers with another MAC, in a packet that says it has no payload", without_payload(
        nd(ICMPv6ND_NA(tgt=IP6), IP6, TLLA(lladdr=OTHER), headers=[options(IPv6ExtHdrHopByHop)])
    ), HIDDEN
    yield "na_cut", "an answer cut within its target", nd(ICMPv6ND_NA(tgt=IP6), IP6)[:70], HIDDEN
    yield "rs", "asks for routers", nd(ICMPv6ND_RS(), LINK_LOCAL, SLLA(lladdr=MAC), to="ff02::2"), None
    yield "rs_nobody", "asks for routers before it has an address", nd(ICMPv6ND_RS(), "::", to="ff02::2"), None
    yield "rs_other_mac", "asks for routers with another MAC", nd(
        ICMPv6ND_RS(), LINK_LOCAL, SLLA(lladdr=OTHER), to="ff02::2"
    ), SPOOFED_MAC
    yield "ra", "advertises itself as a router", nd(
        ICMPv6ND_RA(), LINK_LOCAL, SLLA(lladdr=MAC), ICMPv6NDOptMTU(), ICMPv6NDOptPrefixInfo(prefix="fd00::")
    ), None
    yield "ra_other_mac", "advertises another MAC behind other options", nd(
        ICMPv6ND_RA(), LINK_LOCAL, ICMPv6NDOptMTU(), ICMPv6NDOptPrefixInfo(prefix="fd00::"), SLLA(lladdr=OTHER)
    ), SPOOFED_MAC
    yield "ra_nobody", "advertises from nobody", nd(ICMPv6ND_RA(), "::"), SPOOFED_IP
    yield "ra_endless", "more options than anybody sends", nd(
        ICMPv6ND_RA(), LINK_LOCAL, *[ICMPv6NDOptMTU() for _ in range(17)]
    ), HIDDEN
    yield "redirect", "redirects to its own MAC", nd(
        ICMPv6ND_Redirect(tgt=LINK_LOCAL, dst=PEER6), LINK_LOCAL, TLLA(lladdr=MAC)
    ), None
    yield "redirect_other_mac", "redirects to another MAC", nd(
        ICMPv6ND_Redirect(tgt=LINK_LOCAL, dst=PEER6), LINK_LOCAL, TLLA(lladdr=OTHER)
    ), SPOOFED_MAC
    report = ICMPv6MLReport2(records=[ICMPv6MLDMultAddrRec(dst="ff02::1:ff00:1")])
    alert = [IPv6ExtHdrHopByHop(options=[RouterAlert()])]
    yield "mld", "a listener's report", nd(report, LINK_LOCAL, to="ff02::16", headers=alert), None
    yield "mld_nobody", "a listener's report before it has an address", nd(
        report, "::", to="ff02::16", headers=alert
    ), None
    yield "mld_nobody_unicast", "such a report to one", nd(report, "::", to=PEER6, headers=alert), SPOOFED_IP

def main():
    vectors = [
        {"name": name, "description": description, "frame": data.hex(), "reason": reason}
        for name, description, data, reason in rows()
    ]
    text = "Frames from a secured port, and why they are discarded; null are those that go on."
    print("security.json", write("security.json", text, vectors=unique(vectors)))

if __name__ == "__main__":
    main()
