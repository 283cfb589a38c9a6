//! `ovs-loader`: see `ovs-loader --help`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use ovs_loader::api::report::Status;
use ovs_loader::cli::{self, CheckOptions, Cli, RunOptions};
use ovs_loader::config::{self, Config};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.verbose);
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn start(cli: Cli) -> Result<()> {
    cli::execute(cli, &Daemon).await
}

fn log_to_stderr(verbose: bool) {
    let default = if verbose { "ovs_loader=debug,info" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// One line, or for the configuration the line that is wrong and what to write instead.
fn complain(error: anyhow::Error) {
    match error.downcast::<config::Error>() {
        Ok(config @ config::Error::Invalid(_)) => {
            eprintln!("ovs-loader: {:?}", miette::Report::new(config));
        }
        Ok(config) => eprintln!("ovs-loader: {config}"),
        Err(error) => eprintln!("ovs-loader: {error:#}"),
    }
}

/// The daemon's side of the command line.
struct Daemon;

impl cli::Daemon for Daemon {
    async fn run(&self, options: RunOptions) -> Result<()> {
        Config::load(options.config.as_deref())?;
        bail!("this build has no daemon")
    }

    async fn check(&self, options: CheckOptions) -> Result<Status> {
        Config::load(options.config.as_deref())?;
        bail!("this build has no daemon")
    }

    async fn down(&self, bpffs: PathBuf) -> Result<()> {
        bail!("this build can't take down {}", bpffs.display())
    }
}
