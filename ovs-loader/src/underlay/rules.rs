//! Routing rules that a route request can't be matched against.
//!
//! The kernel looks up a tunnel's route with each packet's mark (`udp_tunnel_dst_lookup`,
//! `ip_md_tunnel_xmit`), source port and inherited TOS, or with a protocol that `RTM_GETROUTE` does not
//! take: no single request answers for all of them.

use netlink_packet_core::Nla as _;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::rule::{RuleAttribute, RuleFlags, RuleMessage};

use super::model::Target;
use super::{kernel, monitor::covers};
use crate::bridge::model::Encap;

/// `FRA_DSCP`, which the netlink library does not name.
const FRA_DSCP: u16 = 25;

/// A rule whose effect on some tunnels is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnprovableRule {
    /// The selectors, in the words of `ip rule`.
    pub(super) text: String,
    /// What it is about besides them.
    rule: RuleMessage,
    /// Only what carries a mark may be routed otherwise than the request says. What comes from a
    /// container carries none: it is taken off between namespaces (`skb_scrub_packet`).
    by_mark: bool,
    /// It concerns VXLAN.
    udp: bool,
    /// It concerns GRE.
    gre: bool,
    /// It concerns a TOS that tunnels inherit.
    tos: bool,
}

impl UnprovableRule {
    /// Whether the route of a target's packets is not known.
    pub(super) fn hides(&self, target: &Target) -> bool {
        !self.by_mark && self.concerns(target)
    }

    /// Whether the route of those of a target's packets is not known that carry a mark.
    pub(super) fn hides_marked(&self, target: &Target) -> bool {
        self.by_mark && self.concerns(target)
    }

    fn concerns(&self, target: &Target) -> bool {
        let RuleMessage { header, attributes, .. } = &self.rule;
        let goes_there = |attribute: &RuleAttribute| match attribute {
            RuleAttribute::Destination(prefix) => covers(*prefix, header.dst_len, target.remote),
            _ => true,
        };
        header.family == kernel::family(target.remote)
            && (header.flags.contains(RuleFlags::Invert) || attributes.iter().all(goes_there))
            && (self.udp && target.protocol == Encap::Vxlan.ip_protocol()
                || self.gre && target.protocol == Encap::Gre.ip_protocol()
                || self.tos && target.inherits_tos)
    }
}

/// The selectors of a rule that a request can't express; `None` where there are none.
pub(super) fn unprovable(rule: &RuleMessage) -> Option<UnprovableRule> {
    let (mut selectors, mut udp, mut gre, mut tos) = (Vec::new(), false, false, false);
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
            RuleAttribute::Other(other) if other.kind() == FRA_DSCP => {
                selectors.push("dscp".to_owned());
                tos = true;
                continue;
            }
            RuleAttribute::TunId(id) if *id != 0 => (format!("tun_id {id}"), false, true),
            // A flow has GRE's key where it would have ports (`flowi_uli`).
            RuleAttribute::SourcePortRange(range) => {
                (format!("sport {}-{}", range.start, range.end), true, true)
            }
            RuleAttribute::DestinationPortRange(range) => {
                (format!("dport {}-{}", range.start, range.end), false, true)
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
    if rule.header.tos != 0 {
        selectors.push(format!("tos {:#04x}", rule.header.tos));
        tos = true;
    }
    let mut by_mark = false;
    if mark_mask != 0 {
        by_mark = mark & mark_mask != 0 || selectors.is_empty();
        selectors.push(format!("fwmark {mark:#x}/{mark_mask:#x}"));
        if by_mark {
            (udp, gre) = (true, true);
        }
    }
    let text = format!("{priority}: {}", selectors.join(" "));
    let rule = rule.clone();
    (!selectors.is_empty()).then_some(UnprovableRule { text, rule, by_mark, udp, gre, tos })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To 192.0.2.2.
    fn target(encap: Encap, inherits_tos: bool) -> Target {
        Target {
            remote: "192.0.2.2".parse().unwrap(),
            local: None,
            tos: 0,
            inherits_tos,
            protocol: encap.ip_protocol(),
            dst_port: 4789,
            link: None,
        }
    }

    fn rule(attributes: &[RuleAttribute]) -> RuleMessage {
        let mut rule = RuleMessage::default();
        rule.header.family = kernel::family("192.0.2.2".parse().unwrap());
        rule.attributes = [&[RuleAttribute::Priority(100)], attributes].concat();
        rule
    }

    /// Whether it hides the route of VXLAN, of GRE, and of VXLAN that inherits the TOS.
    fn hides(rule: &RuleMessage) -> [bool; 3] {
        let found = unprovable(rule).expect("selectors");
        let targets = [(Encap::Vxlan, false), (Encap::Gre, false), (Encap::Vxlan, true)];
        targets.map(|(encap, inherits_tos)| found.hides(&target(encap, inherits_tos)))
    }

    #[test]
    fn a_rule_by_addresses_is_answered_by_the_kernel() {
        let rule = rule(&[
            RuleAttribute::Destination("192.0.2.2".parse().unwrap()),
            RuleAttribute::Table(7),
            RuleAttribute::IpProtocol(IpProtocol::Tcp),
        ]);
        assert_eq!(unprovable(&rule), None);
    }

    #[test]
    fn a_rule_by_mark_concerns_what_is_marked_of_every_tunnel() {
        let mark = [RuleAttribute::FwMark(0x10), RuleAttribute::FwMask(0xff)];
        let found = unprovable(&rule(&mark)).unwrap();
        assert_eq!(found.text, "100: fwmark 0x10/0xff");
        for encap in [Encap::Vxlan, Encap::Gre] {
            let target = target(encap, false);
            assert!(found.hides_marked(&target) && !found.hides(&target));
        }
        // What has no mark is meant by this one, and is asked so.
        let gre = RuleAttribute::IpProtocol(IpProtocol::Gre);
        let none = [RuleAttribute::FwMark(0), RuleAttribute::FwMask(0xff), gre];
        assert_eq!(hides(&rule(&none)), [false, true, false]);
    }

    #[test]
    fn a_rule_for_udp_or_gre_hides_the_route_of_gre() {
        for protocol in [IpProtocol::Udp, IpProtocol::Gre] {
            let rule = rule(&[RuleAttribute::IpProtocol(protocol)]);
            assert_eq!(hides(&rule), [false, true, false]);
        }
    }

    #[test]
    fn a_rule_by_tos_hides_the_route_of_who_inherits_it() {
        let mut rule = rule(&[]);
        rule.header.tos = 0x10;
        assert_eq!(hides(&rule), [false, false, true]);
    }

    #[test]
    fn a_rule_for_others_hides_nothing() {
        let to = RuleAttribute::Destination("203.0.113.0".parse().unwrap());
        let mut rule = rule(&[RuleAttribute::IpProtocol(IpProtocol::Gre), to]);
        rule.header.dst_len = 24;
        assert_eq!(hides(&rule), [false; 3]);
        rule.header.flags = RuleFlags::Invert;
        assert_eq!(hides(&rule), [false, true, false]);
        rule.header.flags = RuleFlags::empty();
        rule.header.family = kernel::family("2001:db8::1".parse().unwrap());
        assert_eq!(hides(&rule), [false; 3]);
    }
}
