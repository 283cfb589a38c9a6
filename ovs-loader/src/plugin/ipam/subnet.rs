//! Subnets as ranges of numbers: the same arithmetic for both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A subnet in CIDR notation, without host part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    address: IpAddr,
    length: u8,
}

/// Addresses from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
}

/// A host's share of a range: the `K`th of `N` parts, which are as equal as they can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    part: u32,
    of: u32,
}

impl Subnet {
    /// The subnet of an address; a host part is cut off.
    #[must_use]
    pub fn of(address: IpAddr, length: u8) -> Self {
        let width = width(address);
        let length = length.min(width);
        let number = number(address) & !low_bits(width - length);
        Self { address: as_address(number, address.is_ipv6()), length }
    }

    /// Bits of the network part.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether it is one of IPv6.
    #[must_use]
    pub fn is_ipv6(self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, other: IpAddr) -> bool {
        self.is_ipv6() == other.is_ipv6() && Self::of(other, self.length).address == self.address
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// All of its addresses.
    #[must_use]
    pub fn addresses(self) -> Range {
        let first = number(self.address);
        let last = first | low_bits(width(self.address) - self.length);
        Range { first: self.address, last: as_address(last, self.is_ipv6()) }
    }

    /// The addresses that a station can have: without IPv4's network and broadcast address (RFC 919)
    /// and IPv6's address of all routers (RFC 4291, section 2.6.1), where the subnet has room.
    #[must_use]
    pub fn stations(self) -> Range {
        let all = self.addresses();
        let (low, high) = (number(all.first), number(all.last));
        let (low, high) = match (high - low, self.is_ipv6()) {
            (..=1, _) => (low, high),
            (_, false) => (low + 1, high - 1),
            (_, true) => (low + 1, high),
        };
        let v6 = self.is_ipv6();
        Range { first: as_address(low, v6), last: as_address(high, v6) }
    }
}

impl Range {
    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.first.is_ipv6() && (self.first..=self.last).contains(&address)
    }

    /// What of it is in another range too.
    #[must_use]
    pub fn within(self, other: Self) -> Option<Self> {
        let both = Self { first: self.first.max(other.first), last: self.last.min(other.last) };
        (both.first <= both.last).then_some(both)
    }

    /// A host's share of it; `None` where there are fewer addresses than parts and none is left for
    /// this one.
    #[must_use]
    pub fn share(self, Share { part, of }: Share) -> Option<Self> {
        let first = number(self.first);
        // One less than the count, which for a whole IPv6 would not fit. Shares begin where
        // `count · (K - 1) / N` says, by quotient and remainder so that nothing overflows.
        let count = number(self.last) - first;
        let (parts, part) = (u128::from(of), u128::from(part));
        let (each, rest) = (count / parts, count % parts + 1);
        let begin = |part: u128| each * part + rest * part / parts;
        let (begin, end) = (begin(part - 1), begin(part));
        let address = |offset| as_address(first + offset, self.first.is_ipv6());
        (begin < end).then(|| Self { first: address(begin), last: address(end - 1) })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.first, self.last)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem =
            || format!("\"{text}\" is no subnet: write one such as 10.5.0.0/16 or fd05::/64");
        let (address, length) = text.split_once('/').ok_or_else(problem)?;
        let address: IpAddr = address.parse().map_err(|_| problem())?;
        let length = length.parse().ok().filter(|length| *length <= width(address));
        Ok(Self::of(address, length.ok_or_else(problem)?))
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('/')
            .and_then(|(part, of)| Some(Self { part: part.parse().ok()?, of: of.parse().ok()? }));
        parts.filter(|share| (1..=share.of).contains(&share.part)).ok_or_else(|| {
            format!(
                "share={text} is no share: write share=K/N on host K of N, such as share=1/3 on the \
                 first of three"
            )
        })
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// The address after this one; `None` after the family's last.
pub(super) fn next(address: IpAddr) -> Option<IpAddr> {
    let number = number(address);
    let last = low_bits(width(address));
    (number < last).then(|| as_address(number + 1, address.is_ipv6()))
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

/// So many ones, from the lowest bit on.
fn low_bits(count: u8) -> u128 {
    u128::MAX.checked_shr(128 - u32::from(count)).unwrap_or(0)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[allow(clippy::cast_possible_truncation)] // IPv4's numbers came from 32 bits.
fn as_address(number: u128, v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn range(first: &str, last: &str) -> Range {
        Range { first: first.parse().unwrap(), last: last.parse().unwrap() }
    }

    #[test]
    fn a_subnet_has_no_host_part_and_says_what_is_wrong_with_another_text() {
        assert_eq!(subnet("10.5.3.9/16").to_string(), "10.5.0.0/16");
        assert_eq!(subnet("fd05::9/64").to_string(), "fd05::/64");
        assert_eq!(subnet("::/0").to_string(), "::/0");
        for text in ["", "10.5.0.0", "10.5.0.0/33", "10.5.0/24", "fd05::/129", "a/8", "10.5.0.0/"] {
            let said = text.parse::<Subnet>().expect_err(text);
            assert!(said.contains("10.5.0.0/16"), "{said}");
        }
    }

    #[test]
    fn subnets_overlap_where_one_contains_the_other() {
        assert!(subnet("10.0.0.0/8").overlaps(subnet("10.5.0.0/16")));
        assert!(subnet("10.5.0.0/16").overlaps(subnet("10.0.0.0/8")));
        assert!(!subnet("10.4.0.0/16").overlaps(subnet("10.5.0.0/16")));
        assert!(!subnet("::/0").overlaps(subnet("10.5.0.0/16")));
    }

    #[test]
    fn stations_are_all_but_those_with_a_meaning_of_their_own() {
        assert_eq!(subnet("10.5.0.0/24").stations(), range("10.5.0.1", "10.5.0.254"));
        assert_eq!(subnet("10.5.0.4/31").stations(), range("10.5.0.4", "10.5.0.5"));
        assert_eq!(subnet("10.5.0.4/32").stations(), range("10.5.0.4", "10.5.0.4"));
        assert_eq!(subnet("fd05::/126").stations(), range("fd05::1", "fd05::3"));
        let all = range("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(subnet("::/0").stations(), all);
    }

    #[test]
    fn shares_cover_a_range_without_a_gap_or_an_overlap() {
        for (text, hosts) in
            [("10.5.0.0/24", 1), ("10.5.0.0/24", 3), ("10.5.0.0/16", 7), ("::/0", 5)]
        {
            let all = subnet(text).stations();
            let mut begin = Some(all.first);
            for part in 1..=hosts {
                let share = all.share(Share { part, of: hosts }).expect("room for all");
                assert_eq!(Some(share.first), begin, "part {part} of {text}");
                begin = next(share.last);
            }
            assert_eq!(begin, next(all.last), "{text}");
        }
    }

    #[test]
    fn more_hosts_than_addresses_leave_some_without() {
        let all = subnet("10.5.0.0/30").stations();
        let shares = (1..=4).map(|part| all.share(Share { part, of: 4 })).collect::<Vec<_>>();
        assert_eq!(shares.iter().flatten().count(), 2, "{shares:?}");
    }

    #[test]
    fn a_share_is_one_of_as_many_as_there_are() {
        assert_eq!("2/3".parse(), Ok(Share { part: 2, of: 3 }));
        for text in ["0/3", "4/3", "1", "1/0", "a/b", "-1/2", ""] {
            assert!(text.parse::<Share>().expect_err(text).contains("share=1/3"));
        }
    }
}
