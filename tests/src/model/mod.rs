//! What the kernel programs do, said a second time: the maps and a packet in, verdict, reason and
//! the packet out.
//!
//! Written from the RFCs, the meaning of the maps ([`ovs_ebpf_common::abi`]) and the rules of the
//! fast path, without a line of `ovs_ebpf_common::wire` or of the programs, and made to be read, not
//! to be quick: it sums every checksum anew and copies every frame. The order of the questions is
//! part of it, since it decides which reason a packet counts under.
//!
//! What the model does not say:
//! - where a packet is redirected to, and what the kernel makes of it there;
//! - GSO other than its limits: cutting into segments is the kernel's;
//! - that the kernel encapsulates no packet beyond 16 KB that is not to be cut (`encap_refused`);
//! - two programs at once, and a map that changes while one runs.

mod filter;
mod forwarding;
mod ingress;
mod outer;
mod read;
mod security;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use ovs_ebpf_common::{
    Reason,
    abi::{
        AllowedKey, AllowedValue, Control, DoubtValue, Event, FdbKey, FdbValue, GuardKey,
        GuardValue, PortValue, Program, SecurityValue, TunnelCounters, TunnelIndexKey,
        TunnelIndexKey6, TunnelIndexValue, TunnelValue, UplinkValue,
    },
};

pub use read::set_ipv4_checksum;

/// The maps' contents. Elements of an array map that are not named are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// `control`.
    pub control: Control,
    /// `ports`, by ifindex.
    pub ports: BTreeMap<u32, PortValue>,
    /// `fdb`.
    pub fdb: BTreeMap<FdbKey, FdbValue>,
    /// `doubts`.
    pub doubts: BTreeMap<FdbKey, DoubtValue>,
    /// `tunnels`, by id.
    pub tunnels: BTreeMap<u32, TunnelValue>,
    /// `tunnel_index`.
    pub tunnel_index: BTreeMap<TunnelIndexKey, TunnelIndexValue>,
    /// `tunnel_index6`.
    pub tunnel_index6: BTreeMap<TunnelIndexKey6, TunnelIndexValue>,
    /// `guards`.
    pub guards: BTreeMap<GuardKey, GuardValue>,
    /// `xdp_uplinks`, by ifindex.
    pub uplinks: BTreeMap<u32, UplinkValue>,
    /// `security`, by ifindex.
    pub security: BTreeMap<u32, SecurityValue>,
    /// `allowed`.
    pub allowed: BTreeMap<AllowedKey, AllowedValue>,
    /// `stations`.
    pub stations: BTreeMap<FdbKey, AllowedValue>,
}

/// A packet as it arrives at the hook.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The ifindex of the device.
    pub device: u32,
    /// Whether the device took it for its own (`PACKET_HOST`).
    pub for_host: bool,
    /// The VLAN tag that it had, which reception moved out of the frame: its four bytes.
    pub tag: Option<[u8; 4]>,
    /// What it stands for, if for more than itself.
    pub gso: Option<Gso>,
    /// From the Ethernet header on.
    pub frame: &'a [u8],
}

/// A packet that is still to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Payload bytes per segment.
    pub size: u32,
    /// Whether its kind (`skb_shinfo->gso_type`) is one that the kernel can put into a tunnel and
    /// take out of one. A test run can't give it any, so that the kernel refuses.
    pub tunnelable: bool,
}

/// The frame that leaves, and what of it is the kernel's choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The frame, with choices that are possible.
    pub frame: Vec<u8>,
    /// The VLAN tag that it has beside.
    pub tag: Option<[u8; 4]>,
    /// UDP source ports that the flow may be given; `None` where there is nothing to choose.
    pub source_port: Option<RangeInclusive<u16>>,
    /// Where in the frame that port is.
    source_port_at: usize,
    /// Whether the outer IPv4 identification may be any.
    pub any_identification: bool,
    /// Whether the outer IPv6 flow label may be any.
    pub any_flow_label: bool,
}

/// The programs, with their maps.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The maps that programs read. They write [`FdbValue::next_revalidation`], all of [`DoubtValue`], `next_event` of
    /// [`PortValue`] and [`TunnelIndexValue`], and `full_at` and `discarded` of [`SecurityValue`].
    pub tables: Tables,
    /// `tunnel_counters`, by id.
    pub tunnel_counters: BTreeMap<u32, TunnelCounters>,
    /// What was put into `events`, and not taken out yet.
    pub events: Vec<Event>,
    /// The stations that have come into doubt, and were not taken out yet.
    pub doubts: Vec<FdbKey>,
}

impl Model {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(tables: Tables) -> Self {
        Self { tables, ..Self::default() }
    }

    /// What becomes of a packet at `now`, in nanoseconds of `CLOCK_MONOTONIC`. What the filter and port
    /// security let pass leaves as it came.
    ///
    /// # Errors
    /// Why it is left to the bridge, as it came, or discarded.
    pub fn run(
        &mut self,
        program: Program,
        now: u64,
        packet: &Received<'_>,
    ) -> Result<Forwarded, Reason> {
        match program {
            Program::PortIngress => self.port_ingress(now, packet),
            Program::UplinkIngress => self.uplink_ingress(now, packet),
            Program::UplinkXdp => self
                .filter(now, packet)
                .map(|()| Forwarded::exactly(packet.frame.to_vec(), packet.tag)),
            Program::PortSecurity => self
                .secure(now, packet)
                .map(|()| Forwarded::exactly(packet.frame.to_vec(), packet.tag)),
        }
    }
}

impl Forwarded {
    /// A frame that leaves nothing to choose.
    fn exactly(frame: Vec<u8>, tag: Option<[u8; 4]>) -> Self {
        Self {
            frame,
            tag,
            source_port: None,
            source_port_at: 0,
            any_identification: false,
            any_flow_label: false,
        }
    }

    /// The frame with the choices that `seen` shows, as far as the kernel is free to make them.
    #[must_use]
    pub fn with_choices_of(mut self, seen: &[u8]) -> Vec<u8> {
        let word = |at: usize| seen.get(at..at + 2).map(|word| [word[0], word[1]]);
        let at = self.source_port_at;
        if let (Some(ports), Some(port)) = (&self.source_port, word(at))
            && ports.contains(&u16::from_be_bytes(port))
        {
            self.frame[at..at + 2].copy_from_slice(&port);
        }
        if let (true, Some(identification)) = (self.any_identification, word(read::IP + 4)) {
            self.frame[read::IP + 4..read::IP + 6].copy_from_slice(&identification);
            read::set_ipv4_checksum(&mut self.frame[read::IP..read::IP + 20]);
        }
        if let (true, Some([_, high]), Some(low)) =
            (self.any_flow_label, word(read::IP), word(read::IP + 2))
        {
            // Twenty bits, behind the traffic class.
            self.frame[read::IP + 1] = self.frame[read::IP + 1] & 0xf0 | high & 0x0f;
            self.frame[read::IP + 2..read::IP + 4].copy_from_slice(&low);
        }
        self.frame
    }
}
