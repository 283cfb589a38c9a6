//! What a container's port should be, and what makes no sense before anything is made.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Error;
use crate::bridge::model::Mac;
use crate::bridge::provision::check_name;

/// The least MTU that IPv4 works with (RFC 791).
const IPV4_MTU: u32 = 68;
/// The least MTU that IPv6 works with (RFC 8200, section 5).
const IPV6_MTU: u32 = 1280;
/// The most that the kernel gives a veth (`ETH_MAX_MTU`).
const LARGEST_MTU: u32 = 65_535;

/// VLANs that a port can be in (IEEE 802.1Q: 0 and 4,095 are reserved).
pub const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The address, host part and all.
    pub address: IpAddr,
    /// Bits of the network part.
    pub length: u8,
}

/// What a container's interface was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its MAC.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Prefix {
    /// Whether an address is in the same network.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        let (width, differing) = match (self.address, other) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                (32, u128::from(u32::from(one) ^ u32::from(other)))
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => (128, u128::from(one) ^ u128::from(other)),
            _ => return false,
        };
        differing.checked_shr(width - u32::from(self.length)).unwrap_or(0) == 0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = String;

    /// `10.0.0.5/24`; without a length the address is a network of its own, as for `ip address`.
    fn from_str(text: &str) -> Result<Self, String> {
        let help = "write an address with its prefix length, such as 10.0.0.5/24 or fd00::5/64";
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| format!("\"{text}\" is no IP address: {help}"))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => width,
            Some(length) => {
                length.parse().ok().filter(|length| *length <= width).ok_or_else(|| {
                    format!("\"{text}\" has no prefix length of 0 to {width}: {help}")
                })?
            }
        };
        if address.is_unspecified() || address.is_multicast() {
            return Err(format!("{address} is not one host's address: {help}"));
        }
        Ok(Self { address, length })
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A MAC that an interface can have, from its usual text form.
///
/// # Errors
/// What is wrong with it, and an example.
pub fn station(text: &str) -> Result<Mac, String> {
    let byte = |part: &str| {
        let plain = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(part, 16).ok().filter(|_| plain)
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    let mac = bytes.and_then(|bytes| bytes.try_into().ok()).map(Mac);
    match mac {
        None => Err(format!("\"{text}\" is no MAC address: write one such as 02:00:00:00:00:05")),
        Some(mac) if mac.is_group() || mac == Mac::ZERO => {
            Err(format!("{mac} is not one station's address: write one such as 02:00:00:00:00:05"))
        }
        Some(mac) => Ok(mac),
    }
}

/// What `add-port` asks of the interface in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Its name in the container.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
    /// The default routes' next hops, one for each family at most.
    pub gateways: Vec<IpAddr>,
    /// Its MAC; without one, any.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; without one, 1,500.
    pub mtu: Option<u32>,
}

impl Settings {
    /// Checks what can be checked without looking at the host.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn check(&self) -> Result<(), Error> {
        check_name(&self.interface)?;
        match self.problem() {
            Some(problem) => Err(Error::Settings(problem)),
            None => Ok(()),
        }
    }

    fn problem(&self) -> Option<String> {
        for (index, gateway) in self.gateways.iter().enumerate() {
            if let Some(problem) = self.gateway_problem(*gateway) {
                return Some(problem);
            }
            let family = |other: &&IpAddr| other.is_ipv4() == gateway.is_ipv4();
            if let Some(first) = self.gateways[..index].iter().find(family) {
                return Some(format!(
                    "gateways {first} and {gateway} are of one family: give one of them"
                ));
            }
        }
        for (index, one) in self.addresses.iter().enumerate() {
            if self.addresses[..index].iter().any(|other| other.address == one.address) {
                return Some(format!("address {one} is there twice: give it once"));
            }
        }
        let least = match self.addresses.iter().any(|prefix| prefix.address.is_ipv6()) {
            true => IPV6_MTU,
            false => IPV4_MTU,
        };
        match self.mtu {
            Some(mtu) if !(least..=LARGEST_MTU).contains(&mtu) => {
                Some(format!("MTU {mtu} is out of range: give {least} to {LARGEST_MTU} bytes"))
            }
            _ => None,
        }
    }

    /// The kernel would say "Nexthop has invalid gateway", and only when all the rest is made.
    fn gateway_problem(&self, gateway: IpAddr) -> Option<String> {
        let mut own =
            self.addresses.iter().filter(|own| own.address.is_ipv4() == gateway.is_ipv4());
        if own.clone().next().is_none() {
            return Some(format!(
                "gateway {gateway} without an address of its family: give --ipaddress too"
            ));
        }
        if own.clone().any(|own| own.address == gateway) {
            return Some(format!(
                "gateway {gateway} is the container's own address: give the router's"
            ));
        }
        let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if link_local || own.any(|own| own.contains(gateway)) {
            return None;
        }
        let networks: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        Some(format!(
            "gateway {gateway} is outside of the container's network ({}): give the prefix length \
             that has both, such as --ipaddress=10.0.0.5/24",
            networks.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(addresses: &[&str], gateways: &[&str]) -> Settings {
        Settings {
            interface: "eth1".to_owned(),
            addresses: addresses.iter().map(|text| text.parse().expect("a prefix")).collect(),
            gateways: gateways.iter().map(|text| text.parse().expect("an address")).collect(),
            ..Settings::default()
        }
    }

    fn said(settings: &Settings) -> String {
        settings.check().expect_err("makes no sense").to_string()
    }

    #[test]
    fn addresses_are_read_with_and_without_a_prefix_length() {
        for (text, shown) in [
            ("10.0.0.5/24", "10.0.0.5/24"),
            ("10.0.0.5", "10.0.0.5/32"),
            ("fd00::5/64", "fd00::5/64"),
            ("fd00::5", "fd00::5/128"),
        ] {
            assert_eq!(text.parse::<Prefix>().expect(text).to_string(), shown);
        }
        for text in ["10.0.0", "10.0.0.5/33", "10.0.0.5/", "fd00::/129", "0.0.0.0", "ff02::1", ""] {
            let error = text.parse::<Prefix>().expect_err(text);
            assert!(error.contains("such as 10.0.0.5/24"), "{error}");
        }
    }

    #[test]
    fn a_prefix_has_the_addresses_of_its_network_only() {
        let has = |prefix: &str, other: &str| {
            prefix.parse::<Prefix>().expect(prefix).contains(other.parse().expect(other))
        };
        assert!(has("10.0.0.5/24", "10.0.0.254") && !has("10.0.0.5/24", "10.0.1.1"));
        assert!(has("10.0.0.5/0", "192.0.2.1") && !has("10.0.0.5/0", "fd00::1"));
        assert!(has("10.0.0.5/32", "10.0.0.5") && !has("10.0.0.5/32", "10.0.0.4"));
        assert!(has("fd00::5/64", "fd00::ffff") && !has("fd00::5/64", "fd00:0:0:1::1"));
        assert!(has("fd00::5/0", "2001:db8::1"));
    }

    #[test]
    fn only_a_stations_mac_is_taken() {
        assert_eq!(station("a2:C3:0d:49:7f:f8").expect("a MAC").to_string(), "a2:c3:0d:49:7f:f8");
        for text in ["", "a2:c3:0d:49:7f", "a2:c3:0d:49:7f:f8:00", "a2:c3:0d:49:7f:+8", "zz"] {
            assert!(station(text).expect_err(text).contains("is no MAC address"));
        }
        for text in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
            assert!(station(text).expect_err(text).contains("is not one station's"));
        }
    }

    #[test]
    fn a_gateway_must_be_within_reach() {
        settings(&["10.0.0.5/24"], &["10.0.0.1"]).check().expect("IPv4");
        settings(&["10.0.0.5/24", "fd00::5/64"], &["10.0.0.1", "fd00::1"]).check().expect("both");
        settings(&["fd00::5/64"], &["fe80::1"]).check().expect("a link-local router");
        assert!(said(&settings(&["10.0.0.5/24"], &["10.0.1.1"])).contains("outside"));
        assert!(said(&settings(&["10.0.0.5"], &["10.0.0.1"])).contains("prefix length"));
        assert!(said(&settings(&["10.0.0.5/24"], &["10.0.0.5"])).contains("own address"));
        assert!(said(&settings(&["fd00::5/64"], &["10.0.0.1"])).contains("--ipaddress"));
        assert!(said(&settings(&[], &["10.0.0.1"])).contains("--ipaddress"));
        let two = settings(&["10.0.0.5/24"], &["10.0.0.1", "10.0.0.2"]);
        assert!(said(&two).contains("one family"));
    }

    #[test]
    fn names_mtus_and_addresses_are_checked() {
        let bad = Settings { interface: "a-name-of-16-byt".to_owned(), ..Settings::default() };
        assert!(said(&bad).contains("cannot name an interface"));
        for (addresses, mtu) in [(&[][..], 67), (&[], 65_536), (&["fd00::5/64"], 1279)] {
            let bad = Settings { mtu: Some(mtu), ..settings(addresses, &[]) };
            assert!(said(&bad).contains(&format!("MTU {mtu} is out of range")));
        }
        assert!(said(&settings(&["10.0.0.5/24", "10.0.0.5/16"], &[])).contains("twice"));
    }
}
