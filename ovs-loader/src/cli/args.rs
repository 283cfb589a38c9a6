//! What can be typed.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::docker;
use crate::api::DEFAULT_SOCKET;
use crate::bridge::model::Encap;
use crate::bridge::provision::TunnelSpec;
use crate::config;
use crate::datapath::Hook;

/// A fast path for the Open vSwitch and Linux bridges that join containers across hosts.
#[derive(Debug, Parser)]
#[command(
    name = "ovs-loader",
    version,
    long_about = "A fast path for the Open vSwitch and Linux bridges that join containers across \
        hosts.\n\n\
        The daemon mirrors each bridge's forwarding table and its VXLAN and GRE tunnels into BPF \
        maps. Programs on the ports and the uplink forward the packets they know; every other \
        packet goes to the bridge as before. The bridge stays the truth: change it with \
        ovs-vsctl, ip, bridge or any control plane.",
    after_help = "Start with `ovs-loader check`, then `ovs-loader run`, then `ovs-loader status`.",
    after_long_help = "Examples:\n  \
        ovs-loader check                      what would be accelerated, and why the rest not\n  \
        ovs-loader run                        accelerate every bridge that can be\n  \
        ovs-loader status                     what is accelerated now\n  \
        ovs-loader stats                      how many packets took which path, and why\n  \
        ovs-loader accelerate br-ex off       compare with the slow path\n  \
        ovs-loader docker add-port br-ex eth1 web --ipaddress=10.0.0.5/24\n                                              \
        a container as a port of a bridge\n  \
        ovs-loader down                       remove everything; traffic goes on\n\n\
        Exit status: 0 done, 1 an error, 2 wrong usage."
)]
pub struct Cli {
    /// The daemon's control socket
    #[arg(long, global = true, env = "OVS_EBPF_SOCKET", value_name = "PATH",
        default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,

    /// The directory, in a BPF file system, where programs and maps are pinned
    #[arg(
        long,
        global = true,
        env = "OVS_EBPF_BPFFS",
        value_name = "DIR",
        default_value = "/sys/fs/bpf/ovs-ebpf"
    )]
    pub bpffs: PathBuf,

    /// The directory for what is known of attached containers and of Docker's networks; it outlives
    /// restarts
    #[arg(
        long,
        global = true,
        env = "OVS_EBPF_STATE_DIR",
        value_name = "DIR",
        default_value = crate::docker::DEFAULT_STATE_DIR
    )]
    pub state_dir: PathBuf,

    /// Say more on stderr; RUST_LOG chooses in detail
    #[arg(short, long, global = true)]
    pub verbose: bool,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon in the foreground
    #[command(after_long_help = CONFIG_EXAMPLE)]
    Run {
        /// The configuration file (TOML); without one, every bridge that can be is accelerated
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where an Open vSwitch has its sockets [default: /var/run/openvswitch]; may be repeated
        #[arg(long, value_name = "DIR")]
        ovs_rundir: Vec<PathBuf>,
        /// Serve Docker's networks: `docker network create -d ovs-ebpf …`
        #[arg(long)]
        docker: bool,
        #[command(flatten)]
        sockets: DockerSockets,
        /// Replace the daemon that runs, without a packet leaving the fast path
        #[arg(long)]
        takeover: bool,
        #[command(flatten)]
        attach: Attach,
    },
    /// Say what would be accelerated and why the rest not; changes nothing
    #[command(after_long_help = CONFIG_EXAMPLE)]
    Check {
        /// The configuration file (TOML)
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where an Open vSwitch has its sockets [default: /var/run/openvswitch]; may be repeated
        #[arg(long, value_name = "DIR")]
        ovs_rundir: Vec<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        attach: Attach,
    },
    /// Show bridges, ports and tunnels: accelerated, or the reason why not
    Status {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the bridges' forwarding tables, and of each entry whether the fast path has it or why not
    Fdb {
        #[command(subcommand)]
        command: FdbCommand,
    },
    /// Show tunnels and their traffic, or change those of a kernel bridge
    Tunnel {
        #[command(subcommand)]
        command: TunnelCommand,
    },
    /// Count packets by the path they took, and why
    Stats {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Switch the fast path of one bridge on or off, live
    Accelerate {
        /// The bridge
        bridge: String,
        /// Whether its packets may take the fast path
        switch: Switch,
    },
    /// Create or delete a kernel bridge
    Bridge {
        #[command(subcommand)]
        command: BridgeCommand,
    },
    /// Add a port to a kernel bridge, or release it
    Port {
        #[command(subcommand)]
        command: PortCommand,
    },
    /// Attach containers to bridges, with ovs-docker's commands
    Docker(docker::Docker),
    /// Show Docker's networks that the daemon serves
    Network {
        #[command(subcommand)]
        command: NetworkCommand,
    },
    /// Detach everything and remove the pins; traffic goes on over the bridge
    Down,
}

/// The configuration file in one look.
const CONFIG_EXAMPLE: &str = r#"Configuration (everything is optional; the values of [accelerate] are the defaults, but for bridges):

  [accelerate]
  bridges = ["br-ex"]            # default: every bridge that can be accelerated
  lease_seconds = 30             # the programs go on for so long without a daemon
  revalidate_seconds = 60        # one packet per source MAC passes the bridge
  fdb_capacity = 65536
  xdp = "off"                    # "filter": unwanted tunnel packets are discarded in the NIC's driver
  bypass_nft_bridge = false      # go around rules in the bridge family
  bypass_nft_netdev = false      # … netdev hooks
  bypass_br_netfilter = false    # … bridge netfilter
  bypass_egress_filters = false  # … egress filters of ports

  [ovs]
  rundirs = ["/var/run/openvswitch"]   # where each Open vSwitch has its sockets

  [docker]
  enabled = true                 # serve `docker network create -d ovs-ebpf`; default: false
  plugin = "/run/docker/plugins/ovs-ebpf.sock"
  socket = "/var/run/docker.sock"
  answer_ms = 900                # a call that takes longer fails, and is taken back

  [[bridge]]                     # created or completed at start
  name = "br-ex"
  tunnel = "vxlan"               # or "gre"
  key = 42                       # VNI or GRE key
  dst_port = 4789                # VXLAN's UDP port
  local = "192.0.2.1"
  remotes = ["192.0.2.2"]
  ports = ["veth-a"]

  [[port]]                       # what a port may send, on the fast path and off; default: anything
  name = "veth-a"
  allowed = ["02:00:00:00:00:05", "10.0.0.5"]   # from these MACs and addresses
  flood_limit = 1000             # packets per second to groups and unknown stations

  [[port]]
  bridge = "br-ex"               # all ports to containers that ovs-loader has attached there
  allowed = ["own"]              # from what the container was given"#;

#[derive(Clone, Debug, Args)]
pub(super) struct DockerSockets {
    /// The socket on which Docker calls [default: /run/docker/plugins/ovs-ebpf.sock]; the driver has
    /// the name of the file
    #[arg(long, value_name = "PATH")]
    docker_plugin: Option<PathBuf>,
    /// Docker's own socket [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<PathBuf>,
}

impl DockerSockets {
    /// The configuration with what the command line says instead.
    pub(super) fn over(self, docker: bool, config: &mut config::Docker) {
        config.enabled |= docker;
        config.plugin = self.docker_plugin.or(config.plugin.take());
        config.socket = self.docker_socket.or(config.socket.take());
    }
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Attach {
    /// How to attach the programs to devices [default: tcx where the kernel has it]
    #[arg(long = "attach", env = "OVS_EBPF_ATTACH", value_enum, value_name = "HOOK")]
    hook: Option<HookName>,
}

impl Attach {
    pub(super) fn hook(self) -> Hook {
        match self.hook {
            Some(HookName::Tcx) => Hook::Tcx,
            Some(HookName::Clsact) => Hook::Clsact,
            None => Hook::probe(),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HookName {
    /// TCX links (Linux 6.6): ports with filters of tc on their ingress are not accelerated
    Tcx,
    /// Classic filters: those of others run first, and what they let pass may be accelerated
    Clsact,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

impl Switch {
    pub(super) fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum FdbCommand {
    /// Show the entries of one bridge or all
    Show {
        /// The bridge
        bridge: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// List networks with their bridges, tunnels and containers
    #[command(after_help = "Make them with Docker: docker network create -d ovs-ebpf \
        --subnet 10.5.0.0/24 -o remotes=192.0.2.2,192.0.2.3 web")]
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BridgeCommand {
    /// Create a bridge and bring it up
    Add {
        /// The bridge
        name: String,
    },
    /// Delete a bridge; its ports stay as devices
    Del {
        /// The bridge
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PortCommand {
    /// Make an interface a port
    Add {
        /// The bridge
        bridge: String,
        /// The interface
        interface: String,
    },
    /// Release an interface
    Del {
        /// The bridge
        bridge: String,
        /// The interface
        interface: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TunnelCommand {
    /// Show the tunnels of one bridge or all, with their traffic
    Show {
        /// The bridge
        bridge: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Add a tunnel, or remotes to one
    #[command(after_help = "Example: ovs-loader tunnel add br-ex vxlan42 --type vxlan --key 42 \
        --local 192.0.2.1 --remote 192.0.2.2 192.0.2.3")]
    Add(TunnelAdd),
    /// Delete a tunnel
    Del {
        /// The bridge
        bridge: String,
        /// The tunnel device
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct TunnelAdd {
    /// The bridge
    bridge: String,
    /// The tunnel device; for GRE with several remotes a number follows the name
    name: String,
    /// The encapsulation
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    encap: EncapName,
    /// The other hosts' addresses
    #[arg(long = "remote", required = true, num_args = 1.., value_name = "ADDR")]
    remotes: Vec<IpAddr>,
    /// This host's address
    #[arg(long, value_name = "ADDR")]
    local: Option<IpAddr>,
    /// The VNI (VXLAN, required) or the GRE key
    #[arg(long, value_name = "N", required_if_eq("encap", "vxlan"))]
    key: Option<u32>,
    /// The UDP destination port (VXLAN) [default: 4789]
    #[arg(long, value_name = "N")]
    dst_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EncapName {
    Vxlan,
    Gre,
}

impl TunnelAdd {
    /// The bridge, and what to add to it.
    pub(super) fn into_spec(self) -> (String, TunnelSpec) {
        let Self { bridge, name, encap, remotes, local, key, dst_port } = self;
        let encap = match encap {
            EncapName::Vxlan => Encap::Vxlan,
            EncapName::Gre => Encap::Gre,
        };
        (bridge, TunnelSpec { name: Some(name), encap, local, remotes, key, dst_port })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
