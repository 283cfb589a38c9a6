//! The vectors in `tests/vectors`, which `generate.py` there makes with Scapy: frames that an
//! implementation independent of ours has encapsulated, and frames that must not be taken.
//!
//! Frames are as the programs see them: from the Ethernet header on, without FCS.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};

/// A frame in bytes, hex in the files.
pub type Frame = Vec<u8>;

/// A frame from a container and the frame a tunnel makes of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encap {
    /// Unique among the vectors of the file.
    pub name: String,
    /// What is particular about it.
    pub description: String,
    /// The tunnel it takes.
    pub tunnel: Tunnel,
    /// The UDP source port in `outer`; `None` for GRE. A sender may choose any (RFC 7348 §4.1).
    pub source_port: Option<u16>,
    /// The container's frame.
    #[serde(deserialize_with = "hex")]
    pub inner: Frame,
    /// The frame on the underlay.
    #[serde(deserialize_with = "hex")]
    pub outer: Frame,
}

/// A frame from a container that is left to the bridge.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncapPunt {
    /// Unique among the vectors of the file.
    pub name: String,
    /// What is particular about it.
    pub description: String,
    /// The tunnel that the destination is behind, where it has one.
    pub tunnel: Tunnel,
    /// The container's frame.
    #[serde(deserialize_with = "hex")]
    pub frame: Frame,
    /// The name of the reason.
    pub reason: String,
}

/// A frame from the underlay with one thing out of the ordinary.
#[derive(Clone, Debug, Deserialize)]
pub struct Decap {
    /// Unique among the vectors of the file.
    pub name: String,
    /// What is particular about it.
    pub description: String,
    /// The tunnel it pretends to come from, seen from the sender: `remote` is this host.
    pub tunnel: Tunnel,
    /// The frame on the underlay.
    #[serde(deserialize_with = "hex")]
    pub outer: Frame,
    /// What becomes of it.
    #[serde(flatten)]
    pub expected: Expected,
}

/// A frame with or without a VLAN tag, and how it leaves.
#[derive(Clone, Debug, Deserialize)]
pub struct Vlan {
    /// Unique among the vectors of the file.
    pub name: String,
    /// The tunnel, if it passes one, seen from its sender.
    pub tunnel: Tunnel,
    /// Where it arrives.
    pub from: Way,
    /// Where its destination is.
    pub to: Way,
    /// The VLAN of frames without a tag that arrive there; `None`: there is none.
    pub native: Option<u16>,
    /// Whether frames with a tag are taken there.
    pub takes_tags: bool,
    /// The VLAN in which its source and its destination are known.
    pub vlan: u16,
    /// Whether the destination's frames leave with a tag.
    pub tagged: bool,
    /// The frame as it arrives, with its tags.
    #[serde(deserialize_with = "hex")]
    pub frame: Frame,
    /// What becomes of it.
    #[serde(flatten)]
    pub fate: VlanFate,
}

/// A port or a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// A port of the bridge.
    Port,
    /// A tunnel.
    Tunnel,
}

/// What becomes of a frame with or without a VLAN tag.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VlanFate {
    /// Forwarded as this frame, with its tag.
    #[serde(deserialize_with = "hex")]
    Leaves(Frame),
    /// Left to the bridge, for the reason of this name.
    Reason(String),
}

/// What becomes of a frame from the underlay.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// Forwarded as this frame.
    #[serde(deserialize_with = "hex")]
    Inner(Frame),
    /// Left to the kernel, for the reason of this name.
    Reason(String),
}

/// A tunnel seen from the host that sends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// VXLAN or GRE.
    pub kind: Kind,
    /// VNI or GRE key; `None` is GRE without key.
    pub key: Option<u32>,
    /// The sender's outer address.
    pub local: IpAddr,
    /// The receiver's outer address.
    pub remote: IpAddr,
    /// The MAC of the sender's uplink.
    #[serde(deserialize_with = "mac")]
    pub source_mac: [u8; 6],
    /// The MAC of the next hop, here the receiver itself.
    #[serde(deserialize_with = "mac")]
    pub next_hop_mac: [u8; 6],
    /// VXLAN's UDP destination port in host byte order; `None` for GRE.
    pub destination_port: Option<u16>,
    /// Outer TTL; `None` is inherited.
    pub ttl: Option<u8>,
    /// Outer TOS, of which the DSCP counts; `None` is inherited.
    pub tos: Option<u8>,
    /// Don't Fragment.
    pub df: bool,
}

/// A tunnel's encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// RFC 7348.
    Vxlan,
    /// RFC 2784 with Ethernet payload, RFC 2890 where there is a key.
    Gre,
}

/// The tables of RFC 6040, by the two ECN bits: 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
#[derive(Clone, Debug, Deserialize)]
pub struct Ecn {
    /// Normal mode (figure 3).
    pub ingress: Vec<EcnIngress>,
    /// Figure 4.
    pub egress: Vec<EcnEgress>,
}

/// One row of RFC 6040's figure 3, normal mode.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EcnIngress {
    /// Of the packet that is encapsulated.
    pub inner: u8,
    /// Of the outer header made.
    pub outer: u8,
}

/// One cell of RFC 6040's figure 4.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EcnEgress {
    /// Of the arriving inner packet.
    pub inner: u8,
    /// Of the arriving outer header.
    pub outer: u8,
    /// Of the packet forwarded; `None` is a drop.
    pub result: Option<u8>,
    /// The RFC's mark: "(!)" unused, "(!!!)" potentially dangerous combinations.
    pub concern: String,
}

/// A frame from a secured port: see `security.py`.
#[derive(Clone, Debug, Deserialize)]
pub struct Security {
    /// Unique name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// From the Ethernet header on.
    #[serde(deserialize_with = "hex")]
    pub frame: Frame,
    /// The name of the reason for discarding it; none if it goes on.
    pub reason: Option<String>,
}

/// Frames from containers that a tunnel takes.
#[must_use]
pub fn encap() -> Vec<Encap> {
    load::<List<_>>("encap.json", include_str!("../vectors/encap.json")).vectors
}

/// Frames from containers that are left to the bridge.
#[must_use]
pub fn encap_punt() -> Vec<EncapPunt> {
    load::<List<_>>("encap_punt.json", include_str!("../vectors/encap_punt.json")).vectors
}

/// Frames from the underlay with one thing out of the ordinary.
#[must_use]
pub fn decap() -> Vec<Decap> {
    load::<List<_>>("decap.json", include_str!("../vectors/decap.json")).vectors
}

/// Frames with and without VLAN tags.
#[must_use]
pub fn vlan() -> Vec<Vlan> {
    load::<List<_>>("vlan.json", include_str!("../vectors/vlan.json")).vectors
}

/// Frames from a secured port.
#[must_use]
pub fn security() -> Vec<Security> {
    load::<List<_>>("security.json", include_str!("../vectors/security.json")).vectors
}

/// RFC 6040's tables.
#[must_use]
pub fn ecn() -> Ecn {
    load("ecn.json", include_str!("../vectors/ecn.json"))
}

#[derive(Deserialize)]
struct List<T> {
    vectors: Vec<T>,
}

/// # Panics
/// Where the file does not fit the types here: one of them was changed without the other.
fn load<T: DeserializeOwned>(name: &str, text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("tests/vectors/{name}: {error}"))
}

fn hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Frame, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_bytes(text.as_bytes().chunks(2)).map_err(D::Error::custom)
}

fn mac<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 6], D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = parse_bytes(text.split(':').map(str::as_bytes)).map_err(D::Error::custom)?;
    bytes.try_into().map_err(|_| D::Error::custom(format!("{text} is not a MAC")))
}

/// Bytes of two hex digits each.
fn parse_bytes<'a>(pairs: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, String> {
    pairs
        .map(|pair| {
            let text = str::from_utf8(pair).ok().filter(|text| text.len() == 2);
            text.and_then(|text| u8::from_str_radix(text, 16).ok()).ok_or_else(|| {
                format!("{:?} are not two hex digits", String::from_utf8_lossy(pair))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_fits_its_type() {
        assert!(encap().iter().all(|vector| vector.outer.ends_with(&vector.inner)));
        assert!(!encap_punt().is_empty());
        assert!(!decap().is_empty());
        assert!(!security().is_empty());
        assert_eq!((ecn().ingress.len(), ecn().egress.len()), (4, 16));
    }

    #[test]
    fn half_a_byte_is_refused() {
        assert!(parse_bytes(b"abc".chunks(2)).is_err());
        assert!(parse_bytes(b"abxy".chunks(2)).is_err());
        assert_eq!(parse_bytes(b"00fF".chunks(2)), Ok(vec![0x00, 0xff]));
    }
}
