//! The configuration file.

/// Section `[accelerate]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerate {
    /// Which bridges to accelerate; `None` is every one that passes the gate.
    pub bridges: Option<Vec<String>>,
    /// How long the programs go on without the daemon, in seconds.
    pub lease_seconds: u32,
    /// How often one packet per source MAC passes the bridge, in seconds.
    pub revalidate_seconds: u16,
    /// Capacity of the FDB map.
    pub fdb_capacity: u32,
    /// Accelerate although nftables has rules in the bridge family.
    pub bypass_nft_bridge: bool,
    /// Accelerate although nftables has netdev hooks on the devices.
    pub bypass_nft_netdev: bool,
    /// Accelerate although bridge netfilter hands frames to rules.
    pub bypass_br_netfilter: bool,
    /// Accelerate although ports have egress filters.
    pub bypass_egress_filters: bool,
}

impl Default for Accelerate {
    fn default() -> Self {
        Self {
            bridges: None,
            lease_seconds: 30,
            revalidate_seconds: 60,
            fdb_capacity: 65_536,
            bypass_nft_bridge: false,
            bypass_nft_netdev: false,
            bypass_br_netfilter: false,
            bypass_egress_filters: false,
        }
    }
}
