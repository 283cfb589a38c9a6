//! Containers as ports of bridges: what `ovs-docker` does, all or nothing.
//!
//! A port is a veth pair. This host's end, `<13 hex>_l` as `ovs-docker` calls it, is a port of the
//! bridge; the other one appears in the container with its name, MAC and MTU, and gets its addresses
//! before the first frame can pass. An [`Attachment`] is written down before
//! anything is made, and taking it down (`Attacher::take_down`) is the same for a failure, for
//! `del-port` and for what a killed process has left: whatever of it is there goes.

use std::fs;
use std::path::{Path, PathBuf};

pub use error::Error;
pub(crate) use error::chain;
pub use find::{Listed, Listing};

use crate::bridge::model::Mac;
use crate::bridge::ovs::DEFAULT_RUNDIR;
use crate::bridge::provision::{self, Owner};
use crate::state;
use engine::Engine;
use find::{Attached, Identity};
use inside::Inside;
use namespace::Namespace;
use record::{Attachment, Backend, Container, Locked, Phase, Store};
use spec::Settings;

mod assembly;
mod backend;
pub mod engine;
mod error;
mod find;
mod inside;
pub mod keeper;
mod namespace;
pub(crate) mod ovs;
mod reconcile;
pub mod record;
pub mod spec;

/// Where the attachments of a host are, if nothing else is said.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/ovs-ebpf";
/// Docker's socket.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Ends the names of ports, as `ovs-docker` has it.
const PORT_SUFFIX: &str = "_l";

/// Where things are on this host.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory for what is known of attachments.
    pub state: PathBuf,
    /// Docker's socket.
    pub socket: PathBuf,
    /// Open vSwitch's directory of sockets.
    pub rundir: PathBuf,
    /// Wait until ovs-vswitchd has taken up what changed.
    pub wait: bool,
}

impl Places {
    /// The usual ones, with this state directory.
    #[must_use]
    pub fn with(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            socket: DEFAULT_SOCKET.into(),
            rundir: DEFAULT_RUNDIR.into(),
            wait: true,
        }
    }
}

/// Where a container's network namespace is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Docker knows.
    Engine,
    /// This process is in it.
    Process(i32),
    /// At this path.
    Path(PathBuf),
}

/// What `add-port` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// The port as it is now.
    pub attachment: Attachment,
    /// Whether there was anything to do.
    pub changed: bool,
}

/// Attaches containers and detaches them.
#[derive(Clone, Debug)]
pub struct Attacher {
    store: Store,
    engine: Engine,
    rundir: PathBuf,
    wait: bool,
}

impl Attacher {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(places: &Places) -> Self {
        Self {
            store: Store::new(&places.state),
            engine: Engine::new(&places.socket),
            rundir: places.rundir.clone(),
            wait: places.wait,
        }
    }

    /// Attaches a container to a bridge, which is created if it is missing. What is attached already
    /// in the same way stays as it is.
    ///
    /// # Errors
    /// Whatever is in the way; nothing has changed then.
    pub async fn add_port(
        &self,
        bridge: &str,
        container: &str,
        place: &Place,
        settings: &Settings,
    ) -> Result<Added, Error> {
        settings.check()?;
        let locked = self.lock().await?;
        let (container, identity, namespace) = self.enter(container, place).await?;
        self.bury(&locked, &container.name, &container.id).await?;
        for attached in self.attached(&locked, &identity).await? {
            if attached.interface() != settings.interface {
                continue;
            }
            match attached {
                Attached::Ours(attachment) => {
                    return self
                        .add_again(&locked, *attachment, bridge, container, &namespace, settings)
                        .await;
                }
                // A row whose device is gone is left of a container that is no more.
                Attached::Script(port) if provision::owner(&port.name).await? == Owner::Absent => {
                    ovs::connect(&self.rundir).await?.del_port(&port.name).await?;
                }
                Attached::Script(port) => {
                    return Err(Error::AttachedByScript {
                        interface: settings.interface.clone(),
                        container: port.container,
                        bridge: port.bridge,
                        port: port.name,
                    });
                }
            }
        }
        let existing = Backend::of(bridge, &self.rundir).await?;
        let creates_bridge = existing.is_none();
        let backend = match existing {
            Some(backend) => backend,
            None => Backend::for_new(&self.rundir).await?,
        };
        let (port, mac) = names()?;
        let mut attachment = Attachment {
            port,
            bridge: bridge.to_owned(),
            backend,
            container,
            interface: settings.interface.clone(),
            addresses: settings.addresses.clone(),
            gateways: settings.gateways.clone(),
            mac: settings.mac.unwrap_or(mac),
            mtu: settings.mtu,
            vlan: None,
            phase: Phase::Pending { creates_bridge },
        };
        Inside::open(&namespace)?.check(settings).await?;
        locked.save(&attachment)?;
        let made = match self.make(&attachment, &namespace).await {
            Ok(()) => locked.save(&Attachment { phase: Phase::Attached, ..attachment.clone() }),
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            return Err(error.and_left(self.remove(&locked, &attachment).await));
        }
        attachment.phase = Phase::Attached;
        Ok(Added { attachment, changed: true })
    }

    /// `add-port` of what is written down already.
    async fn add_again(
        &self,
        locked: &Locked<'_>,
        attachment: Attachment,
        bridge: &str,
        container: Container,
        namespace: &Namespace,
        settings: &Settings,
    ) -> Result<Added, Error> {
        let differences = attachment.differences(bridge, settings);
        if !differences.is_empty() {
            return Err(Error::Differs {
                interface: attachment.interface,
                container: attachment.container.name,
                bridge: attachment.bridge,
                differences,
            });
        }
        let Attachment { backend, bridge, port, .. } = &attachment;
        let there = backend.has(bridge, port).await?
            && Inside::open(namespace)?.has(&attachment.interface, attachment.mac).await?;
        if there && attachment.container.started == container.started {
            return Ok(Added { attachment, changed: false });
        }
        let attachment =
            self.attach_again(locked, attachment, container.started, namespace).await?;
        Ok(Added { attachment, changed: true })
    }

    /// Takes a container's interface away.
    ///
    /// # Errors
    /// It is not attached, or not to this bridge; or not all of it could be taken away.
    pub async fn del_port(
        &self,
        bridge: &str,
        interface: &str,
        container: &str,
    ) -> Result<String, Error> {
        let locked = self.lock().await?;
        let attached = self.one(&locked, "del-port", bridge, interface, container).await?;
        self.detach(&locked, &attached).await
    }

    /// Takes all of a container's interfaces on a bridge away, and gives their ports. All are tried
    /// before the first error is reported.
    ///
    /// # Errors
    /// It is attached to other bridges only; or not all could be taken away.
    pub async fn del_ports(&self, bridge: &str, container: &str) -> Result<Vec<String>, Error> {
        let locked = self.lock().await?;
        let identity = self.identify(container).await;
        let all = self.attached(&locked, &identity).await?;
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            all.iter().partition(|attached| attached.bridge() == bridge);
        if let ([], [other, ..]) = (&here[..], &elsewhere[..]) {
            return Err(other.not_on("del-ports", bridge));
        }
        let mut ports = Vec::new();
        let mut errors = Vec::new();
        for attached in here {
            match self.detach(&locked, attached).await {
                Ok(port) => ports.push(port),
                Err(error) => errors.push(error),
            }
        }
        match errors.into_iter().next() {
            None => Ok(ports),
            Some(error) => Err(error),
        }
    }

    /// Makes a container's port the access port of a VLAN, and gives the port.
    ///
    /// # Errors
    /// It is not attached, or not to this bridge; or the bridge refuses.
    pub async fn set_vlan(
        &self,
        bridge: &str,
        interface: &str,
        container: &str,
        vlan: u16,
    ) -> Result<String, Error> {
        let locked = self.lock().await?;
        match self.one(&locked, "set-vlan", bridge, interface, container).await? {
            Attached::Ours(mut attachment) => {
                let Attachment { backend, port, .. } = &*attachment;
                // One that waits for its container's restart gets it then.
                if provision::owner(port).await? != Owner::Absent {
                    backend.set_vlan(bridge, port, vlan, self.wait).await?;
                }
                attachment.vlan = Some(vlan);
                locked.save(&attachment)?;
                Ok(attachment.port)
            }
            Attached::Script(port) => {
                let backend = Backend::Ovs { rundir: self.rundir.clone() };
                backend.set_vlan(bridge, &port.name, vlan, self.wait).await?;
                Ok(port.name)
            }
        }
    }

    /// A running container, and its namespace.
    async fn enter(
        &self,
        typed: &str,
        place: &Place,
    ) -> Result<(Container, Identity, Namespace), Error> {
        let namespace = match place {
            Place::Engine => return self.enter_known(typed).await,
            Place::Process(pid) => Namespace::of_process(*pid)?,
            Place::Path(path) => Namespace::at(path)?,
        };
        let (id, name) = (typed.to_owned(), typed.to_owned());
        let container = Container { id, name, engine: None, started: None };
        Ok((container, Identity::new(typed, None), namespace))
    }

    async fn enter_known(&self, typed: &str) -> Result<(Container, Identity, Namespace), Error> {
        let missing = || Error::NoContainer(typed.to_owned());
        let found = self.engine.inspect(typed).await?.ok_or_else(missing)?;
        let stopped = |state| Error::NotRunning { name: typed.to_owned(), state };
        let Some(run) = found.run else { return Err(stopped(found.state)) };
        let namespace = Namespace::of_process(run.pid);
        // Another process may have had the number by then.
        let after = self.engine.inspect(&found.id).await?.ok_or_else(missing)?;
        if after.run.as_ref() != Some(&run) {
            return Err(stopped(after.state));
        }
        let identity = Identity::new(typed, Some((found.id.clone(), found.name)));
        let container = Container {
            id: found.id,
            name: typed.to_owned(),
            engine: Some(self.engine.socket().to_owned()),
            started: Some(run.started),
        };
        Ok((container, identity, namespace?))
    }
}

/// A new port's name and a MAC for the container: random, the MAC locally administered.
fn names() -> Result<(String, Mac), Error> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    let uuid = fs::read_to_string(path).map_err(|reason| state::Error::Io {
        doing: "read",
        path: path.to_owned(),
        reason,
    })?;
    let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    let random = u64::from_str_radix(&digits[20..], 16).unwrap_or_default();
    let [_, _, first, rest @ ..] = random.to_be_bytes();
    let mut mac = [first & 0xfc | 0x02, 0, 0, 0, 0, 0];
    mac[1..].copy_from_slice(&rest);
    Ok((format!("{}{PORT_SUFFIX}", &digits[..13]), Mac(mac)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::spec::station;

    #[test]
    fn names_are_ovs_dockers_and_macs_are_locally_administered() {
        let (port, mac) = names().expect("a random name");
        assert!(port.len() == 15 && port.ends_with("_l"), "{port}");
        assert!(mac.0[0] & 3 == 2 && station(&mac.to_string()) == Ok(mac), "{mac}");
        assert_ne!(names().expect("another").0, port);
    }
}
