//! Which port is meant: by the container's name or (short) id, and the interface.

use serde::Serialize;

use super::record::{Attachment, Locked, Phase, is_short_id};
use super::{Attacher, Error, ovs};
use crate::bridge::provision;

/// A container as it was called, and as Docker knows it.
pub(super) struct Identity {
    typed: String,
    /// Full id and present name.
    known: Option<(String, String)>,
}

impl Identity {
    /// Called `typed`; Docker's full id and name of it, if Docker has it.
    pub(super) fn new(typed: &str, known: Option<(String, String)>) -> Self {
        Self { typed: typed.to_owned(), known }
    }

    fn is(&self, attachment: &Attachment) -> bool {
        match &self.known {
            Some((id, _)) if attachment.container.engine.is_some() => {
                attachment.container.id == *id
            }
            _ => attachment.may_be(&self.typed),
        }
    }

    /// Whether `ovs-docker` may have meant it by this text.
    fn is_called(&self, text: &str) -> bool {
        text == self.typed
            || (self.known.as_ref()).is_some_and(|(id, name)| text == name || is_short_id(text, id))
    }
}

/// A port that is attached.
pub(super) enum Attached {
    /// By us: all is known of it.
    Ours(Box<Attachment>),
    /// By `ovs-docker`: a row of Open vSwitch's database.
    Script(ovs::Port),
}

impl Attached {
    pub(super) fn bridge(&self) -> &str {
        match self {
            Self::Ours(attachment) => &attachment.bridge,
            Self::Script(port) => &port.bridge,
        }
    }

    pub(super) fn interface(&self) -> &str {
        match self {
            Self::Ours(attachment) => &attachment.interface,
            Self::Script(port) => &port.interface,
        }
    }

    fn container(&self) -> &str {
        match self {
            Self::Ours(attachment) => &attachment.container.name,
            Self::Script(port) => &port.container,
        }
    }

    /// The error that another bridge was named.
    pub(super) fn not_on(&self, command: &'static str, asked: &str) -> Error {
        Error::OtherBridge {
            command,
            interface: self.interface().to_owned(),
            container: self.container().to_owned(),
            bridge: self.bridge().to_owned(),
            asked: asked.to_owned(),
        }
    }
}

/// What `docker list` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// Every port of a container.
    pub attachments: Vec<Listed>,
}

/// A port of a container.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// The bridge.
    pub bridge: String,
    /// The interface in the container.
    pub interface: String,
    /// The container as it was called when it was attached.
    pub container: String,
    /// Its full id, if that is known.
    pub id: Option<String>,
    /// The port: this host's end.
    pub port: String,
    /// The interface's addresses; none are known of `ovs-docker`'s ports.
    pub addresses: Vec<String>,
    /// The VLAN of an access port.
    pub vlan: Option<u16>,
    /// Whether the port is there now; if not, it waits for its container to start.
    pub attached: bool,
    /// Whether `ovs-docker` attached it.
    pub by_ovs_docker: bool,
}

impl Attacher {
    /// Every port that is attached, `ovs-docker`'s too. Changes nothing.
    ///
    /// # Errors
    /// The state directory, the host or Open vSwitch can't be read.
    pub async fn list(&self) -> Result<Listing, Error> {
        let mut attachments = Vec::new();
        let there = provision::interfaces().await?;
        let ours = self.store.load()?;
        let rows = self.rows().await?;
        let tag = |port: &str| rows.iter().find(|row| row.name == port).and_then(|row| row.vlan);
        for one in &ours {
            attachments.push(Listed {
                bridge: one.bridge.clone(),
                interface: one.interface.clone(),
                container: one.container.name.clone(),
                id: Some(one.container.id.clone()),
                port: one.port.clone(),
                addresses: one.addresses.iter().map(ToString::to_string).collect(),
                vlan: tag(&one.port).or(one.vlan),
                attached: there.contains(&one.port),
                by_ovs_docker: false,
            });
        }
        for row in rows.iter().filter(|row| ours.iter().all(|one| one.port != row.name)) {
            attachments.push(Listed {
                bridge: row.bridge.clone(),
                interface: row.interface.clone(),
                container: row.container.clone(),
                id: None,
                port: row.name.clone(),
                addresses: Vec::new(),
                vlan: row.vlan,
                attached: there.contains(&row.name),
                by_ovs_docker: true,
            });
        }
        Ok(Listing { attachments })
    }

    /// Every port of a container.
    pub(super) async fn attached(
        &self,
        locked: &Locked<'_>,
        identity: &Identity,
    ) -> Result<Vec<Attached>, Error> {
        let ours = locked.load()?;
        let rows = self.rows().await?;
        let theirs = rows.into_iter().filter(|row| {
            ours.iter().all(|one| one.port != row.name) && identity.is_called(&row.container)
        });
        let theirs: Vec<_> = theirs.map(Attached::Script).collect();
        let complete = |one: &Attachment| one.phase == Phase::Attached && identity.is(one);
        let mine: Vec<_> = ours.into_iter().filter(complete).collect();
        if let [first, rest @ ..] = &mine[..]
            && rest.iter().any(|other| other.container.id != first.container.id)
        {
            return Err(Error::Ambiguous(identity.typed.clone()));
        }
        Ok(mine.into_iter().map(|one| Attached::Ours(Box::new(one))).chain(theirs).collect())
    }

    /// The one port that an interface of a container is behind, on the bridge that was named.
    pub(super) async fn one(
        &self,
        locked: &Locked<'_>,
        command: &'static str,
        bridge: &str,
        interface: &str,
        container: &str,
    ) -> Result<Attached, Error> {
        let identity = self.identify(container).await;
        let mut all = self.attached(locked, &identity).await?;
        all.retain(|attached| attached.interface() == interface);
        match all.iter().position(|attached| attached.bridge() == bridge) {
            Some(index) => Ok(all.swap_remove(index)),
            None => Err(match all.first() {
                Some(other) => other.not_on(command, bridge),
                None => Error::NotAttached {
                    interface: interface.to_owned(),
                    container: container.to_owned(),
                },
            }),
        }
    }

    /// What Docker knows of a container. Without Docker, or of one that is gone, nothing: then what
    /// is written down decides.
    pub(super) async fn identify(&self, typed: &str) -> Identity {
        let known = match self.engine.inspect(typed).await {
            Ok(found) => found.map(|container| (container.id, container.name)),
            Err(error) => {
                tracing::debug!("{error}");
                None
            }
        };
        Identity::new(typed, known)
    }

    async fn rows(&self) -> Result<Vec<ovs::Port>, Error> {
        match ovs::connect_if_there(&self.rundir).await? {
            Some(mut switch) => switch.ports().await,
            None => Ok(Vec::new()),
        }
    }
}
