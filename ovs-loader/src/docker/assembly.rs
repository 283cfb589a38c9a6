//! Making an attachment, and taking it down: whatever of it is there goes.

use std::os::fd::AsFd as _;

use super::find::Attached;
use super::inside::Inside;
use super::namespace::Namespace;
use super::ovs::NewPort;
use super::record::{Attachment, Container, Locked, Phase};
use super::{Attacher, Error, ovs};
use crate::bridge::provision::{self, VethSpec};

impl Attacher {
    /// The right to change attachments, once what killed processes left is away.
    pub(super) async fn lock(&self) -> Result<Locked<'_>, Error> {
        let locked = self.store.lock().await?;
        for attachment in locked.load()? {
            if attachment.phase == Phase::Attached {
                continue;
            }
            tracing::warn!("taking away port {}: it was never finished", attachment.port);
            let left = self.remove(&locked, &attachment).await;
            if !left.is_empty() {
                let error = Error::NotDetached { port: attachment.port, left };
                tracing::warn!("{error}");
            }
        }
        Ok(locked)
    }

    /// Attaches a container that has a new namespace as it was attached before. If that fails, what
    /// is written down stays, to be tried again.
    pub(super) async fn attach_again(
        &self,
        locked: &Locked<'_>,
        attachment: Attachment,
        started: Option<String>,
        namespace: &Namespace,
    ) -> Result<Attachment, Error> {
        let left = self.take_down(&attachment).await;
        if !left.is_empty() {
            return Err(Error::NotDetached { port: attachment.port, left });
        }
        let container = Container { started, ..attachment.container.clone() };
        let attachment = Attachment { container, ..attachment };
        Inside::open(namespace)?.check(&attachment.settings()).await?;
        let made = match self.make(&attachment, namespace).await {
            Ok(()) => locked.save(&attachment),
            Err(error) => Err(error),
        };
        match made {
            Ok(()) => Ok(attachment),
            Err(error) => Err(error.and_left(self.take_down(&attachment).await)),
        }
    }

    /// Makes all of an attachment.
    pub(super) async fn make(
        &self,
        attachment: &Attachment,
        namespace: &Namespace,
    ) -> Result<(), Error> {
        let Attachment {
            port, bridge, backend, container, interface, mac, mtu, vlan, phase, ..
        } = attachment;
        if let Phase::Pending { creates_bridge: true } = phase {
            backend.create(bridge, self.wait).await?;
        }
        let veth = VethSpec {
            name: port,
            peer: interface,
            namespace: namespace.as_fd(),
            mac: *mac,
            mtu: *mtu,
        };
        provision::add_veth(&veth).await?;
        Inside::open(namespace)?.configure(&attachment.settings()).await?;
        // As ovs-docker writes them.
        let ids = [("container_id", &*container.name), ("container_iface", &**interface)];
        let port = NewPort { bridge, name: port, vlan: *vlan, ids: &ids };
        backend.attach(&port, self.wait).await
    }

    /// Takes away whatever there is of an attachment. Goes on after a failure, and gives them all.
    pub(super) async fn take_down(&self, attachment: &Attachment) -> Vec<String> {
        let Attachment { port, bridge, backend, phase, .. } = attachment;
        let mut failures = Vec::new();
        let mut done = |what: &str, result: Result<(), Error>| {
            failures.extend(result.err().map(|error| format!("{what}: {}", error.chain())));
        };
        done("the port", backend.detach(port).await);
        done("the veth pair", provision::del_interface(port).await.map(drop).map_err(Error::from));
        if let Phase::Pending { creates_bridge: true } = phase {
            done("the bridge", backend.delete_if_empty(bridge).await);
        }
        failures
    }

    /// Takes an attachment down and forgets it, if nothing of it is left.
    pub(super) async fn remove(&self, locked: &Locked<'_>, attachment: &Attachment) -> Vec<String> {
        let mut left = self.take_down(attachment).await;
        if left.is_empty() {
            left.extend(locked.remove(&attachment.port).err().map(|error| error.chain()));
        }
        left
    }

    pub(super) async fn detach(
        &self,
        locked: &Locked<'_>,
        attached: &Attached,
    ) -> Result<String, Error> {
        let (port, left) = match attached {
            Attached::Ours(attachment) => (&attachment.port, self.remove(locked, attachment).await),
            Attached::Script(port) => {
                ovs::connect(&self.rundir).await?.del_port(&port.name).await?;
                provision::del_interface(&port.name).await?;
                (&port.name, Vec::new())
            }
        };
        match left.is_empty() {
            true => Ok(port.clone()),
            false => Err(Error::NotDetached { port: port.clone(), left }),
        }
    }
}
