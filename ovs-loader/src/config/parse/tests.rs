//! Bad input, where it is reported, and with what help.

use std::net::Ipv4Addr;

use super::super::{Error, PortRule, PortSelector};
use super::*;

/// A `[[bridge]]` whose fourth line is the given one.
fn vxlan(line: &str) -> String {
    format!("[[bridge]]\nname = \"br-ex\"\ntunnel = \"vxlan\"\n{line}\n")
}

#[track_caller]
fn assert_mistake(text: &str, line: usize, problem: &str, help: &str) {
    let Err(Error::Invalid(invalid)) = Config::parse("c.toml", text) else {
        panic!("accepted: {text}");
    };
    assert!(invalid.problem.contains(problem), "{:?} lacks {problem:?}", invalid.problem);
    assert!(invalid.help.contains(help), "{:?} lacks {help:?}", invalid.help);
    assert_eq!(invalid.line, line, "{invalid}");
    assert!(invalid.to_string().starts_with(&format!("c.toml:{line}: ")));
}

#[test]
fn each_mistake_in_accelerate_names_its_line_and_the_remedy() {
    for (text, line, problem, help) in [
        ("[accelerat]", 1, "unknown field `accelerat`", "did you mean `accelerate`?"),
        ("[accelerate]\nlease_second = 30", 2, "lease_second", "did you mean `lease_seconds`?"),
        ("[accelerate]\nzebra = 30", 2, "zebra", "this section has: bridges,"),
        ("[accelerate]\nlease_seconds = 2", 2, "lease_seconds = 2", "from 3 to 3600"),
        ("[accelerate]\nlease_seconds = \"9\"", 2, "invalid type", "number, without quotes"),
        ("[accelerate]\nbypass_nft_bridge = 1", 2, "invalid type", "true or false"),
        ("[accelerate]\nrevalidate_seconds = 0", 2, "out of range", "from 1 to 3600"),
        ("[accelerate]\nrevalidate_seconds = 70000", 2, "out of range", "from 1 to 3600"),
        ("[accelerate]\n\nfdb_capacity = 1023", 3, "out of range", "from 1024 to 4194304"),
        ("[accelerate]\nfdb_capacity = 4194305", 2, "out of range", "from 1024 to 4194304"),
        ("[accelerate]\nxdp = \"of\"", 2, "xdp = \"of\"", "\"off\" or \"filter\""),
        ("[accelerate]\nxdp = \"forward\"", 2, "lose frames", "write \"filter\""),
        ("[accelerate]\nxdp = true", 2, "invalid type", "text in quotes"),
        ("[accelerate]\nbridges = []", 2, "empty list", "leave the line out"),
        ("[accelerate]\nbridges = \"br-ex\"", 2, "invalid type", "list in brackets"),
        ("[accelerate]\nbridges = [\"a\",\n \"a\"]", 3, "there twice", "one name"),
        ("[accelerate]\nlease_seconds = 3\nlease_seconds = 4", 3, "duplicate", "keep one"),
        ("[accelerate]\nlease_seconds = ", 2, "", "--help"),
        ("ovs = 1", 1, "invalid type", "[ovs]"),
        ("docker = true", 1, "invalid type", "[docker]"),
        ("[docker]\nenable = true", 2, "enable", "did you mean `enabled`?"),
        ("[docker]\nenabled = 1", 2, "invalid type", "true or false"),
        ("[ovs]\nrundir = [\"/run\"]", 2, "rundir", "did you mean `rundirs`?"),
    ] {
        assert_mistake(text, line, problem, help);
    }
}

#[test]
fn each_mistake_in_a_bridge_names_its_line_and_the_remedy() {
    for (text, line, problem, help) in [
        ("[[bridge]]\nkind = \"linux\"", 1, "without a name", "name = \"br-ex\""),
        (
            "[[bridge]]\nname = \"a\"\n[[bridge]]\nname = \"a\"",
            4,
            "\"a\" is there twice",
            "one name",
        ),
        ("[[bridge]]\nname = \"a\"\nports = [\"a\"]", 3, "there twice", "one place"),
        ("[[bridge]]\nname = \"sixteen-letters-\"", 2, "too long", "1 to 15"),
        ("[[bridge]]\nname = \"a b\"", 2, "a space", "1 to 15"),
        ("[[bridge]]\nname = \"br%d\"", 2, "or '%'", "1 to 15"),
        ("[[bridge]]\nname = \"\"", 2, "is empty", "1 to 15"),
        ("[[bridge]]\nname = \"..\"", 2, "directory", "1 to 15"),
        ("[[bridge]]\nname = \"a\"\nkind = \"ovs\"", 3, "always a Linux", "ovs-vsctl add-br"),
        ("[[bridge]]\nname = \"a\"\nkind = \"x\"", 3, "no kind of bridge", "\"linux\""),
        ("[[bridge]]\nname = \"a\"\ntunnel = \"geneve\"", 3, "no kind of tunnel", "\"vxlan\" or"),
        (
            "[[bridge]]\nname = \"a\"\nremotes = [\"192.0.2.2\"]",
            3,
            "remotes without a tunnel",
            "add tunnel",
        ),
        ("[[bridge]]\nname = \"a\"\nkey = 4", 3, "key without a tunnel", "add tunnel"),
        ("[[bridge]]\nname = \"a\"\nremote = [\"192.0.2.2\"]", 3, "`remote`", "`remotes`?"),
        (
            "[[bridge]]\nname = \"a\"\ntunnel = \"gre\"\nremotes = [\"192.0.2.2\"]\nkey = 4294967296",
            5,
            "out of range",
            "to 4294967295",
        ),
        (
            "[[bridge]]\nname = \"a\"\ntunnel = \"gre\"\nremotes = [\"192.0.2.2\"]\ndst_port = 4789",
            5,
            "GRE has no port",
            "remove dst_port",
        ),
    ] {
        assert_mistake(text, line, problem, help);
    }
}

#[test]
fn each_mistake_in_a_vxlan_tunnel_names_its_line_and_the_remedy() {
    for (lines, line, problem, help) in [
        ("remotes = [\"192.0.2.2\"]", 3, "without a key", "key = 42"),
        ("key = 16777216", 4, "key = 16777216 is out of range", "from 0 to 16777215"),
        ("key = -1", 4, "out of range", "from 0"),
        ("key = 1\nremotes = []", 5, "without remotes", "remotes ="),
        ("key = 1", 3, "without remotes", "remotes ="),
        ("key = 1\ndst_port = 0", 5, "dst_port = 0", "from 1 to 65535"),
        ("key = 1\nlocal = \"192.0.2\"", 5, "\"192.0.2\" is not an IP address", "192.0.2.1"),
        ("key = 1\nlocal = \"0.0.0.0\"", 5, "not one host", "192.0.2.1"),
        ("key = 1\nremotes = [\"239.1.1.1\"]", 5, "not one host", "192.0.2.1"),
        ("key = 1\nremotes = [\"192.0.2.2\",\n\"192.0.2.2\"]", 6, "there twice", "remove one"),
        (
            "key = 1\nlocal = \"192.0.2.1\"\nremotes = [\"192.0.2.1\"]",
            6,
            "is the local",
            "other hosts",
        ),
        (
            "key = 1\nremotes = [\"192.0.2.1\",\n\"2001:db8::1\"]",
            6,
            "another family",
            "all as IPv4",
        ),
        ("key = 1\nremotes = [\"2001:db8::1\"]", 5, "without a local", "local ="),
    ] {
        assert_mistake(&vxlan(lines), line, problem, help);
    }
}

#[test]
fn each_mistake_in_a_port_names_its_line_and_the_remedy() {
    for (lines, line, problem, help) in [
        ("", 1, "either a name or a bridge", "name = \"veth-a\""),
        ("name = \"a\"\nbridge = \"b\"", 1, "either a name or a bridge", "bridge = \"br-ex\""),
        ("name = \"a\"", 1, "limits nothing", "flood_limit = 1000"),
        ("name = \"a\"\nallowed = []\nflood_limit = 1", 3, "limits nothing", "allowed ="),
        ("name = \"a b\"\nflood_limit = 1", 2, "a space", "1 to 15"),
        ("name = \"a\"\nflood_limit = 0", 3, "out of range", "from 1 to 1000000"),
        ("name = \"a\"\nallowed = [\"web\"]", 3, "neither a MAC", "or \"own\""),
        ("name = \"a\"\nallowed = [\"2:0:0:0:0:5\"]", 3, "no MAC", "a MAC"),
        ("name = \"a\"\nallowed = [\"ff:ff:ff:ff:ff:ff\"]", 3, "not one station's", "a MAC"),
        ("name = \"a\"\nallowed = [\"0.0.0.0\"]", 3, "not one station's", "a MAC"),
        ("name = \"a\"\nallowed = [\"ff02::1\"]", 3, "not one station's", "a MAC"),
        ("name = \"a\"\nallowed = [\"10.0.0.5/24\"]", 3, "neither a MAC", "a MAC"),
        ("bridge = \"b\"\nallowed = [\"10.0.0.5\"]", 3, "differ", "allowed = [\"own\"]"),
        ("name = \"a\"\nallow = []", 3, "allow", "did you mean `allowed`?"),
        (
            "name = \"a\"\nflood_limit = 1\n[[port]]\nname = \"a\"\nflood_limit = 1",
            5,
            "there twice",
            "one name",
        ),
    ] {
        assert_mistake(&format!("[[port]]\n{lines}\n"), line, problem, help);
    }
}

#[test]
fn the_ports_of_a_file_are_read() {
    let text = r#"
        [[port]]
        name = "veth-a"
        allowed = ["02:00:00:00:00:05", "10.0.0.5", "fd00::5", "::ffff:10.0.0.6"]
        flood_limit = 1000

        [[port]]
        bridge = "br-ex"
        allowed = ["own"]
    "#;
    let addresses = ["10.0.0.5", "10.0.0.6", "fd00::5"].map(|text| text.parse().unwrap());
    let named = PortRule {
        of: PortSelector::Name("veth-a".to_owned()),
        own: false,
        macs: [crate::bridge::model::Mac([2, 0, 0, 0, 0, 5])].into(),
        addresses: addresses.into(),
        flood_limit: Some(1000),
    };
    let of_bridge = PortRule {
        of: PortSelector::ContainersOf("br-ex".to_owned()),
        own: true,
        macs: [].into(),
        addresses: [].into(),
        flood_limit: None,
    };
    assert_eq!(Config::parse("c.toml", text).unwrap().ports, [named, of_bridge]);
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(Config::parse("c.toml", "").unwrap(), Config::default());
    assert_eq!(Config::load(None).unwrap(), Config::default());
}

#[test]
fn a_whole_file_is_read() {
    let text = r#"
        [accelerate]
        bridges = ["br-ex"]
        lease_seconds = 10
        bypass_egress_filters = true

        [ovs]
        rundirs = ["/run/one", "/run/two"]

        [[bridge]]
        name = "br-ex"
        kind = "linux"
        tunnel = "vxlan"
        key = 42
        local = "192.0.2.1"
        remotes = ["192.0.2.2"]
        ports = ["veth-a"]
    "#;
    let config = Config::parse("c.toml", text).unwrap();
    let expected = Accelerate {
        bridges: Some(vec!["br-ex".to_owned()]),
        lease_seconds: 10,
        bypass_egress_filters: true,
        ..Accelerate::default()
    };
    assert_eq!(config.accelerate, expected);
    assert_eq!(config.ovs_rundirs, Some(vec!["/run/one".into(), "/run/two".into()]));
    let tunnel = TunnelSpec {
        name: None,
        encap: Encap::Vxlan,
        local: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        remotes: vec![Ipv4Addr::new(192, 0, 2, 2).into()],
        key: Some(42),
        dst_port: None,
    };
    let bridge = BridgeSpec {
        name: "br-ex".to_owned(),
        tunnel: Some(tunnel),
        ports: vec!["veth-a".to_owned()],
    };
    assert_eq!(config.bridges, [bridge]);
}

#[test]
fn a_file_that_cannot_be_read_says_so_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.toml");
    for (path, says) in [(missing.as_path(), "no such file"), (directory.path(), "is a directory")]
    {
        let message = Config::load(Some(path)).unwrap_err().to_string();
        assert!(message.contains(says) && !message.contains('\n'), "{message}");
        assert!(message.contains(&path.display().to_string()), "{message}");
    }
}
