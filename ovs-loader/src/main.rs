//! `ovs-loader`: see `ovs-loader --help`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use ovs_loader::cli::{self, Cli};
use ovs_loader::config;
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
    cli::execute(cli).await
}

fn log_to_stderr(verbose: bool) {
    // netlink_proto warns of every answer that a cancelled question no longer waits for.
    let default = if verbose {
        "ovs_loader=debug,ovs_ebpf=debug,info,netlink_proto=error"
    } else {
        "info,netlink_proto=error"
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
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
