//! Which VLANs a port carries, and how; and which VNIs are theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use ovs_ebpf_common::Reason;

use super::model::Why;

/// A set of VLAN ids, 0 to 4095.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanSet(Vec<RangeInclusive<u16>>);

impl VlanSet {
    /// Whether a VLAN is in it.
    #[must_use]
    pub fn contains(&self, vlan: u16) -> bool {
        self.0.iter().any(|range| range.contains(&vlan))
    }

    /// The VLANs, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().cloned().flatten()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<RangeInclusive<u16>> for VlanSet {
    fn from(range: RangeInclusive<u16>) -> Self {
        Self::from_iter([range])
    }
}

impl FromIterator<RangeInclusive<u16>> for VlanSet {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_unstable_by_key(|range| (*range.start(), *range.end()));
        let mut set: Vec<RangeInclusive<u16>> = Vec::new();
        for range in ranges {
            match set.last_mut() {
                Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                    *last = *last.start()..=(*last.end()).max(*range.end());
                }
                _ => set.push(range),
            }
        }
        Self(set)
    }
}

impl FromIterator<u16> for VlanSet {
    fn from_iter<I: IntoIterator<Item = u16>>(vlans: I) -> Self {
        vlans.into_iter().map(|vlan| vlan..=vlan).collect()
    }
}

/// As `bridge vlan show` and `ovs-vsctl` write it: `1,10-19`.
impl std::fmt::Display for VlanSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, range) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", range.start())?;
            if range.start() != range.end() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

/// Which frames a port takes and sends, by their VLAN.
///
/// On a bridge that does not look at tags every frame is in VLAN 0; one with a tag is not described
/// here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortVlans {
    /// The VLAN of frames that arrive without a tag; `None` where they are dropped.
    pub untagged: Option<u16>,
    /// Whether frames that arrive with a tag are taken where the port carries the VLAN.
    pub takes_tags: bool,
    /// The VLANs whose frames the port sends.
    pub carries: VlanSet,
    /// Those of them whose frames leave without a tag.
    pub strips: VlanSet,
    /// The port is a tunnel in metadata mode: a frame's VLAN says its VNI, and its VNI its VLAN.
    pub vnis: Option<VlanVnis>,
}

impl PortVlans {
    /// A port in one VLAN, whose frames are without a tag.
    #[must_use]
    pub fn access(vlan: u16) -> Self {
        Self {
            untagged: Some(vlan),
            takes_tags: false,
            carries: (vlan..=vlan).into(),
            strips: (vlan..=vlan).into(),
            vnis: None,
        }
    }

    /// The VNI of a VLAN's frames, `None` where the tunnel has a key of its own; or why they have none.
    ///
    /// # Errors
    /// In metadata mode, where none is theirs alone.
    pub fn vni(&self, vlan: u16) -> Result<Option<u32>, Why> {
        self.vnis.as_ref().map(|vnis| vnis.vni(vlan)).transpose()
    }
}

/// A port of a bridge that does not look at tags.
impl Default for PortVlans {
    fn default() -> Self {
        Self::access(0)
    }
}

/// The VNIs of a port's VLANs, each both ways and of one VLAN alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanVnis {
    /// Of every VLAN that is mapped to one: it, or why it is not the VLAN's.
    by_vlan: BTreeMap<u16, Result<u32, Why>>,
    by_vni: BTreeMap<u32, u16>,
}

impl VlanVnis {
    /// The VNI of a VLAN's frames.
    ///
    /// # Errors
    /// Why they have none.
    pub fn vni(&self, vlan: u16) -> Result<u32, Why> {
        let unmapped = || Err(unmapped(format!("no VNI is mapped to VLAN {vlan}")));
        self.by_vlan.get(&vlan).map_or_else(unmapped, Clone::clone)
    }

    /// The VLAN of frames with a VNI.
    ///
    /// # Errors
    /// Why they have none that is known.
    pub fn vlan(&self, vni: u32) -> Result<u16, Why> {
        let unmapped = || unmapped(format!("no VLAN has VNI {vni} both ways"));
        self.by_vni.get(&vni).copied().ok_or_else(unmapped)
    }

    /// Takes the VNIs that something stands against from their VLANs.
    #[must_use]
    pub fn without(self, against: impl Fn(u32) -> Option<Why>) -> Self {
        let keep = |vni| against(vni).map_or(Ok(vni), Err);
        self.by_vlan.into_iter().map(|(vlan, vni)| (vlan, vni.and_then(keep))).collect()
    }
}

/// Of VLANs that share a VNI none has it.
impl FromIterator<(u16, Result<u32, Why>)> for VlanVnis {
    fn from_iter<I: IntoIterator<Item = (u16, Result<u32, Why>)>>(vlans: I) -> Self {
        let mut by_vlan: BTreeMap<u16, Result<u32, Why>> = vlans.into_iter().collect();
        let mut by_vni = BTreeMap::new();
        let mut shared = BTreeSet::new();
        for (vlan, vni) in &by_vlan {
            if let Ok(vni) = vni
                && by_vni.insert(*vni, *vlan).is_some()
            {
                shared.insert(*vni);
            }
        }
        by_vni.retain(|vni, _| !shared.contains(vni));
        for entry in by_vlan.values_mut() {
            if let Ok(vni) = entry
                && shared.contains(vni)
            {
                *entry = Err(unmapped(format!("VNI {vni} is another VLAN's too")));
            }
        }
        Self { by_vlan, by_vni }
    }
}

fn unmapped(words: String) -> Why {
    Why::new(Reason::VniUnmapped, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_meet_are_one() {
        let set: VlanSet = [20..=29, 1..=1, 10..=19, 15..=17].into_iter().collect();
        assert_eq!(set.to_string(), "1,10-29");
        assert_eq!(set.iter().count(), 21);
        assert!([1, 10, 19, 20, 29].iter().all(|vlan| set.contains(*vlan)));
        assert!(![0, 2, 9, 30, 4095].iter().any(|vlan| set.contains(*vlan)));
        assert!(VlanSet::from_iter([u16::MAX..=u16::MAX, 0..=0]).contains(u16::MAX));
    }
}
