//! `ovs-loader docker`: what can be typed, and how it is answered.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{output, tables};
use crate::bridge::model::Mac;
use crate::bridge::ovs::DEFAULT_RUNDIR;
use crate::docker::spec::{Prefix, Settings, VLANS, station};
use crate::docker::{Attacher, DEFAULT_SOCKET, Place, Places};

#[derive(Debug, Args)]
#[command(
    after_help = "Commands and options are ovs-docker's. On Open vSwitch bridges each of the \
    two sees the other's ports; Linux bridges work the same. While `ovs-loader run` runs, a \
    container that restarts gets its ports back, and one that is deleted leaves none behind."
)]
pub(super) struct Docker {
    /// Docker's socket
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    docker_socket: PathBuf,

    /// Open vSwitch's directory of sockets
    #[arg(long, global = true, env = "OVS_RUNDIR", value_name = "DIR",
        default_value = DEFAULT_RUNDIR)]
    ovs_rundir: PathBuf,

    /// Do not wait until ovs-vswitchd has taken up the change
    #[arg(long, global = true)]
    no_wait: bool,

    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add an interface to a container and make it a port of a bridge
    #[command(after_help = "Example: ovs-loader docker add-port br-ex eth1 web \
        --ipaddress=10.0.0.5/24 --gateway=10.0.0.1 --mtu=1450\n\n\
        All is done, or nothing. Again with the same options, it says so and changes nothing.")]
    AddPort(AddPort),
    /// Delete an interface of a container and its port
    DelPort(Port),
    /// Delete all interfaces of a container that are ports of a bridge
    DelPorts {
        /// The bridge
        bridge: String,
        /// The container: its name or (short) id
        container: String,
    },
    /// Make an interface's port the access port of a VLAN
    SetVlan {
        #[command(flatten)]
        port: Port,
        /// The VLAN, 1 to 4094
        #[arg(value_parser = clap::value_parser!(u16).range(
            *VLANS.start() as i64..=*VLANS.end() as i64))]
        vlan: u16,
    },
    /// List the ports of containers, ovs-docker's too
    List,
}

#[derive(Debug, Args)]
struct Port {
    /// The bridge
    bridge: String,
    /// The interface in the container
    interface: String,
    /// The container: its name or (short) id
    container: String,
}

#[derive(Debug, Args)]
struct AddPort {
    #[command(flatten)]
    port: Port,
    /// An address, with its prefix length; may be given for IPv4 and for IPv6
    #[arg(long = "ipaddress", value_name = "A/P")]
    addresses: Vec<Prefix>,
    /// The next hop of the default route; may be given for IPv4 and for IPv6
    #[arg(long = "gateway", value_name = "G")]
    gateways: Vec<IpAddr>,
    /// The MAC address [default: random]
    #[arg(long = "macaddress", value_name = "M", value_parser = station)]
    mac: Option<Mac>,
    /// The MTU in bytes [default: 1500]
    #[arg(long, value_name = "N")]
    mtu: Option<u32>,
    /// A process of the container, where that is not Docker's; CONTAINER is then just its name here
    #[arg(long, value_name = "PID", conflicts_with = "netns",
        value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// The container's network namespace, such as /run/netns/NAME, likewise
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
}

/// What `--json` prints of a change.
#[derive(Serialize)]
struct Report<'a> {
    bridge: &'a str,
    interface: Option<&'a str>,
    container: &'a str,
    ports: Vec<String>,
    changed: bool,
}

/// Does what is asked.
pub(super) async fn execute(docker: Docker, state: &Path) -> Result<()> {
    let Docker { docker_socket, ovs_rundir, no_wait, json, command } = docker;
    let attacher = Attacher::new(&Places {
        state: state.to_owned(),
        socket: docker_socket,
        rundir: ovs_rundir,
        wait: !no_wait,
    });
    match command {
        Command::AddPort(add) => add_port(&attacher, add, json).await,
        Command::DelPort(Port { bridge, interface, container }) => {
            let port = attacher.del_port(&bridge, &interface, &container).await?;
            let report = Report {
                bridge: &bridge,
                interface: Some(&interface),
                container: &container,
                ports: vec![port.clone()],
                changed: true,
            };
            output::report(json, &report, |_| {
                format!("detached {interface} of {container} from {bridge} (port {port})\n")
            })
        }
        Command::DelPorts { bridge, container } => {
            let ports = attacher.del_ports(&bridge, &container).await?;
            let report = Report {
                bridge: &bridge,
                interface: None,
                container: &container,
                changed: !ports.is_empty(),
                ports,
            };
            output::report(json, &report, |report| match report.ports.len() {
                0 => format!("{container} has no port on {bridge}\n"),
                _ => format!("detached {container} from {bridge} ({})\n", report.ports.join(", ")),
            })
        }
        Command::SetVlan { port: Port { bridge, interface, container }, vlan } => {
            let port = attacher.set_vlan(&bridge, &interface, &container, vlan).await?;
            let report = Report {
                bridge: &bridge,
                interface: Some(&interface),
                container: &container,
                ports: vec![port],
                changed: true,
            };
            output::report(json, &report, |_| {
                format!("{interface} of {container} is in VLAN {vlan}\n")
            })
        }
        Command::List => output::report(json, &attacher.list().await?, tables::attachments),
    }
}

async fn add_port(attacher: &Attacher, add: AddPort, json: bool) -> Result<()> {
    let AddPort { port, addresses, gateways, mac, mtu, pid, netns } = add;
    let Port { bridge, interface, container } = port;
    let place = match (pid, netns) {
        (Some(pid), _) => Place::Process(pid),
        (None, Some(path)) => Place::Path(path),
        (None, None) => Place::Engine,
    };
    let settings = Settings { interface, addresses, gateways, mac, mtu };
    let added = attacher.add_port(&bridge, &container, &place, &settings).await?;
    let (interface, port) = (&settings.interface, &added.attachment.port);
    let report = Report {
        bridge: &bridge,
        interface: Some(interface),
        container: &container,
        ports: vec![port.clone()],
        changed: added.changed,
    };
    output::report(json, &report, |_| match added.changed {
        true => format!("attached {interface} of {container} to {bridge} (port {port})\n"),
        false => format!("{interface} of {container} is already attached to {bridge} ({port})\n"),
    })
}
