//! An endpoint on this host: a veth pair whose one end is a port of its network's bridge.

use std::fs::File;
use std::os::fd::AsFd as _;

use nix::net::if_::if_nametoindex;

use super::protocol::{CreateEndpoint, Id};
use super::record::{Endpoint, Network};
use super::{Error, probe};
use crate::bridge::model::Mac;
use crate::bridge::provision::{self, VethSpec};
use crate::docker::ovs::NewPort;
use crate::state;

/// The namespace in which Docker looks for a container's end: the daemon's own.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

impl Endpoint {
    /// What Docker asks for, with a MAC if it left that open: of the IPv4 address, as Docker's own
    /// are, so that a container that comes back with its address keeps its MAC, and no neighbour has
    /// to learn another.
    pub(super) fn new(call: &CreateEndpoint) -> Self {
        let interface = &call.interface;
        let addresses: Vec<_> =
            interface.address.into_iter().chain(interface.address_ipv6).collect();
        let ipv4 = addresses.iter().find_map(|prefix| match prefix.address {
            std::net::IpAddr::V4(address) => Some(address.octets()),
            std::net::IpAddr::V6(_) => None,
        });
        let mac = interface.mac_address.unwrap_or_else(|| match ipv4 {
            Some([a, b, c, d]) => Mac([0x02, 0x42, a, b, c, d]),
            None => of_id(&call.endpoint),
        });
        Self {
            id: call.endpoint.clone(),
            network: call.network.clone(),
            mac,
            addresses,
            container: None,
            leaving: false,
        }
    }

    /// Makes the veth pair anew, its one end a port.
    pub(super) async fn make(&self, network: &Network) -> Result<(), Error> {
        let (port, peer) = (self.port(), self.peer());
        provision::del_interface(&port).await?;
        let path = std::path::Path::new(OWN_NAMESPACE);
        let namespace = File::open(path).map_err(|reason| state::Error::Io {
            doing: "open",
            path: path.to_owned(),
            reason,
        })?;
        let veth = VethSpec {
            name: &port,
            peer: &peer,
            namespace: namespace.as_fd(),
            mac: self.mac,
            mtu: Some(network.mtu),
        };
        provision::add_veth(&veth).await?;
        self.attach(network).await
    }

    /// Asks the network whether anybody has the container's addresses, from the container's end, and
    /// holds them until that is the container's.
    pub(super) async fn claim(&self) -> Result<(), Error> {
        let peer = self.peer();
        provision::bring_up_mute(&peer).await?;
        let index = if_nametoindex(&*peer).map_err(|_| provision::Error::NoInterface(peer))?;
        let addresses: Vec<_> = self.addresses.iter().map(|prefix| prefix.address).collect();
        Ok(probe::claim(index, self.mac, &addresses).await?)
    }

    /// Makes its end a port of the bridge.
    pub(super) async fn attach(&self, network: &Network) -> Result<(), Error> {
        let mac = self.mac.to_string();
        // The words that Open vSwitch has for them (Documentation/topics/integration.rst).
        let ids = [("iface-id", self.id.as_str()), ("attached-mac", &mac)];
        let port = self.port();
        let (bridge, vlan) = (&*network.bridge, network.vlan);
        let new = NewPort { bridge, name: &port, vlan, ids: &ids };
        Ok(network.backend.attach(&new, true).await?)
    }

    /// Whether Docker can take the container's end.
    pub(super) async fn is_ready(&self) -> Result<bool, Error> {
        Ok(provision::exists(&self.peer()).await?)
    }

    /// Takes away whatever there is of it; `network` if that is still known. Goes on after a
    /// failure, and gives them all.
    pub(super) async fn take_down(&self, network: Option<&Network>) -> Vec<String> {
        let port = self.port();
        let mut failures = Vec::new();
        if let Some(network) = network
            && let Err(error) = network.backend.detach(&port).await
        {
            failures.push(format!("the port: {}", Error::from(error).chain()));
        }
        if let Err(error) = provision::del_interface(&port).await {
            failures.push(format!("the veth pair: {}", Error::from(error).chain()));
        }
        failures
    }
}

/// A locally administered MAC of an endpoint's id, which is random.
fn of_id(id: &Id) -> Mac {
    let random = u64::from_str_radix(id.first(10), 16).unwrap_or_default();
    let [_, _, _, rest @ ..] = random.to_be_bytes();
    let mut mac = [0x02, 0, 0, 0, 0, 0];
    mac[1..].copy_from_slice(&rest);
    Mac(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str, mac: &str) -> Endpoint {
        let id = "ab12".repeat(16);
        let interface = serde_json::json!({ "Address": address, "MacAddress": mac });
        let call = serde_json::json!({ "NetworkID": id, "EndpointID": id, "Interface": interface });
        Endpoint::new(&serde_json::from_value(call).expect("a call"))
    }

    #[test]
    fn a_mac_is_what_was_asked_for_or_dockers_own_of_the_address_or_of_the_id() {
        let mac = |address, mac| endpoint(address, mac).mac.to_string();
        assert_eq!(mac("10.5.0.2/24", "02:00:00:00:00:99"), "02:00:00:00:00:99");
        assert_eq!(mac("10.5.0.2/24", ""), "02:42:0a:05:00:02");
        assert_eq!(mac("", ""), "02:ab:12:ab:12:ab");
    }

    #[test]
    fn names_fit_the_kernel_and_tell_the_ends_apart() {
        let one = endpoint("", "");
        assert_eq!((one.port().len(), one.peer().len()), (15, 15));
        assert_ne!(one.port(), one.peer());
    }
}
