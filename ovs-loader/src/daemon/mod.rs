//! The daemon.

mod follower;

/// smoke
pub async fn smoke(bpffs: &std::path::Path) -> anyhow::Result<()> {
    let settings = crate::config::Accelerate::default();
    let host = follower::Host::open().await?;
    let datapath = crate::datapath::Datapath::open(bpffs, settings.fdb_capacity)?;
    let mut follower = follower::Follower::start(host, datapath, settings).await?;
    let mut timer = tokio::time::interval(std::time::Duration::from_secs(10));
    loop {
        tokio::select! {
            change = follower.changed() => { let change = change?; follower.follow(change).await?; eprintln!("{:#?}", follower.plan); }
            _ = timer.tick() => { follower.renew_lease()?; }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    follower.datapath.close()?;
    Ok(())
}
