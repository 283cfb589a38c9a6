//! Rows and devices that a test host does not have at will.

use serde_json::{Value, json};

use super::*;
use crate::bridge::model::FlowLabel;
use crate::bridge::ovs::tables::Schema;

const DEFAULTS: Defaults =
    Defaults { ttl: 64, source_ports: (32768, 60999), flow_label: FlowLabel::Flow };

const BRIDGE: IfIndex = 5;
const DEVICE: IfIndex = 6;

/// Open vSwitch with the bridge `br-ex` and its port `p`, whose rows have these columns too.
struct Rows {
    bridge: Value,
    port: Value,
    interface: Value,
    members: BTreeMap<String, Member>,
}

impl Rows {
    /// A bridge with a NIC, and nothing against either.
    fn new() -> Self {
        let member = |ifindex, name: &str| Member {
            port: Port {
                ifindex,
                name: name.to_owned(),
                mac: Mac([2, 0, 0, 0, 0, 9]),
                up: true,
                mtu: 1500,
                stp: StpState::Disabled,
                isolated: false,
                locked: false,
                vlans: PortVlans::default(),
                under_vlan_devices: false,
                unsupported: Vec::new(),
                device: Device::Ethernet,
            },
            in_datapath: Some(true),
            around: Vec::new(),
        };
        let members = [(BRIDGE, "br-ex"), (DEVICE, "p")]
            .map(|(ifindex, name)| (name.to_owned(), member(ifindex, name)));
        Self {
            bridge: json!({}),
            port: json!({}),
            interface: json!({ "ofport": 1 }),
            members: members.into(),
        }
    }

    fn tables(&self) -> Tables {
        let row = |row: &Value, more: Value| {
            let mut row = row.clone();
            row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "initial": row })
        };
        let mut tables = Tables::new(Schema::default());
        tables
            .update(&json!({
                "Open_vSwitch": { "o": { "initial": { "bridges": ["uuid", "b"] } } },
                "Bridge": { "b": row(&self.bridge, json!({ "name": "br-ex", "ports": ["uuid", "p"] })) },
                "Port": { "p": row(&self.port, json!({ "name": "p", "interfaces": ["uuid", "i"] })) },
                "Interface": { "i": row(&self.interface, json!({ "name": "p" })) },
            }))
            .unwrap();
        tables
    }

    fn bridge(&self) -> Bridge {
        let stations = [1, 7].map(|port| Station {
            key: FdbKey { vlan: 0, mac: Mac([2, 0, 0, 0, 0, port]) },
            port: Some(port.into()),
            fixed: false,
        });
        let answers = Answers { stations: Arc::new(stations.to_vec()), ..Answers::default() };
        let known = Known {
            tables: &self.tables(),
            members: &self.members,
            answers: &[(Uuid("b".to_owned()), answers)].into(),
            defaults: DEFAULTS,
        };
        bridges(&known, &mut Numbers::new(0)).into_values().next().expect("the bridge")
    }

    fn member(&mut self) -> &mut Member {
        self.members.get_mut("p").unwrap()
    }

    /// The port, and what stands against it.
    fn port(&self) -> (Port, Vec<(Reason, String)>) {
        let port = self.bridge().ports.into_values().next().expect("the port");
        let why = port.unsupported.iter().map(|why| (why.reason, why.detail.clone())).collect();
        (port, why)
    }
}

#[test]
fn a_port_is_its_device_and_forwards() {
    let (port, why) = Rows::new().port();
    assert_eq!(why, []);
    assert_eq!((port.ifindex, port.stp, port.mtu), (DEVICE, StpState::Forwarding, 1500));
}

#[test]
fn stations_behind_unknown_numbers_are_left_out() {
    let fdb = Rows::new().bridge().fdb;
    assert_eq!(fdb.values().map(|entry| entry.port).collect::<Vec<_>>(), [DEVICE]);
}

#[test]
fn the_ageing_time_is_within_open_vswitchs_bounds() {
    for (text, seconds) in
        [("60", 60), ("1", 15), ("9999", 3600), ("0", 300), ("", 300), ("soon", 300)]
    {
        let mut rows = Rows::new();
        rows.bridge = json!({ "other_config": ["map", [["mac-aging-time", text]]] });
        assert_eq!(rows.bridge().ageing, Duration::from_secs(seconds), "{text}");
    }
}

#[test]
fn a_device_of_another_namespace_or_out_of_the_datapath_is_not_the_ports() {
    let mut rows = Rows::new();
    rows.interface["ifindex"] = json!(DEVICE);
    assert_eq!(rows.port().1, []);
    rows.interface["ifindex"] = json!(99);
    let words = "ifindex=99, but here the device has 6".to_owned();
    assert_eq!(rows.port().1, [(Reason::OvsPortFailed, words)]);

    let mut rows = Rows::new();
    rows.member().in_datapath = None;
    assert_eq!(rows.port().1, [], "a kernel without datapaths of its own says nothing");
    rows.member().in_datapath = Some(false);
    let words = "not in the kernel datapath".to_owned();
    assert_eq!(rows.port().1, [(Reason::OvsPortFailed, words)]);
}

#[test]
fn a_port_that_failed_says_so_in_ovs_vswitchds_words() {
    for (columns, words) in [
        (json!({ "ofport": -1, "error": "could not open" }), "could not open"),
        (json!({ "ofport": -1 }), "ofport=-1"),
        (json!({}), "ofport=[]"),
    ] {
        let mut rows = Rows::new();
        rows.interface = columns;
        assert_eq!(rows.port().1, [(Reason::OvsPortFailed, words.to_owned())]);
    }
}

#[test]
fn a_spanning_trees_state_is_the_ports_own() {
    let status = |column: &str, key: &str, state: &str| json!({ column: ["map", [[key, state]]] });
    for (column, port, state) in [
        ("stp_enable", status("status", "stp_state", "forwarding"), StpState::Forwarding),
        ("stp_enable", status("status", "stp_state", "learning"), StpState::Learning),
        ("stp_enable", status("status", "stp_state", "listening"), StpState::Listening),
        ("stp_enable", status("status", "stp_state", "blocking"), StpState::Blocking),
        (
            "rstp_enable",
            status("rstp_status", "rstp_port_state", "Forwarding"),
            StpState::Forwarding,
        ),
        ("rstp_enable", status("rstp_status", "rstp_port_state", "Discarding"), StpState::Blocking),
        ("rstp_enable", json!({}), StpState::Disabled),
        ("other_config", status("status", "stp_state", "blocking"), StpState::Forwarding),
    ] {
        let mut rows = Rows::new();
        rows.bridge = json!({ column: true });
        rows.port = port;
        assert_eq!(rows.port().0.stp, state, "{column} {}", rows.port);
    }
}

#[test]
fn a_tunnel_device_of_the_kernels_and_unknown_types_are_no_tunnels_of_open_vswitch() {
    let mut rows = Rows::new();
    let tunnel = tunnel::read(tunnel::Kind::Vxlan, std::iter::empty(), DEFAULTS);
    rows.member().port.device = Device::Tunnel(Box::new(tunnel));
    assert_eq!(rows.port().0.device, Device::Other("vxlan".to_owned()));
    for kind in ["internal", "patch", "geneve", "ip6erspan", "dpdk"] {
        rows.interface["type"] = json!(kind);
        assert_eq!(rows.port().0.device, Device::Other(kind.to_owned()));
    }
}

#[test]
fn a_port_without_a_device_is_down_under_a_number_of_its_own() {
    let mut rows = Rows::new();
    rows.members.remove("p");
    let port = rows.port().0;
    assert!(!port.up && port.ifindex > NO_INTERFACE);
    rows.members.remove("br-ex");
    let bridge = rows.bridge();
    assert!(bridge.ifindex > NO_INTERFACE);
    assert_eq!(bridge.unsupported, [Why::new(Reason::OvsBridgeFailed, "no device br-ex")]);
}

#[test]
fn numbers_stay_with_their_rows_and_differ_between_open_vswitches() {
    let (mut one, mut other) = (Numbers::new(0), Numbers::new(1));
    let [a, b] = ["a", "b"].map(|row| Uuid(row.to_owned()));
    let first = one.of(&a);
    assert_ne!(first, one.of(&b));
    assert_eq!(first, one.of(&a));
    assert_ne!(first, other.of(&a));
}

/// `ovs-vswitchd.conf.db(5)`, table Port, VLAN Configuration.
#[test]
fn a_port_carries_the_vlans_that_its_row_says() {
    let all = (0..=4095).into();
    let vlans = |untagged, takes_tags, carries: &VlanSet, strips: Option<u16>| PortVlans {
        untagged,
        takes_tags,
        carries: carries.clone(),
        strips: strips.into_iter().collect(),
        vnis: None,
    };
    let set = |vlans: &[u16]| vlans.iter().copied().collect::<VlanSet>();
    let trunks = json!(["set", [10, 11, 20]]);
    for (row, expected) in [
        (json!({}), vlans(Some(0), true, &all, Some(0))),
        (json!({ "tag": 10 }), PortVlans::access(10)),
        (json!({ "tag": 0 }), PortVlans::access(0)),
        // An access port whatever `trunks` says.
        (json!({ "tag": 10, "trunks": trunks }), PortVlans::access(10)),
        (json!({ "tag": 10, "vlan_mode": "access", "trunks": 11 }), PortVlans::access(10)),
        (json!({ "vlan_mode": "access" }), PortVlans::access(0)),
        (json!({ "trunks": trunks }), vlans(None, true, &set(&[10, 11, 20]), Some(0))),
        (json!({ "trunks": ["set", [0, 10]] }), vlans(Some(0), true, &set(&[0, 10]), Some(0))),
        // A trunk has no tag of its own.
        (
            json!({ "vlan_mode": "trunk", "tag": 5, "trunks": trunks }),
            vlans(None, true, &set(&[10, 11, 20]), Some(0)),
        ),
        (
            json!({ "vlan_mode": "native-untagged", "tag": 10 }),
            vlans(Some(10), true, &(1..=4095).into(), Some(10)),
        ),
        (
            json!({ "vlan_mode": "native-untagged", "tag": 10, "trunks": ["set", [0, 20]] }),
            vlans(Some(10), true, &set(&[10, 20]), Some(10)),
        ),
        (
            json!({ "vlan_mode": "native-tagged", "tag": 10, "trunks": 20 }),
            vlans(Some(10), true, &set(&[10, 20]), Some(0)),
        ),
        (json!({ "vlan_mode": "native-tagged" }), vlans(Some(0), true, &all, Some(0))),
    ] {
        let mut rows = Rows::new();
        rows.port = row.clone();
        let (port, why) = rows.port();
        assert_eq!((port.vlans, why), (expected, vec![]), "{row}");
    }
}

#[test]
fn a_port_that_does_more_to_tags_is_left_alone() {
    for (row, words) in [
        (json!({ "vlan_mode": "dot1q-tunnel", "tag": 10 }), "vlan_mode=dot1q-tunnel"),
        (
            json!({ "other_config": ["map", [["priority-tags", "if-nonzero"]]] }),
            "other_config:priority-tags=if-nonzero",
        ),
    ] {
        let mut rows = Rows::new();
        rows.port = row;
        assert_eq!(rows.port().1, [(Reason::PortVlan, words.to_owned())]);
    }
}
