//! What the daemon says stands against the bypass.

use serde_json::Value;

use crate::lab::Loader;

/// Where a reason is reported.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// At `br-ex`.
    Bridge,
    /// At this port.
    Port(&'a str),
    /// At this tunnel device.
    Tunnel(&'a str),
    /// At the FDB entry of this MAC.
    Station(&'a str),
}

/// Whether the daemon reports the reason there now.
///
/// # Panics
/// When the daemon does not answer.
pub fn has(loader: &Loader, at: At<'_>, reason: &str) -> bool {
    detail(loader, at, reason).is_some()
}

/// What exactly was found, if the daemon reports the reason there now.
///
/// # Panics
/// When the daemon does not answer.
pub fn detail(loader: &Loader, at: At<'_>, reason: &str) -> Option<String> {
    let answer = match at {
        At::Station(_) => loader.fdb(),
        _ => loader.status(),
    };
    let answer = answer.unwrap_or_else(|error| panic!("{error:#}"));
    let bridges = elements(&answer["bridges"]).filter(|bridge| bridge["name"] == "br-ex");
    let objects: Vec<&Value> = match at {
        At::Bridge => bridges.collect(),
        At::Port(name) => named(bridges.flat_map(|bridge| elements(&bridge["ports"])), name),
        At::Tunnel(name) => named(bridges.flat_map(|bridge| elements(&bridge["tunnels"])), name),
        At::Station(mac) => {
            elements(&answer["entries"]).filter(|entry| entry["mac"] == mac).collect()
        }
    };
    let mut all = objects.iter().flat_map(|object| elements(&object["why"]));
    let why = all.find(|why| why["reason"] == reason)?;
    Some(why["detail"].as_str().unwrap_or_default().to_owned())
}

fn named<'a>(objects: impl Iterator<Item = &'a Value>, name: &str) -> Vec<&'a Value> {
    objects.filter(|object| object["name"] == name).collect()
}

/// The elements of an array, none of anything else.
pub fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
