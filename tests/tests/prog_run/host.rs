//! A host with the programs loaded and their maps filled by hand: no daemon, no traffic.

use std::collections::BTreeMap;
use std::process::Command;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf},
    programs::{ProgramInfo, SchedClassifier, Xdp},
};
use nix::sched::{CloneFlags, unshare};
use ovs_ebpf_common::{
    PACKET_REASONS, Reason,
    abi::{
        AllowedKey, AllowedValue, Control, DoubtValue, FDB_CAPACITY, FdbKey, FdbValue, GuardKey,
        GuardValue, PortValue, Program, ProgramCounters, SecurityValue, SourceCounters, SourceKey,
        TunnelCounters, TunnelIndexKey, TunnelIndexKey6, TunnelIndexValue, TunnelValue,
        UplinkValue,
    },
};
use ovs_ebpf_tests::{generate::Device, vectors::Tunnel};
use ovs_loader::datapath::{self, OBJECT};

use crate::run::{self, Input, Live, Outcome, PASS, REDIRECT, SHOT};

mod tables;

use tables::replace;
pub(crate) use tables::{at_port, behind_tunnel, kind, receiver_key, sender_end};

/// The bridge's number: no device is behind it here.
pub(crate) const BRIDGE: u32 = 9;
/// The port that the vectors' sender is behind, or on the other host their receiver.
pub(crate) const PORT: u32 = 10;
/// Another port of the bridge.
pub(crate) const OTHER_PORT: u32 = 20;
/// The uplink, with the MAC that the vectors' outer frames are sent to.
pub(crate) const UPLINK: u32 = 30;
/// The id of the only tunnel.
pub(crate) const TUNNEL: u32 = 1;
/// The underlay's MTU.
pub(crate) const UNDERLAY_MTU: u32 = 1500;
/// The first UDP source port, and how many follow it: an odd range, to see that it is kept.
pub(crate) const SOURCE_PORTS: (u16, u16) = (40_001, 4_999);

/// The devices: veths, whose other ends have the next number.
pub(crate) const DEVICES: [Device; 3] = [
    Device { ifindex: PORT, mac: [0x02, 0, 0, 0, 0x02, 0x01] },
    Device { ifindex: OTHER_PORT, mac: [0x02, 0, 0, 0, 0x02, 0x02] },
    Device { ifindex: UPLINK, mac: [0x02, 0, 0, 0, 0x01, 0x02] },
];

/// The stations of the vectors.
pub(crate) const SENDER: [u8; 6] = [0x02, 0, 0, 0, 0x0a, 0x01];
/// See [`SENDER`].
pub(crate) const RECEIVER: [u8; 6] = [0x02, 0, 0, 0, 0x0b, 0x02];

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Redirected, as this frame.
    Forwarded(Vec<u8>),
    /// Left to the bridge without a change.
    Left(Reason),
}

/// What was seen of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) outcome: Outcome,
    /// The counters that moved: see [`Host::moved`].
    pub(crate) counted: Vec<(usize, u64)>,
}

/// The loaded programs and their maps. Devices are in a network namespace of the calling thread's own.
pub(crate) struct Host {
    ebpf: Ebpf,
    control: Array<MapData, Control>,
    /// The last one written.
    generation: u64,
    pub(crate) ports: HashMap<MapData, u32, PortValue>,
    pub(crate) fdb: HashMap<MapData, FdbKey, FdbValue>,
    pub(crate) doubts: HashMap<MapData, FdbKey, DoubtValue>,
    tunnels: Array<MapData, TunnelValue>,
    pub(crate) tunnel_index: HashMap<MapData, TunnelIndexKey, TunnelIndexValue>,
    pub(crate) tunnel_index6: HashMap<MapData, TunnelIndexKey6, TunnelIndexValue>,
    counters: PerCpuArray<MapData, ProgramCounters>,
    tunnel_counters: PerCpuArray<MapData, TunnelCounters>,
    events: Option<RingBuf<MapData>>,
    pub(crate) guards: HashMap<MapData, GuardKey, GuardValue>,
    pub(crate) uplinks: HashMap<MapData, u32, UplinkValue>,
    pub(crate) sources: HashMap<MapData, SourceKey, SourceCounters>,
    pub(crate) security: HashMap<MapData, u32, SecurityValue>,
    pub(crate) allowed: HashMap<MapData, AllowedKey, AllowedValue>,
    pub(crate) stations: HashMap<MapData, FdbKey, AllowedValue>,
    /// By program and CPU, as last read.
    counted: [Vec<ProgramCounters>; Program::ALL.len()],
    /// Ids that [`Self::set_tables`] set.
    tunnels_set: Vec<u32>,
}

impl Host {
    /// A host with a running lease, one bridge port and an uplink; no stations and no tunnel.
    pub(crate) fn new() -> Self {
        Self::with_fdb_capacity(FDB_CAPACITY as u32)
    }

    /// [`Self::new`] with room for so many stations.
    pub(crate) fn with_fdb_capacity(capacity: u32) -> Self {
        Self::load(datapath::decap_l3().expect("the kernel can be asked"), true, capacity)
    }

    /// [`Self::new`] on a kernel where programs preempt each other.
    pub(crate) fn without_flow_cache() -> Self {
        Self::load(true, false, FDB_CAPACITY as u32)
    }

    /// [`Self::new`] on a kernel that must not be asked for `BPF_F_ADJ_ROOM_DECAP_L3_IPV6`, as any can
    /// be treated.
    pub(crate) fn on_old_kernel() -> Self {
        Self::load(false, true, FDB_CAPACITY as u32)
    }

    /// [`Self::new`], with what the loader tells the programs of the kernel.
    fn load(decap_l3: bool, flow_cache: bool, fdb_capacity: u32) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
        // No frames but the tests' own: a device that comes up would look for its neighbours.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("disable_ipv6");
        for Device { ifindex: index, mac } in DEVICES {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            ip(&format!(
                "link add name dev{index} index {index} address {mac} up type veth \
                 peer name peer{index} index {}",
                index + 1
            ));
            ip(&format!("link set peer{index} up"));
        }
        let mut ebpf = EbpfLoader::new()
            .override_global("DECAP_L3", &u8::from(decap_l3), true)
            .override_global("FLOW_CACHE", &u8::from(flow_cache), true)
            .map_max_entries("fdb", fdb_capacity)
            .load(object())
            .expect("the BPF object loads");
        for program in Program::TC {
            let name = program.name();
            let program: &mut SchedClassifier =
                ebpf.program_mut(name).unwrap_or_else(|| panic!("{name}")).try_into().expect(name);
            datapath::verified(|| program.load())
                .unwrap_or_else(|error| panic!("{name}: {error:#?}"));
        }
        let filter = Program::UplinkXdp.name();
        let xdp: &mut Xdp = ebpf.program_mut(filter).expect(filter).try_into().expect(filter);
        datapath::verified(|| xdp.load()).unwrap_or_else(|error| panic!("{filter}: {error:#?}"));
        let counters = map(&mut ebpf, "counters");
        let mut host = Self {
            control: map(&mut ebpf, "control"),
            generation: 0,
            ports: map(&mut ebpf, "ports"),
            fdb: map(&mut ebpf, "fdb"),
            doubts: map(&mut ebpf, "doubts"),
            tunnels: map(&mut ebpf, "tunnels"),
            tunnel_index: map(&mut ebpf, "tunnel_index"),
            tunnel_index6: map(&mut ebpf, "tunnel_index6"),
            tunnel_counters: map(&mut ebpf, "tunnel_counters"),
            events: Some(map(&mut ebpf, "events")),
            guards: map(&mut ebpf, "guards"),
            uplinks: map(&mut ebpf, "xdp_uplinks"),
            sources: map(&mut ebpf, "xdp_sources"),
            security: map(&mut ebpf, "security"),
            allowed: map(&mut ebpf, "allowed"),
            stations: map(&mut ebpf, "stations"),
            counted: Program::ALL.map(|program| per_cpu(&counters, program)),
            counters,
            tunnels_set: Vec::new(),
            ebpf,
        };
        host.set_lease(u64::MAX);
        host.set_port(PORT);
        host
    }

    /// A host where [`SENDER`] is behind [`PORT`] and [`RECEIVER`] behind the tunnel, which is at its
    /// sending end.
    pub(crate) fn sending(tunnel: &Tunnel) -> Self {
        let mut host = Self::new();
        host.set_station(SENDER, at_port(PORT));
        host.set_station(RECEIVER, behind_tunnel());
        host.set_tunnel(sender_end(tunnel));
        host
    }

    /// A host where [`SENDER`] is behind the tunnel, which is at its receiving end, and [`RECEIVER`]
    /// behind [`PORT`].
    pub(crate) fn receiving(tunnel: &Tunnel) -> Self {
        Self::new().at_receiving_end(tunnel)
    }

    /// [`Self::receiving`] on an old kernel.
    pub(crate) fn receiving_on_old_kernel(tunnel: &Tunnel) -> Self {
        Self::on_old_kernel().at_receiving_end(tunnel)
    }

    fn at_receiving_end(self, tunnel: &Tunnel) -> Self {
        let mut host = self;
        host.set_station(SENDER, behind_tunnel());
        host.set_station(RECEIVER, at_port(PORT));
        host.set_tunnel_index(receiver_key(tunnel));
        host
    }

    /// The classifier, to attach it.
    pub(crate) fn program(&mut self, program: Program) -> &mut SchedClassifier {
        let program = self.ebpf.program_mut(program.name()).expect("loaded");
        program.try_into().expect("a classifier")
    }

    /// What the kernel says of a program.
    pub(crate) fn info(&self, program: Program) -> ProgramInfo {
        self.ebpf.program(program.name()).expect("loaded").info().expect("the kernel shows it")
    }

    /// Runs a program on a frame that arrives on a device.
    ///
    /// # Panics
    /// Where the kernel refuses the frame, or the program breaks a rule that holds for every frame:
    /// it redirects or passes on, a frame passed on is unchanged, and exactly one counter moves by
    /// one.
    pub(crate) fn run(&mut self, program: Program, ifindex: u32, frame: &[u8]) -> Verdict {
        self.run_gso(program, ifindex, frame, 0)
    }

    /// [`Self::run`] with the payload bytes of each segment that the frame stands for.
    pub(crate) fn run_gso(
        &mut self,
        program: Program,
        ifindex: u32,
        frame: &[u8],
        gso_size: u32,
    ) -> Verdict {
        self.run_input(program, Input { ifindex, frame, gso_size, mark: 0 }).0
    }

    /// [`Self::run`] with everything that a frame can be given; with the mark that it has then.
    pub(crate) fn run_input(&mut self, program: Program, input: Input<'_>) -> (Verdict, u32) {
        let frame = input.frame;
        let name = program.name();
        let Observed { outcome, counted } = self.observe(program, input);
        let verdict = match (outcome.verdict, counted.as_slice()) {
            (REDIRECT, [(0, 1), (1, bytes)]) if *bytes == frame.len() as u64 => {
                Verdict::Forwarded(outcome.frame)
            }
            (PASS, [(at @ 2.., 1)]) => {
                assert_eq!(outcome.frame, frame, "{name} changed a frame that it passed on");
                let code = u8::try_from(at - 2).expect("a reason's code");
                Verdict::Left(Reason::from_code(code).expect("a reason"))
            }
            (verdict, counted) => {
                panic!("{name} returned {verdict} and counted {counted:?} on {frame:02x?}")
            }
        };
        (verdict, outcome.mark)
    }

    /// Runs a program, and expects nothing of it.
    ///
    /// # Panics
    /// Where the kernel refuses the frame.
    pub(crate) fn observe(&mut self, program: Program, input: Input<'_>) -> Observed {
        let name = program.name();
        let loaded = self.ebpf.program(name).expect("loaded").try_into().expect("a classifier");
        let outcome = run::run(loaded, input)
            .unwrap_or_else(|error| panic!("{name}: {error:?} on {:02x?}", input.frame));
        Observed { outcome, counted: self.moved(program) }
    }

    /// Runs the filter on a frame that arrives on a device.
    ///
    /// # Panics
    /// Where the kernel refuses the frame, or the filter changes it or counts other than it does.
    pub(crate) fn filter(&mut self, ifindex: u32, frame: &[u8]) -> Result<(), Reason> {
        let name = Program::UplinkXdp.name();
        let loaded: &Xdp = self.ebpf.program(name).expect("loaded").try_into().expect("for XDP");
        let (verdict, after) = run::run_xdp(loaded, ifindex, frame)
            .unwrap_or_else(|error| panic!("{name}: {error:?} on {frame:02x?}"));
        assert_eq!(after, frame, "{name} changed a frame");
        match (verdict, self.moved(Program::UplinkXdp).as_slice()) {
            (run::XDP_PASS, []) => Ok(()),
            (run::XDP_DROP, [(at @ 2.., 1)]) => {
                let code = u8::try_from(at - 2).expect("a reason's code");
                Err(Reason::from_code(code).expect("a reason"))
            }
            (verdict, counted) => {
                panic!("{name} returned {verdict} and counted {counted:?} on {frame:02x?}")
            }
        }
    }

    /// Runs port security on a frame that arrives on a device, with the payload bytes of each segment
    /// that it stands for.
    ///
    /// # Panics
    /// Where the kernel refuses the frame, or the program changes it or counts other than it does.
    pub(crate) fn secure(
        &mut self,
        ifindex: u32,
        frame: &[u8],
        gso_size: u32,
    ) -> Result<(), Reason> {
        let input = Input { ifindex, frame, gso_size, mark: 0 };
        let Observed { outcome, counted } = self.observe(Program::PortSecurity, input);
        assert_eq!(outcome.frame, frame, "port security changed a frame");
        match (outcome.verdict, counted.as_slice()) {
            (PASS, []) => Ok(()),
            (SHOT, [(at @ 2.., 1)]) => {
                let code = u8::try_from(at - 2).expect("a reason's code");
                Err(Reason::from_code(code).expect("a reason"))
            }
            (verdict, counted) => {
                panic!("port security returned {verdict} and counted {counted:?} on {frame:02x?}")
            }
        }
    }

    /// Takes from the filter all that it knows.
    pub(crate) fn forget_guards(&mut self) {
        replace(&mut self.guards, &BTreeMap::new());
    }

    /// Has a device receive copies of a frame through the filter, as its driver would. Those that pass
    /// go up the stack.
    pub(crate) fn filter_live(&self, ifindex: u32, frame: &[u8], copies: u32) -> Live {
        let name = Program::UplinkXdp.name();
        let loaded: &Xdp = self.ebpf.program(name).expect("loaded").try_into().expect("for XDP");
        run::run_xdp_live(loaded, ifindex, frame, copies)
            .unwrap_or_else(|error| panic!("{name}: {error:?}"))
    }

    /// Which of a program's counters moved since this was last asked, and by how much: 0 packets,
    /// 1 bytes, from 2 on the reasons by their code.
    pub(crate) fn moved(&mut self, program: Program) -> Vec<(usize, u64)> {
        let now = per_cpu(&self.counters, program);
        let before = std::mem::replace(&mut self.counted[program as usize], now.clone());
        let mut deltas = [0; 2 + PACKET_REASONS];
        // Of most CPUs none has moved: said at once, for this runs after every frame.
        for (now, before) in now.iter().zip(&before).filter(|(now, before)| now != before) {
            deltas[0] += now.packets - before.packets;
            deltas[1] += now.bytes - before.bytes;
            for code in 0..PACKET_REASONS {
                deltas[2 + code] += now.reasons[code] - before.reasons[code];
            }
        }
        let moved = (0..deltas.len()).filter(|at| deltas[*at] != 0);
        moved.map(|at| (at, deltas[at])).collect()
    }
}

fn per_cpu(
    counters: &PerCpuArray<MapData, ProgramCounters>,
    program: Program,
) -> Vec<ProgramCounters> {
    counters.get(&(program as u32), 0).expect("counters").to_vec()
}

/// The reason of this name.
pub(crate) fn reason(name: &str) -> Reason {
    let mut all = Reason::ALL.iter().copied();
    all.find(|reason| reason.name() == name).unwrap_or_else(|| panic!("no reason {name:?}"))
}

/// The object that the daemon embeds.
pub(crate) fn object() -> &'static [u8] {
    assert!(
        !OBJECT.is_empty(),
        "built without the BPF programs: run `cargo xtask setup`, then again"
    );
    OBJECT
}

fn map<T>(ebpf: &mut Ebpf, name: &str) -> T
where
    T: TryFrom<Map, Error: std::fmt::Debug>,
{
    let map = ebpf.take_map(name).unwrap_or_else(|| panic!("the object has no map {name:?}"));
    T::try_from(map).unwrap_or_else(|error| panic!("map {name}: {error:?}"))
}

/// Runs `ip` in the calling thread's namespace.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = output.expect("ip (Debian: iproute2) can be run");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
}
