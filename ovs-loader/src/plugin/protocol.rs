//! What Docker sends and what it is answered, as libnetwork's `drivers/remote/api` has it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::bridge::model::Mac;
use crate::docker::spec::{Prefix, station};

/// `-o` options of `docker network create`.
const GENERIC: &str = "com.docker.network.generic";
/// `--internal`.
const INTERNAL: &str = "com.docker.network.internal";

/// Answer to `Plugin.Activate`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Activated {
    pub(super) implements: &'static [&'static str],
}

/// Answer to `GetCapabilities`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Capabilities {
    /// Each engine has its own networks: nothing is kept in a swarm.
    pub(super) scope: &'static str,
    /// Containers of a network reach each other across hosts.
    pub(super) connectivity_scope: &'static str,
}

/// Nothing to report.
#[derive(Debug, Default, Serialize)]
pub(super) struct Done {}

/// What went wrong, for people.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Problem {
    pub(super) err: String,
}

/// `CreateNetwork`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub(super) network: Id,
    #[serde(default, deserialize_with = "or_default")]
    options: BTreeMap<String, Value>,
    #[serde(rename = "IPv4Data", default, deserialize_with = "or_default")]
    pub(super) ipv4: Vec<Subnet>,
    #[serde(rename = "IPv6Data", default, deserialize_with = "or_default")]
    pub(super) ipv6: Vec<Subnet>,
}

impl CreateNetwork {
    /// `-o` options, as they were typed.
    pub(super) fn typed(&self) -> BTreeMap<String, String> {
        let generic = self.options.get(GENERIC).and_then(Value::as_object);
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let pairs = generic.into_iter().flatten();
        pairs.map(|(name, value)| (name.clone(), text(value))).collect()
    }

    /// Without a way out.
    pub(super) fn internal(&self) -> bool {
        self.options.get(INTERNAL).and_then(Value::as_bool).unwrap_or(false)
    }
}

/// A subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Subnet {
    /// The subnet: `10.5.0.0/24`.
    pub pool: String,
    /// The gateway with the prefix length, if there is one: `10.5.0.1/24`.
    #[serde(default, deserialize_with = "optional")]
    pub gateway: Option<Prefix>,
}

/// What `DeleteNetwork`, `DeleteEndpoint`, `Leave` and `EndpointOperInfo` are about.
#[derive(Debug, Deserialize)]
pub(super) struct Names {
    #[serde(rename = "NetworkID")]
    pub(super) network: Id,
    #[serde(rename = "EndpointID", default)]
    pub(super) endpoint: Id,
}

/// `CreateEndpoint`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    pub(super) network: Id,
    #[serde(rename = "EndpointID")]
    pub(super) endpoint: Id,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) interface: Interface,
}

/// The interface of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Interface {
    #[serde(default, deserialize_with = "optional")]
    pub(super) address: Option<Prefix>,
    #[serde(rename = "AddressIPv6", default, deserialize_with = "optional")]
    pub(super) address_ipv6: Option<Prefix>,
    #[serde(default, deserialize_with = "mac")]
    pub(super) mac_address: Option<Mac>,
}

/// Answer to `CreateEndpoint`: only what came empty, or Docker takes it for a contradiction.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EndpointCreated {
    pub(super) interface: Completed,
}

/// What the driver adds to an interface.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Completed {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mac_address: Option<String>,
}

/// Answer to `Join`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Joined {
    pub(super) interface_name: InterfaceName,
    pub(super) gateway: String,
    #[serde(rename = "GatewayIPv6")]
    pub(super) gateway_ipv6: String,
    /// Keeps Docker from giving the container a way out of its own (`docker_gwbridge`).
    pub(super) disable_gateway_service: bool,
}

/// The container's end, and how it begins to be called there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InterfaceName {
    pub(super) src_name: String,
    pub(super) dst_prefix: &'static str,
}

/// Answer to `EndpointOperInfo`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OperInfo {
    pub(super) value: BTreeMap<&'static str, String>,
}

/// Docker's id of a network or endpoint: 64 hexadecimal digits. It names files and interfaces, so
/// nothing else is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Id(String);

impl Id {
    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As much of it as Docker shows in lists.
    #[must_use]
    pub fn short(&self) -> &str {
        self.first(12)
    }

    /// Its first digits.
    #[must_use]
    pub fn first(&self, digits: usize) -> &str {
        self.0.get(..digits).unwrap_or(&self.0)
    }
}

impl std::str::FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        match plain && text.len() == 64 {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("\"{text}\" is no id: it has 64 hexadecimal digits")),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Go writes `null` for what is empty.
fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An address that may be absent or the empty text.
fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Prefix>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map(Some).map_err(de::Error::custom),
        None => Ok(None),
    }
}

/// A MAC that may be absent or the empty text.
fn mac<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mac>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) {
        Some(text) => station(&text).map(Some).map_err(de::Error::custom),
        None => Ok(None),
    }
}

impl Subnet {
    /// Its gateway's address.
    pub(super) fn router(&self) -> Option<IpAddr> {
        self.gateway.map(|gateway| gateway.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dockerd 20.10.24 sends them.
    const NETWORK: &str = r#"{"NetworkID":"67a5534283542a3f8aa05512d26fc9208a8d6af3b9f8b9bad408ac600e97bf67",
        "Options":{"com.docker.network.enable_ipv6":true,"com.docker.network.generic":{"mtu":"1400"},
        "com.docker.network.internal":true},"IPv4Data":[{"AddressSpace":"LocalDefault",
        "Gateway":"10.6.0.1/24","Pool":"10.6.0.0/24"}],"IPv6Data":[{"AddressSpace":"LocalDefault",
        "Gateway":"fd00:6::1/64","Pool":"fd00:6::/64"}]}"#;
    const ENDPOINT: &str = r#"{"NetworkID":"67a5534283542a3f8aa05512d26fc9208a8d6af3b9f8b9bad408ac600e97bf67",
        "EndpointID":"ea4082b139d74071890f8b7760b1e44099bfc0370c4cc42c09d184edd8b96e1e","Interface":
        {"Address":"10.6.0.77/24","AddressIPv6":"fd00:6::2/64","MacAddress":""},"Options":{}}"#;

    #[test]
    fn a_networks_options_and_subnets_are_read() {
        let call: CreateNetwork = serde_json::from_str(NETWORK).expect("Docker's own");
        assert!(call.internal());
        assert_eq!(call.typed(), [("mtu".to_owned(), "1400".to_owned())].into());
        assert_eq!(call.network.short(), "67a553428354");
        assert_eq!(call.ipv4[0].router(), Some("10.6.0.1".parse().unwrap()));
        assert_eq!(call.ipv6[0].router(), Some("fd00:6::1".parse().unwrap()));
        // Go's nil, and Docker's own null driver of addresses.
        let bare = NETWORK.replace("{\"mtu\":\"1400\"}", "null").replace("true", "null");
        let call: CreateNetwork = serde_json::from_str(&bare).expect("with nulls");
        assert!(!call.internal() && call.typed().is_empty());
        let null = r#"{"Pool":"0.0.0.0/0","Gateway":""}"#;
        assert_eq!(serde_json::from_str::<Subnet>(null).expect("no gateway").gateway, None);
    }

    #[test]
    fn an_endpoints_interface_is_read_with_its_holes() {
        let call: CreateEndpoint = serde_json::from_str(ENDPOINT).expect("Docker's own");
        assert_eq!(call.interface.mac_address, None);
        assert_eq!(call.interface.address_ipv6, "fd00:6::2/64".parse().ok());
        let fixed = ENDPOINT.replace(r#""MacAddress":"""#, r#""MacAddress":"02:00:00:00:00:99""#);
        let call: CreateEndpoint = serde_json::from_str(&fixed).expect("Docker's own");
        assert_eq!(call.interface.mac_address, Some(Mac([2, 0, 0, 0, 0, 0x99])));
    }

    #[test]
    fn only_ids_are_taken_for_ids() {
        for text in ["", "../../x", &"A".repeat(64), &"f".repeat(63), &"g".repeat(64)] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
        assert_eq!("f".repeat(64).parse::<Id>().expect("an id").first(13), "fffffffffffff");
    }
}
