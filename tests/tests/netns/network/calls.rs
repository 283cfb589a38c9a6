//! The driver by its calls, word for word as dockerd 20.10.24 sends them.

use std::time::Duration;

use anyhow::Result;
use ovs_ebpf_tests::lab::{Host, Lab};
use serde_json::{Value, json};

use super::{call, call_with, list, serve};
use crate::support::{State, shell};

const NETWORK: &str = "b2ac3560602a8a11266a12ef038923f1a1e33ae1fccea6d7a1d059fb06ed149d";
const ENDPOINT: &str = "009427681cc81a22d516e4e1a9400a6448c7657c8fe23072e0b1043b50d3f8c6";

fn create_network() -> Value {
    json!({"NetworkID": NETWORK, "Options": {"com.docker.network.enable_ipv6": false,
        "com.docker.network.generic": {"key": "77", "remotes": "192.0.2.2"}},
        "IPv4Data": [{"AddressSpace": "LocalDefault", "AuxAddresses": {"r": "10.5.0.9/24"},
        "Gateway": "10.5.0.1/24", "Pool": "10.5.0.0/24"}], "IPv6Data": []})
}

fn create_endpoint(id: &str, address: &str, mac: &str) -> Value {
    json!({"NetworkID": NETWORK, "EndpointID": id, "Interface": {"Address": address,
        "AddressIPv6": "", "MacAddress": mac}, "Options":
        {"com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 99}],
        "com.docker.network.portmap": [{"Proto": 6, "IP": "", "Port": 80, "HostIP": "",
        "HostPort": 8080, "HostPortEnd": 8080}]}})
}

fn join(id: &str) -> Value {
    json!({"NetworkID": NETWORK, "EndpointID": id,
        "SandboxKey": "/var/run/docker/netns/59b61c49360f",
        "Options": {"com.docker.network.endpoint.exposedports": [],
        "com.docker.network.portmap": []}})
}

fn names(id: &str) -> Value {
    json!({"NetworkID": NETWORK, "EndpointID": id})
}

/// A network's and an endpoint's life, with the answer to each call.
fn life() -> Vec<(&'static str, Value, Value)> {
    let joined = json!({"InterfaceName": {"SrcName": "009427681cc81_c", "DstPrefix": "eth"},
        "Gateway": "", "GatewayIPv6": "", "DisableGatewayService": false});
    vec![
        ("NetworkDriver.CreateNetwork", create_network(), json!({})),
        (
            "NetworkDriver.CreateEndpoint",
            create_endpoint(ENDPOINT, "10.5.0.2/24", ""),
            json!({"Interface": {"MacAddress": "02:42:0a:05:00:02"}}),
        ),
        ("NetworkDriver.Join", join(ENDPOINT), joined),
        ("NetworkDriver.EndpointOperInfo", names(ENDPOINT), json!({"Value": {}})),
        ("NetworkDriver.Leave", names(ENDPOINT), json!({})),
        ("NetworkDriver.DeleteEndpoint", names(ENDPOINT), json!({})),
        ("NetworkDriver.DeleteNetwork", json!({"NetworkID": NETWORK}), json!({})),
    ]
}

/// Neither devices nor files are left.
#[track_caller]
fn nothing_is_left(host: &Host, before: &State<'_>) {
    before.is_unchanged();
    let files =
        shell(host, &format!("find {} -name '*.json' -o -name '*.new'", host.state().display()));
    assert_eq!(files, "");
}

#[test]
fn each_call_has_its_answer_and_the_same_again_when_it_is_repeated() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let before = State::of(host);
    let loader = serve(host)?;
    assert_eq!(call_with(host, "Plugin.Activate", "")?.1["Implements"][0], "NetworkDriver");
    let capabilities = json!({"Scope": "local", "ConnectivityScope": "global"});
    assert_eq!(call_with(host, "NetworkDriver.GetCapabilities", "")?, (200, capabilities));
    for (method, question, answer) in life() {
        for _ in 0..2 {
            assert_eq!(call(host, method, &question)?, (200, answer.clone()), "{method}");
        }
        if method == "NetworkDriver.Join" {
            let shown = shell(host, "bridge link; ip -d link show type vxlan");
            assert!(shown.contains("009427681cc81_p") && shown.contains("vxlan id 77"), "{shown}");
            assert_eq!(list(host)?[0]["mtu"], 1450);
        }
    }
    drop(loader);
    nothing_is_left(host, &before);
    Ok(())
}

#[test]
fn what_is_no_call_or_about_nothing_known_is_said() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let _loader = serve(host)?;
    // Docker goes without these.
    for method in ["NetworkDriver.ProgramExternalConnectivity", "VolumeDriver.Create", "x"] {
        assert_eq!(call(host, method, &json!({}))?.0, 404, "{method}");
    }
    let other = "f".repeat(64);
    for (method, body, said) in [
        ("CreateNetwork", "{".to_owned(), "no call of libnetwork's"),
        ("CreateNetwork", json!({"NetworkID": "../x"}).to_string(), "is no id"),
        ("CreateEndpoint", names(&other).to_string(), "is not known here"),
        ("Join", names(&other).to_string(), "is not known here"),
    ] {
        let (status, answer) = call_with(host, &format!("NetworkDriver.{method}"), &body)?;
        let err = answer["Err"].as_str().unwrap_or_default();
        assert!(status == 200 && err.contains(said), "{method}: {answer}");
    }
    // What is not there any more is gone already.
    for method in ["Leave", "DeleteEndpoint", "DeleteNetwork"] {
        let gone = call(host, &format!("NetworkDriver.{method}"), &names(&other))?;
        assert_eq!(gone, (200, json!({})), "{method}");
    }
    Ok(())
}

#[test]
fn a_daemon_that_is_killed_after_any_call_goes_on_where_it_was() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let before = State::of(host);
    let mut loader = serve(host)?;
    for (method, question, answer) in life() {
        assert_eq!(call(host, method, &question)?.1, answer, "{method}");
        loader.kill_9()?;
        loader = serve(host)?;
        // The answer was lost: Docker asks again.
        assert_eq!(call(host, method, &question)?.1, answer, "{method} again");
    }
    drop(loader);
    shell(host, &format!("rm -rf {}", host.bpffs().display()));
    nothing_is_left(host, &before);
    Ok(())
}

#[test]
fn a_daemon_that_is_killed_amid_a_call_does_it_when_it_is_asked_again() -> Result<()> {
    let lab = Lab::pair()?;
    let host = lab.host(0);
    let before = State::of(host);
    let mut loader = serve(host)?;
    for delay in [0, 1, 2, 4, 8, 16] {
        for (method, question, answer) in life() {
            std::thread::scope(|scope| {
                // Its answer may come or not.
                scope.spawn(|| drop(call(host, method, &question)));
                std::thread::sleep(Duration::from_millis(delay));
                loader.kill_9()
            })?;
            loader = serve(host)?;
            assert_eq!(call(host, method, &question)?.1, answer, "{method} after {delay} ms");
        }
    }
    drop(loader);
    shell(host, &format!("rm -rf {}", host.bpffs().display()));
    nothing_is_left(host, &before);
    Ok(())
}
