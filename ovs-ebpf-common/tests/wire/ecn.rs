//! `wire::ecn` against RFC 6040's tables.

use ovs_ebpf_common::wire::ecn;
use ovs_ebpf_tests::vectors;

#[test]
fn encapsulation_is_normal_mode_with_the_tunnel_s_dscp() {
    for row in vectors::ecn().ingress {
        for tunnel_tos in 0..=u8::MAX {
            for inner_dscp in 0..64u8 {
                let outer = ecn::encapsulate(tunnel_tos, inner_dscp << 2 | row.inner);
                assert_eq!(outer, tunnel_tos & 0xfc | row.outer, "{tunnel_tos:#04x}, {row:?}");
            }
        }
    }
}

#[test]
fn decapsulation_does_what_figure_4_says() {
    for cell in vectors::ecn().egress {
        for dscp in 0..64u8 {
            let inner = (63 - dscp) << 2;
            let outer = dscp << 2 | cell.outer;
            let expected = cell.result.map(|ecn| inner | ecn);
            assert_eq!(ecn::decapsulate(outer, inner | cell.inner), expected, "{cell:?}");
        }
    }
}
