//! Bringing attachments in line with their containers: back after a restart, gone after the end.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::engine::{Engine, Run};
use super::namespace::Namespace;
use super::record::{Attachment, Backend, Container, Locked};
use super::{Attacher, Error, ovs};
use crate::bridge::provision::{self, Owner};

/// What is to be done about an attachment.
enum Fate {
    /// As it should be.
    Keep,
    /// The container has stopped: its port goes, to come back with it.
    Park,
    /// The container runs anew.
    Return(Run),
    /// There is nothing to come back to, and why.
    Forget(&'static str),
}

impl Attacher {
    /// Brings every attachment in line with its container, and gives what failed: one that fails does
    /// not keep the others.
    ///
    /// # Errors
    /// The attachments can't be read or locked.
    pub async fn reconcile(&self) -> Result<BTreeSet<String>, Error> {
        let locked = self.lock().await?;
        let interfaces = provision::interfaces().await?;
        let mut failures = BTreeSet::new();
        for attachment in locked.load()? {
            let what = format!("{} of {}", attachment.interface, attachment.container.name);
            let there = interfaces.contains(&attachment.port);
            if let Err(error) = self.settle(&locked, attachment, there).await {
                failures.insert(format!("{what}: {}", error.chain()));
            }
        }
        Ok(failures)
    }

    /// Forgets what is left of earlier containers of a name.
    pub(super) async fn bury(
        &self,
        locked: &Locked<'_>,
        name: &str,
        successor: &str,
    ) -> Result<(), Error> {
        for attachment in locked.load()? {
            let Container { id, name: known, engine, .. } = &attachment.container;
            let Some(engine) = engine else { continue };
            if known != name || id == successor || Engine::new(engine).inspect(id).await?.is_some()
            {
                continue;
            }
            let left = self.remove(locked, &attachment).await;
            if !left.is_empty() {
                return Err(Error::NotDetached { port: attachment.port, left });
            }
        }
        Ok(())
    }

    /// Does what is to be done about an attachment; `there`: this host has its port.
    async fn settle(
        &self,
        locked: &Locked<'_>,
        mut attachment: Attachment,
        there: bool,
    ) -> Result<(), Error> {
        let what = format!(
            "{} of {} (port {} of {})",
            attachment.interface, attachment.container.name, attachment.port, attachment.bridge
        );
        match self.fate(&attachment, there).await? {
            Fate::Keep => {}
            Fate::Forget(why) => {
                let left = self.remove(locked, &attachment).await;
                if !left.is_empty() {
                    return Err(Error::NotDetached { port: attachment.port, left });
                }
                tracing::info!("detached {what}: {why}");
            }
            Fate::Park => {
                if let Backend::Ovs { rundir } = &attachment.backend {
                    let mut switch = ovs::connect(rundir).await?;
                    let Some(tag) = switch.tag(&attachment.port).await? else { return Ok(()) };
                    // It may have been changed with ovs-vsctl; it must not be lost with the row.
                    if attachment.vlan != tag {
                        attachment.vlan = tag;
                        locked.save(&attachment)?;
                    }
                }
                let left = self.take_down(&attachment).await;
                if !left.is_empty() {
                    return Err(Error::NotDetached { port: attachment.port, left });
                }
                tracing::info!("{what} waits for its container to start again");
            }
            Fate::Return(run) => {
                let namespace = Namespace::of_process(run.pid)?;
                self.attach_again(locked, attachment, Some(run.started), &namespace).await?;
                tracing::info!("attached {what} again: its container has started");
            }
        }
        Ok(())
    }

    async fn fate(&self, attachment: &Attachment, there: bool) -> Result<Fate, Error> {
        let container = &attachment.container;
        let Some(socket) = &container.engine else {
            return Ok(match there {
                true => Fate::Keep,
                // The kernel deletes a veth pair with either end's namespace.
                false => Fate::Forget("its network namespace is gone"),
            });
        };
        let engine = Engine::new(socket);
        Ok(match engine.inspect(&container.id).await? {
            None => Fate::Forget("its container was deleted"),
            Some(found) => match found.run {
                // A Linux bridge has forgotten the port with its device.
                None if !there && attachment.backend == Backend::Linux => Fate::Keep,
                None => Fate::Park,
                Some(run) if container.started.as_ref() != Some(&run.started) => Fate::Return(run),
                Some(_) if there => Fate::Keep,
                Some(run) => self.missing(attachment, &run).await?,
            },
        })
    }

    /// A running container without its port: somebody has deleted it, or the container is about to
    /// end, and Docker has not noticed yet.
    async fn missing(&self, attachment: &Attachment, run: &Run) -> Result<Fate, Error> {
        let Ok(_alive) = Namespace::of_process(run.pid) else { return Ok(Fate::Keep) };
        Ok(match provision::owner(&attachment.port).await? {
            Owner::Absent => Fate::Forget("its port was deleted while the container runs"),
            _ => Fate::Keep,
        })
    }

    /// The sockets of the engines that have attached containers; `None` without attachments.
    ///
    /// # Errors
    /// The attachments can't be read.
    pub(super) fn sockets(&self) -> Result<Option<BTreeSet<PathBuf>>, Error> {
        let all = self.store.load()?;
        let sockets = all.iter().filter_map(|one| one.container.engine.clone());
        Ok((!all.is_empty()).then(|| sockets.collect()))
    }
}
