//! Ports of Open vSwitch's bridges, as `ovs-docker` writes them: the Interface row's `external_ids`
//! have `container_id`, as the container was called, and `container_iface`.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::Error;
use crate::bridge::ovs::db::{self, Client, Condition, Mutation, Outcome, Transaction};
use crate::bridge::ovs::jsonrpc;
use crate::bridge::ovs::value::{Atom, Datum, Row, Uuid};

/// How long ovs-vswitchd has to take a change up.
const LIMIT: Duration = Duration::from_secs(10);

/// A port of a container, ours or `ovs-docker`'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// The port's and its interface's name.
    pub(super) name: String,
    /// The bridge.
    pub(super) bridge: String,
    /// As the container was called.
    pub(super) container: String,
    /// The interface in the container.
    pub(super) interface: String,
    /// The VLAN of an access port.
    pub(super) vlan: Option<u16>,
}

/// A port to be added.
#[derive(Debug)]
pub(crate) struct NewPort<'a> {
    /// The bridge.
    pub(crate) bridge: &'a str,
    /// The port's and its interface's name.
    pub(crate) name: &'a str,
    /// The VLAN of an access port.
    pub(crate) vlan: Option<u16>,
    /// The Interface row's `external_ids`.
    pub(crate) ids: &'a [(&'a str, &'a str)],
}

/// A tunnel's port to be added.
#[derive(Debug)]
pub(crate) struct NewTunnel<'a> {
    /// The bridge.
    pub(crate) bridge: &'a str,
    /// The port's and its interface's name.
    pub(crate) name: &'a str,
    /// `gre` or `vxlan`.
    pub(crate) kind: &'a str,
    /// The interface's options.
    pub(crate) options: &'a [(&'a str, &'a str)],
}

/// One Open vSwitch.
pub(crate) struct Switch {
    client: Client,
}

/// Connects to the Open vSwitch of a directory.
pub(crate) async fn connect(rundir: &Path) -> Result<Switch, Error> {
    Ok(Switch { client: Client::connect(rundir).await? })
}

/// As [`connect`]; `None` if there is none. One that has left its socket, or does not let this process in, is
/// there all the same.
pub(crate) async fn connect_if_there(rundir: &Path) -> Result<Option<Switch>, Error> {
    match Client::connect(rundir).await {
        Ok(client) => Ok(Some(Switch { client })),
        Err(db::Error::Connection(jsonrpc::Error::Connect { source, .. }))
            if source.kind() == io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

impl Switch {
    pub(crate) async fn has_bridge(&mut self, bridge: &str) -> Result<bool, Error> {
        let named = [Condition::equal("name", bridge)];
        Ok(!self.select("Bridge", &named, &["name"]).await?.is_empty())
    }

    /// The bridge that has a port of this name.
    pub(crate) async fn bridge_of(&mut self, port: &str) -> Result<Option<String>, Error> {
        let ports = self.select("Port", &[Condition::equal("name", port)], &["_uuid"]).await?;
        let Some(uuid) = ports.first().and_then(|row| row.uuids("_uuid").next()) else {
            return Ok(None);
        };
        let owner = [Condition::includes("ports", uuid.clone())];
        let bridges = self.select("Bridge", &owner, &["name"]).await?;
        Ok(bridges.first().map(|row| row.text("name").to_owned()))
    }

    /// A bridge's tunnels: their type and `remote_ip`, as they stand in the database.
    pub(crate) async fn tunnels(&mut self, bridge: &str) -> Result<Vec<(String, String)>, Error> {
        let named = [Condition::equal("name", bridge)];
        let all = Transaction::new()
            .select("Bridge", &named, &["ports"])
            .select("Port", &[], &["_uuid", "interfaces"])
            .select("Interface", &[], &["_uuid", "type", "options"]);
        let outcomes = self.client.transact(all).await?;
        let [bridges, ports, interfaces] = &outcomes[..] else { return Ok(Vec::new()) };
        let (ports, interfaces) = (by_id(ports), by_id(interfaces));
        let of_bridge = bridges.rows.iter().flat_map(|row| row.uuids("ports"));
        let rows = of_bridge
            .filter_map(|uuid| ports.get(uuid))
            .flat_map(|port| port.uuids("interfaces"))
            .filter_map(|uuid| interfaces.get(uuid));
        let remote = |row: &Row| row.value("options", "remote_ip").map(str::to_owned);
        Ok(rows.filter_map(|row| Some((row.text("type").to_owned(), remote(row)?))).collect())
    }

    /// Every port of a container.
    pub(super) async fn ports(&mut self) -> Result<Vec<Port>, Error> {
        let all = Transaction::new()
            .select("Bridge", &[], &["name", "ports"])
            .select("Port", &[], &["_uuid", "interfaces", "tag"])
            .select("Interface", &[], &["_uuid", "name", "external_ids"]);
        let outcomes = self.client.transact(all).await?;
        let [bridges, ports, interfaces] = &outcomes[..] else { return Ok(Vec::new()) };
        let (ports, interfaces) = (by_id(ports), by_id(interfaces));
        let mut found = Vec::new();
        for bridge in &bridges.rows {
            for port in bridge.uuids("ports").filter_map(|uuid| ports.get(uuid)) {
                for row in port.uuids("interfaces").filter_map(|uuid| interfaces.get(uuid)) {
                    let id = |key| row.value("external_ids", key).map(str::to_owned);
                    let (Some(container), Some(interface)) =
                        (id("container_id"), id("container_iface"))
                    else {
                        continue;
                    };
                    found.push(Port {
                        name: row.text("name").to_owned(),
                        bridge: bridge.text("name").to_owned(),
                        container,
                        interface,
                        vlan: port.integer("tag").and_then(|tag| u16::try_from(tag).ok()),
                    });
                }
            }
        }
        Ok(found)
    }

    /// `ovs-vsctl add-br`.
    pub(super) async fn add_bridge(&mut self, name: &str, wait: bool) -> Result<(), Error> {
        let interface = Row::new([("name", name.into()), ("type", "internal".into())]);
        let port = Row::new([("name", name.into()), ("interfaces", named("i"))]);
        let bridge = Row::new([("name", name.into()), ("ports", named("p"))]);
        let add = Transaction::new()
            .comment(&format!("ovs-loader: add bridge {name}"))
            .insert_named("Interface", &interface, "i")
            .insert_named("Port", &port, "p")
            .insert_named("Bridge", &bridge, "b")
            .mutate("Open_vSwitch", &[], &[Mutation::insert("bridges", named("b"))]);
        self.change(add, wait).await?;
        self.check(name, wait).await
    }

    /// `ovs-vsctl del-br`, if there is no port but the bridge's own.
    pub(super) async fn del_bridge_if_empty(&mut self, name: &str) -> Result<(), Error> {
        let condition = [Condition::equal("name", name)];
        let rows = self.select("Bridge", &condition, &["_uuid", "ports"]).await?;
        let Some(uuid) = rows.first().filter(|row| row.uuids("ports").count() <= 1) else {
            return Ok(());
        };
        let Some(uuid) = uuid.uuids("_uuid").next().cloned() else { return Ok(()) };
        let remove = Transaction::new()
            .comment(&format!("ovs-loader: delete bridge {name}"))
            .mutate("Open_vSwitch", &[], &[Mutation::delete("bridges", uuid)]);
        self.change(remove, false).await
    }

    /// `ovs-vsctl add-port`. Where a row of the port's name is left of an earlier run of the
    /// container, the new one replaces it.
    pub(crate) async fn add_port(&mut self, port: &NewPort<'_>, wait: bool) -> Result<(), Error> {
        let NewPort { bridge, name, vlan, ids } = *port;
        let interface =
            Row::new([("name", name.into()), ("external_ids", Datum::map(ids.iter().copied()))]);
        let mut row = Row::new([("name", name.into()), ("interfaces", named("i"))]);
        row.0.extend(vlan.map(|vlan| ("tag".to_owned(), i64::from(vlan).into())));
        self.add(bridge, name, &interface, &row, wait).await
    }

    /// `ovs-vsctl add-port … type=gre`. The port is protected: in a full mesh tunnels must not
    /// forward to one another.
    pub(crate) async fn add_tunnel(
        &mut self,
        tunnel: &NewTunnel<'_>,
        wait: bool,
    ) -> Result<(), Error> {
        let NewTunnel { bridge, name, kind, options } = *tunnel;
        let interface = Row::new([
            ("name", name.into()),
            ("type", kind.into()),
            ("options", Datum::map(options.iter().copied())),
        ]);
        let row = Row::new([
            ("name", name.into()),
            ("interfaces", named("i")),
            ("protected", true.into()),
        ]);
        self.add(bridge, name, &interface, &row, wait).await
    }

    /// `ovs-vsctl --may-exist add-port` of a NIC.
    pub(crate) async fn add_nic(
        &mut self,
        bridge: &str,
        name: &str,
        wait: bool,
    ) -> Result<(), Error> {
        if self.tag(name).await?.is_some() {
            return Ok(());
        }
        self.add_port(&NewPort { bridge, name, vlan: None, ids: &[] }, wait).await
    }

    async fn add(
        &mut self,
        bridge: &str,
        name: &str,
        interface: &Row,
        port: &Row,
        wait: bool,
    ) -> Result<(), Error> {
        self.del_port(name).await?;
        let condition = [Condition::equal("name", bridge)];
        let still_there = [Row::new([("name", bridge.into())])];
        let add = Transaction::new()
            .comment(&format!("ovs-loader: add port {name} to {bridge}"))
            .wait_for_rows("Bridge", &condition, &["name"], &still_there, Duration::ZERO)
            .insert_named("Interface", interface, "i")
            .insert_named("Port", port, "p")
            .mutate("Bridge", &condition, &[Mutation::insert("ports", named("p"))]);
        self.change(add, wait).await?;
        self.check(name, wait).await
    }

    /// `ovs-vsctl --if-exists del-port`, without waiting: what ovs-vswitchd does about it changes
    /// nothing here.
    pub(crate) async fn del_port(&mut self, name: &str) -> Result<(), Error> {
        let condition = [Condition::equal("name", name)];
        let rows = self.select("Port", &condition, &["_uuid"]).await?;
        let Some(uuid) = rows.first().and_then(|row| row.uuids("_uuid").next()).cloned() else {
            return Ok(());
        };
        let owner = [Condition::includes("ports", uuid.clone())];
        let remove = Transaction::new().comment(&format!("ovs-loader: detach {name}")).mutate(
            "Bridge",
            &owner,
            &[Mutation::delete("ports", uuid)],
        );
        self.change(remove, false).await
    }

    /// `ovs-vsctl set port NAME tag=VLAN`.
    pub(super) async fn set_vlan(
        &mut self,
        name: &str,
        vlan: u16,
        wait: bool,
    ) -> Result<(), Error> {
        let condition = [Condition::equal("name", name)];
        let row = Row::new([("tag", i64::from(vlan).into())]);
        let set = Transaction::new()
            .comment(&format!("ovs-loader: {name} into VLAN {vlan}"))
            .update("Port", &condition, &row);
        self.change(set, wait).await
    }

    /// The VLAN of a port, if it has one; `None` without the port.
    pub(crate) async fn tag(&mut self, name: &str) -> Result<Option<Option<u16>>, Error> {
        let rows = self.select("Port", &[Condition::equal("name", name)], &["tag"]).await?;
        let tag = |row: &Row| row.integer("tag").and_then(|tag| u16::try_from(tag).ok());
        Ok(rows.first().map(tag))
    }

    /// Changes the database; with `wait`, until ovs-vswitchd has taken it up.
    async fn change(&mut self, transaction: Transaction, wait: bool) -> Result<(), Error> {
        if wait {
            self.client.transact_and_wait(transaction, LIMIT).await?;
        } else {
            self.client.transact(transaction).await?;
        }
        Ok(())
    }

    /// What ovs-vswitchd made of an interface that was added.
    async fn check(&mut self, name: &str, waited: bool) -> Result<(), Error> {
        let condition = [Condition::equal("name", name)];
        let rows = self.select("Interface", &condition, &["error"]).await?;
        match rows.first().map(|row| row.text("error")) {
            Some(problem) if waited && !problem.is_empty() => {
                Err(Error::Switch { interface: name.to_owned(), problem: problem.to_owned() })
            }
            _ => Ok(()),
        }
    }

    async fn select(
        &mut self,
        table: &str,
        rows: &[Condition],
        columns: &[&str],
    ) -> Result<Vec<Row>, Error> {
        let select = Transaction::new().select(table, rows, columns);
        Ok(self.client.transact(select).await?.pop().unwrap_or_default().rows)
    }
}

/// The rows of a `select` by their `_uuid`.
fn by_id(outcome: &Outcome) -> HashMap<Uuid, Row> {
    let identity = |row: &Row| row.uuids("_uuid").next().cloned();
    outcome.rows.iter().filter_map(|row| Some((identity(row)?, row.clone()))).collect()
}

/// A row that the same transaction inserts.
fn named(name: &str) -> Datum {
    Atom::Named(name.to_owned()).into()
}
