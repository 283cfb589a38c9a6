//! The command line: what is asked, and how the answer looks.

use std::path::PathBuf;

use anyhow::Result;

use crate::api::client::{Client, Error as ClientError};
use crate::api::report::Status;
use crate::bridge::provision;
use args::{BridgeCommand, Command, FdbCommand, PortCommand, TunnelCommand};

pub use args::Cli;

mod args;
mod output;
pub mod preflight;
mod tables;

/// What `run` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The control socket.
    pub socket: PathBuf,
    /// Where programs and maps are pinned.
    pub bpffs: PathBuf,
    /// Replace a daemon that runs, and keep its programs attached meanwhile.
    pub takeover: bool,
}

/// What `check` is to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Where programs and maps would be pinned.
    pub bpffs: PathBuf,
}

/// The commands that need the daemon's own code.
pub trait Daemon {
    /// Runs in the foreground until a signal or `down`.
    fn run(&self, options: RunOptions) -> impl Future<Output = Result<()>>;

    /// What would be accelerated and what not. Changes nothing.
    fn check(&self, options: CheckOptions) -> impl Future<Output = Result<Status>>;

    /// Detaches and unpins what a dead daemon left behind under this directory.
    fn down(&self, bpffs: PathBuf) -> impl Future<Output = Result<()>>;
}

/// Does what the command line asks.
///
/// # Errors
/// Whatever went wrong, in words for the person who typed it.
pub async fn execute(cli: Cli, daemon: &impl Daemon) -> Result<()> {
    let client = Client::new(&cli.socket);
    match cli.command {
        Command::Run { config, takeover } => {
            let Cli { socket, bpffs, .. } = cli;
            daemon.run(RunOptions { config, socket, bpffs, takeover }).await
        }
        Command::Check { config, json } => {
            let status = daemon.check(CheckOptions { config, bpffs: cli.bpffs }).await?;
            output::report(json, &status, tables::status)
        }
        Command::Status { json } => output::report(json, &client.status().await?, tables::status),
        Command::Fdb { command: FdbCommand::Show { bridge, json } } => {
            output::report(json, &client.fdb(bridge.as_deref()).await?, tables::fdb)
        }
        Command::Stats { json } => output::report(json, &client.stats().await?, tables::stats),
        Command::Accelerate { bridge, switch } => {
            Ok(client.accelerate(&bridge, switch.is_on()).await?)
        }
        Command::Down => match client.down().await {
            Err(ClientError::NoDaemon(_)) => daemon.down(cli.bpffs).await,
            result => Ok(result?),
        },
        Command::Bridge { command } => done(match command {
            BridgeCommand::Add { name } => provision::add_bridge(&name).await,
            BridgeCommand::Del { name } => provision::del_bridge(&name).await,
        }),
        Command::Port { command } => done(match command {
            PortCommand::Add { bridge, interface } => {
                provision::add_port(&bridge, &interface).await
            }
            PortCommand::Del { bridge, interface } => {
                provision::del_port(&bridge, &interface).await
            }
        }),
        Command::Tunnel { command } => match command {
            TunnelCommand::Show { bridge, json } => {
                output::report(json, &client.tunnels(bridge.as_deref()).await?, tables::tunnels)
            }
            TunnelCommand::Add(add) => {
                let (bridge, spec) = add.into_spec();
                done(provision::add_tunnel(&bridge, &spec).await)
            }
            TunnelCommand::Del { bridge, name } => {
                done(provision::del_tunnel(&bridge, &name).await)
            }
        },
    }
}

/// Says what was changed.
fn done(result: Result<Vec<provision::Action>, provision::Error>) -> Result<()> {
    let actions = result?;
    let mut text = String::new();
    for action in &actions {
        text.push_str(&format!("{action}\n"));
    }
    if actions.is_empty() {
        text.push_str("nothing to change\n");
    }
    output::print(&text)
}
