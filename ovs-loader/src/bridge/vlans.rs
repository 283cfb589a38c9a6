//! Which VLANs a port carries, and how.

use std::ops::RangeInclusive;

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
        }
    }
}

/// A port of a bridge that does not look at tags.
impl Default for PortVlans {
    fn default() -> Self {
        Self::access(0)
    }
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
