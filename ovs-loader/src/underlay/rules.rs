//! Routing rules that a route request can't be matched against.
//!
//! The kernel looks up a tunnel's route with the inner packet's mark (`udp_tunnel_dst_lookup`) or the
//! device's (`ip_tunnel_xmit`), with each flow's own source port, or with a protocol that
//! `RTM_GETROUTE` does not take: no single request answers for all of them.

use netlink_packet_route::IpProtocol;
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};

/// A rule whose effect on tunnels of some kind is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnprovableRule {
    /// The selector, in the words of `ip rule`.
    pub(super) text: String,
    /// It concerns VXLAN.
    pub(super) udp: bool,
    /// It concerns GRE.
    pub(super) gre: bool,
}

/// The selectors of a rule that a request can't express; `None` where there are none.
pub(super) fn unprovable(rule: &RuleMessage) -> Option<UnprovableRule> {
    let (mut selectors, mut udp, mut gre) = (Vec::new(), false, false);
    let (mut priority, mut mark, mut mark_mask) = (0, 0, 0);
    for attribute in &rule.attributes {
        let (selector, of_udp, of_gre) = match attribute {
            RuleAttribute::Priority(number) => {
                priority = *number;
                continue;
            }
            RuleAttribute::FwMark(number) => {
                mark = *number;
                continue;
            }
            // Here with every rule by mark, also by mark 0.
            RuleAttribute::FwMask(mask) => {
                mark_mask = *mask;
                continue;
            }
            RuleAttribute::TunId(id) if *id != 0 => (format!("tun_id {id}"), false, true),
            RuleAttribute::SourcePortRange(range) => {
                (format!("sport {}-{}", range.start, range.end), true, false)
            }
            // Asked as UDP, since the request can't name GRE.
            RuleAttribute::IpProtocol(IpProtocol::Udp) => ("ipproto udp".into(), false, true),
            RuleAttribute::IpProtocol(IpProtocol::Gre) => ("ipproto gre".into(), false, true),
            _ => continue,
        };
        selectors.push(selector);
        udp |= of_udp;
        gre |= of_gre;
    }
    if mark_mask != 0 {
        selectors.push(format!("fwmark {mark:#x}/{mark_mask:#x}"));
        (udp, gre) = (true, true);
    }
    let text = format!("{priority}: {}", selectors.join(" "));
    (!selectors.is_empty()).then_some(UnprovableRule { text, udp, gre })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_by_addresses_is_answered_by_the_kernel() {
        let mut rule = RuleMessage::default();
        rule.attributes = vec![
            RuleAttribute::Priority(100),
            RuleAttribute::Destination("192.0.2.2".parse().unwrap()),
            RuleAttribute::Table(7),
            RuleAttribute::IpProtocol(IpProtocol::Tcp),
        ];
        assert_eq!(unprovable(&rule), None);
    }

    #[test]
    fn a_rule_by_mark_concerns_every_tunnel() {
        let mut rule = RuleMessage::default();
        rule.attributes = vec![
            RuleAttribute::Priority(100),
            RuleAttribute::FwMark(0x10),
            RuleAttribute::FwMask(0xff),
        ];
        let found = unprovable(&rule).unwrap();
        assert_eq!(found.text, "100: fwmark 0x10/0xff");
        assert!(found.udp && found.gre);
    }

    #[test]
    fn a_rule_for_udp_is_exact_for_vxlan_and_not_for_gre() {
        let mut rule = RuleMessage::default();
        rule.attributes = vec![RuleAttribute::IpProtocol(IpProtocol::Udp)];
        let found = unprovable(&rule).unwrap();
        assert!(!found.udp && found.gre);
    }
}
