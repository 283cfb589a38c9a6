//! The bridges of the configuration.

use crate::bridge::provision::{self, BridgeSpec};

/// Creates and completes the bridges of the configuration. Gives those that lack an interface, which may come
/// later; what there is of them is done. Says what it lacks the first time.
///
/// # Errors
/// What else keeps a bridge from being completed.
pub(super) async fn ensure(
    specs: Vec<BridgeSpec>,
    first: bool,
) -> Result<Vec<BridgeSpec>, provision::Error> {
    let mut incomplete = Vec::new();
    for spec in specs {
        let mut possible = spec.clone();
        loop {
            match provision::ensure(&possible).await {
                Ok(actions) => {
                    actions.iter().for_each(|action| tracing::info!("{action}"));
                    break;
                }
                Err(provision::Error::NoInterface(name)) if possible.ports.contains(&name) => {
                    if first {
                        tracing::warn!("bridge {}: there is no interface {name} yet", spec.name);
                    }
                    possible.ports.retain(|port| *port != name);
                }
                // Another bridge may do without what this kernel lacks.
                Err(error @ provision::Error::NoModule { .. }) => {
                    tracing::error!("bridge {}: {error}", spec.name);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if possible != spec {
            incomplete.push(spec);
        }
    }
    Ok(incomplete)
}
