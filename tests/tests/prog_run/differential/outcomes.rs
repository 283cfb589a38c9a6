//! How often frames met which fate: whether all was tried.

use std::collections::BTreeMap;
use std::fmt;

use ovs_ebpf_common::{Reason, abi::Program};

/// Reasons that packets of a test run may have.
const REASONS: [(Program, &[Reason]); 4] = [
    (
        Program::PortIngress,
        &[
            Reason::LeaseExpired,
            Reason::Truncated,
            Reason::Multicast,
            Reason::VlanUntagged,
            Reason::VlanStacked,
            Reason::NotIp,
            Reason::SourceUnknown,
            Reason::SourceMoved,
            Reason::Revalidation,
            Reason::DestinationUnknown,
            Reason::SamePort,
            Reason::Isolated,
            Reason::TooBig,
            Reason::Doubted,
            Reason::PortUnknown,
            Reason::TunnelUnresolved,
            Reason::EncapRefused,
            Reason::InnerOptions,
        ],
    ),
    (
        Program::UplinkIngress,
        &[
            Reason::LeaseExpired,
            Reason::Truncated,
            Reason::Multicast,
            Reason::VlanTagged,
            Reason::VlanUntagged,
            Reason::VlanStacked,
            Reason::VlanPriority,
            Reason::NotIp,
            Reason::SourceUnknown,
            Reason::SourceMoved,
            Reason::Revalidation,
            Reason::DestinationUnknown,
            Reason::SamePort,
            Reason::Isolated,
            Reason::TooBig,
            Reason::Doubted,
            Reason::NotTunnel,
            Reason::OuterMalformed,
            Reason::OuterFragment,
            Reason::TunnelFlags,
            Reason::TunnelUnknown,
            Reason::WrongUplink,
            Reason::DestinationIsTunnel,
            Reason::EcnMark,
            Reason::DecapRefused,
            Reason::HardwareGso,
            Reason::UncutDatagrams,
        ],
    ),
    (Program::UplinkXdp, &[Reason::UnknownRemote, Reason::WrongKey, Reason::Malformed]),
    (
        Program::PortSecurity,
        &[Reason::SpoofedMac, Reason::SpoofedIp, Reason::SenderHidden, Reason::FloodLimited],
    ),
];

/// How many frames met which fate, and how many events they raised.
#[derive(Default)]
pub(super) struct Outcomes {
    fates: BTreeMap<(u32, Option<Reason>), usize>,
    pub(super) told: usize,
}

impl Outcomes {
    pub(super) fn count(&mut self, program: Program, reason: Option<Reason>) {
        *self.fates.entry((program as u32, reason)).or_default() += 1;
    }

    /// A reason that no frame has, or hardly any, is one that nothing was tried of.
    pub(super) fn assert_all_are_common(&self, frames: usize) {
        let mut rare = Vec::new();
        for (program, reasons) in REASONS {
            let reasons = reasons.iter().map(|reason| (Some(*reason), frames / 10_000));
            // Of what is forwarded every byte is compared: that should be much.
            for (reason, least) in reasons.chain([(None, frames / 30)]) {
                let count = self.fates.get(&(program as u32, reason)).copied().unwrap_or(0);
                if count < least {
                    rare.push(format!("{} {reason:?}: {count} of {frames}", program.name()));
                }
            }
        }
        if self.told < frames / 100 {
            rare.push(format!("events: {} of {frames}", self.told));
        }
        assert!(rare.is_empty(), "too rare:\n{}", rare.join("\n"));
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((program, reason), count) in &self.fates {
            let program = Program::ALL[*program as usize].name();
            let fate = reason.map_or("forwarded", Reason::name);
            writeln!(f, "{program:>14} {fate:<20} {count:>8}")?;
        }
        writeln!(f, "{:>35} {:>8}", "events", self.told)
    }
}
