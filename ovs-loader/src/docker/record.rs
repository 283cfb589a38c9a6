//! What is known of each attachment, on disk: it outlives the container's restart, the daemon's and
//! the host's.
//!
//! One file for each ([`crate::state`]). An attachment is written down before the first of its devices is made and marked as complete after the last, so
//! that whoever comes next can take away what a killed process had made so far.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::Error;
use super::spec::{Given, Prefix, Settings};
use crate::bridge::model::Mac;
use crate::state::{self, Files};

/// How long another `ovs-loader` may hold the lock.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the lock is tried.
const POLL: Duration = Duration::from_millis(20);

/// A port that was attached to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The port of the bridge: this host's end of the veth pair.
    pub port: String,
    /// The bridge.
    pub bridge: String,
    /// Who forwards for the bridge.
    pub backend: Backend,
    /// The container.
    pub container: Container,
    /// The interface in the container.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
    /// Its default routes' next hops.
    pub gateways: Vec<IpAddr>,
    /// Its MAC, asked for or not, so that it stays the same.
    #[serde(with = "mac")]
    pub mac: Mac,
    /// Its MTU in bytes, if one was asked for.
    pub mtu: Option<u32>,
    /// The VLAN of which the port is an access port.
    pub vlan: Option<u16>,
    /// How far it has come.
    pub phase: Phase,
}

/// Whose bridge a port is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Backend {
    /// The kernel's own.
    Linux,
    /// Open vSwitch's.
    Ovs {
        /// Its directory of sockets.
        rundir: PathBuf,
    },
}

/// The container of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The engine's full id, or what was given beside `--pid` or `--netns`.
    pub id: String,
    /// As it was called when it was attached.
    pub name: String,
    /// The engine's socket, if an engine knows the container.
    pub engine: Option<PathBuf>,
    /// The run of the container that was attached: when it started, in the engine's words.
    pub started: Option<String>,
}

/// How far an attachment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Being made; to be taken away if nobody is making it.
    Pending {
        /// The bridge is made for it.
        creates_bridge: bool,
    },
    /// Complete.
    Attached,
}

impl Attachment {
    /// The interface as it was asked for.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            interface: self.interface.clone(),
            addresses: self.addresses.clone(),
            gateways: self.gateways.clone(),
            mac: Some(self.mac),
            mtu: self.mtu,
        }
    }

    /// In what it differs from what is asked for, in words.
    #[must_use]
    pub fn differences(&self, bridge: &str, asked: &Settings) -> Vec<String> {
        let mut all = Vec::new();
        let mut compare = |what: &str, is: String, asked: String| {
            if is != asked {
                all.push(format!("{what} is {is}, not {asked}"));
            }
        };
        compare("bridge", self.bridge.clone(), bridge.to_owned());
        compare("ipaddress", list(&self.addresses), list(&asked.addresses));
        compare("gateway", list(&self.gateways), list(&asked.gateways));
        compare("mtu", or_default(self.mtu), or_default(asked.mtu));
        // Without one, whatever it has is right.
        if let Some(asked) = asked.mac {
            compare("macaddress", self.mac.to_string(), asked.to_string());
        }
        all
    }

    /// Whether this is what a name or (short) id may mean where the engine can't be asked.
    #[must_use]
    pub fn may_be(&self, typed: &str) -> bool {
        self.container.name == typed
            || self.container.id == typed
            || self.container.engine.is_some() && is_short_id(typed, &self.container.id)
    }
}

/// Whether a text is the beginning of an engine's id.
pub(super) fn is_short_id(text: &str, id: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit()) && id.starts_with(text)
}

fn list<T: ToString>(all: &[T]) -> String {
    match all {
        [] => "none".to_owned(),
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn or_default(mtu: Option<u32>) -> String {
    mtu.map_or_else(|| "the default".to_owned(), |mtu| mtu.to_string())
}

pub(crate) mod mac {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::bridge::model::Mac;
    use crate::docker::spec::station;

    pub(crate) fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Mac, D::Error> {
        station(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// The attachments of a host.
#[derive(Clone, Debug)]
pub struct Store {
    files: Files<Attachment>,
    patience: Duration,
}

impl Store {
    /// The attachments under a state directory, which need not exist yet.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { files: Files::at(&state.join("attachments")), patience: PATIENCE }
    }

    /// Where the files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.files.directory()
    }

    /// Every attachment, by bridge, container and interface.
    ///
    /// # Errors
    /// A file can't be read, or is none of ours.
    pub fn load(&self) -> Result<Vec<Attachment>, Error> {
        let mut all = self.files.load()?;
        let key = |one: &Attachment| {
            (one.bridge.clone(), one.container.name.clone(), one.interface.clone())
        };
        all.sort_by_key(key);
        Ok(all)
    }

    /// What containers were given, by their ports.
    ///
    /// # Errors
    /// See [`Self::load`].
    pub fn given(&self) -> Result<BTreeMap<String, Given>, Error> {
        let given = |one: Attachment| {
            let addresses = one.addresses.iter().map(|prefix| prefix.address).collect();
            (one.port, Given { mac: one.mac, addresses })
        };
        Ok(self.load()?.into_iter().map(given).collect())
    }

    /// Waits for the right to change attachments. Makes the directory if it is missing.
    ///
    /// # Errors
    /// Another process holds it for too long, or the directory can't be written.
    pub async fn lock(&self) -> Result<Locked<'_>, Error> {
        let path = self.directory().join("lock");
        let failed = |reason: io::Error| match reason.kind() {
            io::ErrorKind::PermissionDenied => Error::Permission(path.clone()),
            _ => state::Error::Io { doing: "lock", path: path.clone(), reason }.into(),
        };
        fs::create_dir_all(self.directory()).map_err(failed)?;
        let file = File::create(&path).map_err(failed)?;
        let deadline = Instant::now() + self.patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Locked { store: self, _lock: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL).await,
                Err(TryLockError::WouldBlock) => return Err(Error::Locked(path)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }
}

/// The right to change attachments, until it is dropped.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Store,
    _lock: File,
}

impl Locked<'_> {
    /// Every attachment.
    ///
    /// # Errors
    /// See [`Store::load`].
    pub fn load(&self) -> Result<Vec<Attachment>, Error> {
        self.store.load()
    }

    /// Writes an attachment down, in place of what was known of its port.
    ///
    /// # Errors
    /// The disk refuses; what was known before still is.
    pub fn save(&self, attachment: &Attachment) -> Result<(), Error> {
        Ok(self.store.files.save(&attachment.port, attachment)?)
    }

    /// Forgets an attachment.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove(&self, port: &str) -> Result<(), Error> {
        Ok(self.store.files.remove(port)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(port: &str) -> Attachment {
        Attachment {
            port: port.to_owned(),
            bridge: "br-ex".to_owned(),
            backend: Backend::Ovs { rundir: "/run/openvswitch".into() },
            container: Container {
                id: "3f2a".repeat(16),
                name: "web".to_owned(),
                engine: Some("/run/docker.sock".into()),
                started: Some("2026-01-02T03:04:05.6Z".to_owned()),
            },
            interface: "eth1".to_owned(),
            addresses: vec!["10.0.0.5/24".parse().unwrap(), "fd00::5/64".parse().unwrap()],
            gateways: vec!["10.0.0.1".parse().unwrap()],
            mac: Mac([2, 0, 0, 0, 0, 5]),
            mtu: Some(1450),
            vlan: Some(7),
            phase: Phase::Pending { creates_bridge: true },
        }
    }

    #[tokio::test]
    async fn what_was_saved_is_loaded_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(&directory.path().join("missing"));
        assert_eq!(store.load().unwrap(), []);
        let locked = store.lock().await.unwrap();
        let mut one = attachment("a_l");
        locked.save(&one).unwrap();
        one.phase = Phase::Attached;
        locked.save(&one).unwrap();
        locked.save(&attachment("b_l")).unwrap();
        assert_eq!(store.load().unwrap().len(), 2);
        locked.remove("b_l").unwrap();
        locked.remove("b_l").expect("it is gone already");
        assert_eq!(store.load().unwrap(), [one]);
    }

    #[tokio::test]
    async fn a_file_cut_short_beside_its_place_does_no_harm_and_one_in_place_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let locked = store.lock().await.unwrap();
        locked.save(&attachment("a_l")).unwrap();
        fs::write(store.directory().join("b_l.new"), "{").unwrap();
        assert_eq!(store.load().unwrap().len(), 1);
        fs::write(store.directory().join("b_l.json"), "{").unwrap();
        let said = store.load().expect_err("cut short").to_string();
        assert!(said.contains("b_l.json"), "{said}");
    }

    #[tokio::test]
    async fn one_holder_of_the_lock_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let patience = Duration::from_millis(50);
        let store = Store { patience, ..Store::new(directory.path()) };
        let held = store.lock().await.unwrap();
        assert!(matches!(store.lock().await, Err(Error::Locked(_))));
        drop(held);
        store.lock().await.expect("free again");
    }

    #[test]
    fn differences_name_what_is_and_what_was_asked_for() {
        let one = attachment("a_l");
        assert_eq!(one.differences("br-ex", &one.settings()), [""; 0]);
        assert_eq!(one.differences("br-ex", &Settings { mac: None, ..one.settings() }), [""; 0]);
        let asked = Settings {
            addresses: vec!["10.0.0.6/24".parse().unwrap()],
            gateways: Vec::new(),
            mac: Some(Mac([2, 0, 0, 0, 0, 6])),
            mtu: None,
            ..one.settings()
        };
        assert_eq!(
            one.differences("br-int", &asked),
            [
                "bridge is br-ex, not br-int",
                "ipaddress is 10.0.0.5/24, fd00::5/64, not 10.0.0.6/24",
                "gateway is 10.0.0.1, not none",
                "mtu is 1450, not the default",
                "macaddress is 02:00:00:00:00:05, not 02:00:00:00:00:06",
            ]
        );
    }

    #[test]
    fn a_container_goes_by_its_name_its_id_and_the_beginning_of_its_id() {
        let one = attachment("a_l");
        let id = "3f2a".repeat(16);
        for typed in ["web", "3f2a3f2a3f2a", "3", &id] {
            assert!(one.may_be(typed), "{typed}");
        }
        for typed in ["we", "", "3f2b", "3F2A"] {
            assert!(!one.may_be(typed), "{typed}");
        }
        let mut other = one;
        other.container.engine = None;
        assert!(!other.may_be("3f2a"), "only an engine's ids have short forms");
    }
}
