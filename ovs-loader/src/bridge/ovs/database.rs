//! Follows one Open vSwitch's database, for as long as there is one and whenever there is one again.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::monitor::Monitor;
use super::{Heard, Told};

/// How long after a failure the database is tried again: from and up to.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Tells of every state of the database until nobody listens any more. A connection that broke says
/// nothing of the rows: they stay as they are until there is another one.
pub(super) async fn follow(rundir: PathBuf, instance: usize, told: Sender<Told>) {
    let mut retry = RETRY.0;
    let mut was_there = true;
    loop {
        match Monitor::open(&rundir).await {
            Ok(mut monitor) => {
                tracing::info!("following the Open vSwitch of {}", rundir.display());
                (retry, was_there) = (RETRY.0, true);
                let error = loop {
                    let heard = Heard::Tables(Box::new(monitor.tables().clone()));
                    if told.send(Told { instance, heard }).await.is_err() {
                        return;
                    }
                    if let Err(error) = monitor.changed().await {
                        break error;
                    }
                };
                tracing::warn!("{error}: its bridges stay as they were last known");
            }
            Err(error) if was_there => {
                was_there = false;
                tracing::debug!("{error}: trying again");
                if told.send(Told { instance, heard: Heard::NoDatabase }).await.is_err() {
                    return;
                }
            }
            Err(_) => {}
        }
        sleep(retry).await;
        retry = (retry * 2).min(RETRY.1);
    }
}
