//! The command line: what is asked, and how the answer looks.

use std::path::PathBuf;

use anyhow::Result;

use crate::api::client::Client;
use crate::bridge::ovs::DEFAULT_RUNDIR;
use crate::bridge::provision;
use crate::config::Config;
use crate::daemon::{self, RunOptions};
use crate::plugin;
use args::{BridgeCommand, Command, FdbCommand, NetworkCommand, PortCommand, TunnelCommand};

pub use args::Cli;

mod args;
mod docker;
mod output;
pub mod preflight;
mod tables;

/// Does what the command line asks.
///
/// # Errors
/// Whatever went wrong, in words for the person who typed it.
pub async fn execute(cli: Cli) -> Result<()> {
    let client = Client::new(&cli.socket);
    match cli.command {
        Command::Run { config, ovs_rundir, docker, sockets, takeover, attach } => {
            let mut config = Config::load(config.as_deref())?;
            sockets.over(docker, &mut config.docker);
            let ovs_rundirs = rundirs(ovs_rundir, &config);
            preflight::pass(&cli.bpffs)?;
            let hook = attach.hook();
            let Cli { socket, bpffs, state_dir: state, .. } = cli;
            let options = RunOptions { config, socket, bpffs, state, ovs_rundirs, takeover, hook };
            daemon::run(options).await
        }
        Command::Check { config, ovs_rundir, json, attach } => {
            let config = Config::load(config.as_deref())?;
            let failures = preflight::failures(&cli.bpffs);
            let ovs_rundirs = rundirs(ovs_rundir, &config);
            let mut status =
                daemon::check(&config, &ovs_rundirs, &cli.state_dir, attach.hook()).await?;
            status.warnings.extend(failures.iter().map(ToString::to_string));
            status.warnings.extend(preflight::warnings());
            output::report(json, &status, tables::status)?;
            anyhow::ensure!(failures.is_empty(), "the daemon can't run here: see the warnings");
            Ok(())
        }
        Command::Status { json } => output::report(json, &client.status().await?, tables::status),
        Command::Fdb { command: FdbCommand::Show { bridge, json } } => {
            output::report(json, &client.fdb(bridge.as_deref()).await?, tables::fdb)
        }
        Command::Stats { json } => output::report(json, &client.stats().await?, tables::stats),
        Command::Accelerate { bridge, switch } => {
            Ok(client.accelerate(&bridge, switch.is_on()).await?)
        }
        Command::Docker(docker) => docker::execute(docker, &cli.state_dir).await,
        Command::Network { command: NetworkCommand::List { json } } => {
            output::report(json, &plugin::list::list(&cli.state_dir)?, tables::networks)
        }
        Command::Down => {
            preflight::only_pins(&cli.bpffs)?;
            let done = daemon::down(&cli.socket, &cli.bpffs).await?;
            output::print(if done {
                "detached: traffic goes through the bridges\n"
            } else {
                "nothing is attached\n"
            })
        }
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

/// Those of the command line, else of the configuration, else where Open vSwitch usually is.
fn rundirs(arguments: Vec<PathBuf>, config: &Config) -> Vec<PathBuf> {
    if !arguments.is_empty() {
        return arguments;
    }
    config.ovs_rundirs.clone().unwrap_or_else(|| vec![PathBuf::from(DEFAULT_RUNDIR)])
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
