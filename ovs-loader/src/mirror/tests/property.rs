//! Whatever happens, in whatever order, the maps end as a plan from scratch would have them.

use proptest::prelude::*;

use super::maps::{Broken, Contents, Maps};
use super::*;
use crate::mirror::Applied;

/// Something that happens on the host.
#[derive(Clone, Debug)]
enum Event {
    /// A station appears at or moves to a port.
    Learned { bridge: bool, mac: u8, port: u8 },
    /// A station ages.
    Aged { bridge: bool, mac: u8 },
    /// A vxlan device gets a station's remote, by its number, or forgets it.
    Remote { bridge: bool, mac: u8, remote: Option<u8> },
    /// The flood list becomes these remotes.
    Flood { bridge: bool, remotes: Vec<u8> },
    /// A port goes up or down.
    Port { bridge: bool, port: u8 },
    /// A bridge goes up or down.
    Bridge { bridge: bool },
    /// A remote's neighbour comes or goes.
    Neighbour { remote: u8 },
    /// The second bridge's tunnel takes the first one's VNI, or leaves it.
    Clash,
    /// A port is isolated or not.
    Isolate { bridge: bool, port: u8 },
    /// The daemon makes a new plan for another cause.
    Replan,
    /// The daemon is replaced.
    Restart,
}

fn events() -> impl Strategy<Value = Event> {
    let (bridge, mac, port, remote) = (any::<bool>(), 1..8u8, 1..4u8, 2..6u8);
    let remotes = prop::collection::vec(remote.clone(), 0..3);
    prop_oneof![
        6 => (bridge, mac.clone(), port.clone())
            .prop_map(|(bridge, mac, port)| Event::Learned { bridge, mac, port }),
        2 => (bridge, mac.clone()).prop_map(|(bridge, mac)| Event::Aged { bridge, mac }),
        4 => (bridge, mac, prop::option::of(remote.clone()))
            .prop_map(|(bridge, mac, remote)| Event::Remote { bridge, mac, remote }),
        2 => (bridge, remotes).prop_map(|(bridge, remotes)| Event::Flood { bridge, remotes }),
        1 => (bridge, port.clone()).prop_map(|(bridge, port)| Event::Port { bridge, port }),
        1 => bridge.prop_map(|bridge| Event::Bridge { bridge }),
        2 => remote.prop_map(|remote| Event::Neighbour { remote }),
        1 => Just(Event::Clash),
        1 => (bridge, port).prop_map(|(bridge, port)| Event::Isolate { bridge, port }),
        1 => Just(Event::Replan),
        1 => Just(Event::Restart),
    ]
}

/// The last port of each bridge is its tunnel. The first ifindices are tunnel ids, too.
fn ports(bridge: bool) -> [IfIndex; 3] {
    if bridge { [4, 5, 6] } else { [1, 2, 3] }
}

fn ifindex(bridge: bool) -> IfIndex {
    if bridge { 20 } else { BRIDGE }
}

fn two_bridges() -> Host {
    let mut host = Host::new();
    host.bridges.clear();
    for bridge in [false, true] {
        let [one, two, tunnel] = ports(bridge);
        let mut made = empty_bridge(ifindex(bridge), if bridge { "br-two" } else { "br-one" });
        for port in [
            port(one, "one", Device::Ethernet),
            port(two, "two", Device::Ethernet),
            tunnel_port(tunnel, "tunnel", vxlan(42 + u32::from(bridge), &[REMOTE])),
        ] {
            made.ports.insert(port.ifindex, port);
        }
        host.bridges.insert(made.ifindex, made);
    }
    host.resolve_all();
    host
}

fn tunnel_of(host: &mut Host, bridge: bool) -> &mut Tunnel {
    let port = host.bridges.get_mut(&ifindex(bridge)).unwrap().ports.get_mut(&ports(bridge)[2]);
    match &mut port.unwrap().device {
        Device::Tunnel(tunnel) => tunnel,
        other => panic!("{other:?} is no tunnel"),
    }
}

/// Lets it happen. Gives the FDB entry that changed; `None` where it was more than one.
fn happen(host: &mut Host, event: &Event) -> Option<(IfIndex, FdbKey)> {
    let of = |bridge, last| Some((ifindex(bridge), key(mac(last))));
    match event {
        Event::Learned { bridge, mac: last, port } => {
            let port = ports(*bridge)[usize::from(*port - 1)];
            let entry = FdbEntry { port, kind: FdbKind::Dynamic };
            host.bridges.get_mut(&ifindex(*bridge)).unwrap().fdb.insert(key(mac(*last)), entry);
            of(*bridge, *last)
        }
        Event::Aged { bridge, mac: last } => {
            host.bridges.get_mut(&ifindex(*bridge)).unwrap().fdb.remove(&key(mac(*last)));
            of(*bridge, *last)
        }
        Event::Remote { bridge, mac: last, remote } => {
            let fdb = &mut tunnel_of(host, *bridge).fdb;
            let _ = match remote {
                Some(remote) => fdb.insert(mac(*last), &[plain(address(*remote))]),
                None => fdb.remove(mac(*last)),
            };
            of(*bridge, *last)
        }
        Event::Flood { bridge, remotes } => {
            let remotes: BTreeSet<_> = remotes.iter().copied().collect();
            let remotes = remotes.into_iter().map(|last| plain(address(last))).collect();
            tunnel_of(host, *bridge).remotes = remotes;
            None
        }
        Event::Port { bridge, port } | Event::Isolate { bridge, port } => {
            let port = ports(*bridge)[usize::from(*port - 1)];
            let port =
                host.bridges.get_mut(&ifindex(*bridge)).unwrap().ports.get_mut(&port).unwrap();
            match event {
                Event::Port { .. } => port.up ^= true,
                _ => port.isolated ^= true,
            }
            None
        }
        Event::Bridge { bridge } => {
            host.bridges.get_mut(&ifindex(*bridge)).unwrap().up ^= true;
            None
        }
        Event::Neighbour { remote } => {
            host.resolve_all();
            for (target, resolution) in &mut host.resolutions {
                if target.remote == address(*remote) {
                    *resolution =
                        if resolution.is_ok() { no_neighbour() } else { Ok(path(target)) };
                }
            }
            None
        }
        Event::Clash => {
            let tunnel = tunnel_of(host, true);
            tunnel.key_in = tunnel.key_in.map(|vni| if vni == 42 { 43 } else { 42 });
            None
        }
        Event::Replan | Event::Restart => None,
    }
}

/// The daemon's part, as `daemon::follower` plays it.
struct Daemon {
    ids: TunnelIds,
    plan: Plan,
    applied: Applied,
}

impl Daemon {
    fn start(maps: &Maps) -> Self {
        let applied = Applied::adopt(maps).unwrap();
        Self { ids: TunnelIds::adopt(applied.tunnel_ids()), plan: Plan::default(), applied }
    }

    fn replan(
        &mut self,
        maps: &mut Maps,
        host: &mut Host,
        changed: Option<(IfIndex, FdbKey)>,
    ) -> Result<(), Broken> {
        host.resolve_all();
        self.plan = host.plan_with(&mut self.ids);
        self.applied.replan(maps, &self.plan, host.all(), changed.as_slice())
    }

    fn follow(
        &mut self,
        maps: &mut Maps,
        host: &mut Host,
        changed: Option<(IfIndex, FdbKey)>,
    ) -> Result<(), Broken> {
        match changed {
            Some(change) if self.plan.serves(host.all(), &[change]) => {
                self.applied.fdb_changed(maps, &self.plan, host.all(), &[change])
            }
            _ => self.replan(maps, host, changed),
        }
    }
}

/// What a plan makes of empty maps.
fn written(plan: &Plan, host: &Host) -> Contents {
    let mut maps = Maps::new(100);
    Applied::default().replan(&mut maps, plan, host.all(), &[]).unwrap();
    maps.contents
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Also with restarts, and with writes that fail now and then, each followed by whatever the
    /// daemon does next.
    #[test]
    fn the_maps_end_as_a_plan_from_scratch_has_them(
        events in prop::collection::vec((events(), prop::option::weighted(0.2, 0..8usize)), 1..60),
    ) {
        let mut host = two_bridges();
        let mut maps = Maps::new(100);
        let mut daemon = Daemon::start(&maps);
        daemon.replan(&mut maps, &mut host, None).unwrap();
        for (event, breaks_after) in events {
            let changed = happen(&mut host, &event);
            if matches!(event, Event::Restart) {
                daemon = Daemon::start(&maps);
            }
            maps.breaks_after = breaks_after;
            let outcome = daemon.follow(&mut maps, &mut host, changed);
            maps.breaks_after = None;
            if outcome.is_err() {
                daemon.follow(&mut maps, &mut host, Some((BRIDGE, key(mac(9))))).unwrap();
            }
            prop_assert_eq!(&maps.contents, &written(&daemon.plan, &host));
        }
        daemon.replan(&mut maps, &mut host, None).unwrap();
        let scratch = host.plan_with(&mut daemon.ids.clone());
        prop_assert_eq!(&maps.contents, &written(&scratch, &host));
    }

    /// The map is never over its capacity, holds as much as fits, and knows what does not.
    #[test]
    fn a_full_map_holds_what_fits_and_the_rest_is_known(
        events in prop::collection::vec(events(), 1..60),
        capacity in 0..8usize,
    ) {
        let mut host = two_bridges();
        let mut maps = Maps::new(capacity);
        let mut daemon = Daemon::start(&maps);
        daemon.replan(&mut maps, &mut host, None).unwrap();
        for event in events {
            let changed = happen(&mut host, &event);
            daemon.follow(&mut maps, &mut host, changed).unwrap();
            let wanted = written(&daemon.plan, &host).fdb;
            prop_assert_eq!(maps.contents.fdb.len(), wanted.len().min(capacity));
            for (key, value) in wanted {
                let held = maps.contents.fdb.get(&key);
                prop_assert!(held.is_none_or(|held| *held == value));
                prop_assert_eq!(daemon.applied.is_refused(&key), held.is_none());
            }
        }
    }
}
