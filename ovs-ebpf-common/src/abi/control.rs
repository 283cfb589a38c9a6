/// How many different UDP ports the accelerated VXLAN tunnels of a host may use.
pub const VXLAN_PORTS: usize = 4;

/// The only element of the `control` map: what every packet needs first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Until when the programs may forward, in nanoseconds of `CLOCK_MONOTONIC`. Past it they leave
    /// everything to the bridge.
    pub lease_deadline: u64,
    /// UDP destination ports of the accelerated VXLAN tunnels, in network byte order; 0 is unused.
    pub vxlan_ports: [u16; VXLAN_PORTS],
    /// Changes with every change of `ports`, `tunnel_index`, `tunnel_index6` and `fdb`, right after it: what
    /// the programs found there before is looked up again ([`super::Flow`]). The daemon writes a number that
    /// never was; the programs, which can't know one, 0, with which nothing is kept until the daemon writes.
    pub generation: u64,
}

const _: () = assert!(size_of::<Control>() == 24);
super::pod!(Control);
