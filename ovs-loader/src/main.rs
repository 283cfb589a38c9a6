//! x
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    ovs_loader::daemon::smoke(std::path::Path::new(&std::env::args().nth(1).unwrap())).await
}
