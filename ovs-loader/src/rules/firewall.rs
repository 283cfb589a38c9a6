//! Rules of the host firewall that name a tunnel's own port or protocol.

use crate::bridge::model::Encap;

/// A rule of the host firewall that names UDP destination ports or GRE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallRule {
    /// Where the rule is: `nftables table inet filter, chain input`.
    pub place: String,
    /// What it names.
    pub traffic: Traffic,
}

/// What a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// UDP destination ports.
    Udp(Ports),
    /// IP protocol 47.
    Gre,
}

impl FirewallRule {
    /// The rule as a sentence, if it names this tunnel traffic.
    pub(super) fn naming(&self, encap: Encap, dst_port: u16) -> Option<String> {
        match (&self.traffic, encap) {
            (Traffic::Udp(ports), Encap::Vxlan) if ports.contains(dst_port) => {
                Some(format!("{} names udp dport {dst_port}", self.place))
            }
            (Traffic::Gre, Encap::Gre) => Some(format!("{} names protocol gre", self.place)),
            _ => None,
        }
    }
}

/// A set of ports in host byte order, as inclusive ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    pub(super) fn new(ranges: Vec<(u16, u16)>) -> Self {
        Self(ranges)
    }

    pub(super) fn all() -> Self {
        Self(vec![(0, u16::MAX)])
    }

    /// Whether the port is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// The ports that are in both.
    pub(super) fn intersect(&self, other: &Self) -> Self {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a, b)));
        let common = pairs.map(|(a, b)| (a.0.max(b.0), a.1.min(b.1)));
        Self(common.filter(|(first, last)| first <= last).collect())
    }
}
