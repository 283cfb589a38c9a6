//! Waiting for a condition, with a deadline.

use std::{
    env,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// What a limit is on this machine: `$LAB_PATIENCE` times as long as on the usual one. An emulated
/// machine is that much slower.
pub fn patience(limit: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    limit
        * *FACTOR.get_or_init(|| match env::var("LAB_PATIENCE") {
            Ok(factor) => factor.parse().expect("LAB_PATIENCE is a whole number"),
            Err(_) => 1,
        })
}

/// Asks `condition` until it has an answer.
///
/// # Panics
/// When there is none within `limit`, with [`patience`]: the message names `what` was waited for.
#[track_caller]
pub fn wait_until<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    match try_until(limit, || Ok(condition())) {
        Ok(answer) => answer,
        Err(error) => panic!("{error}: {what}"),
    }
}

/// Asks `condition` until it has an answer.
///
/// # Errors
/// When there is none within `limit`, with [`patience`], and the condition's own.
pub fn try_until<T>(
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let limit = patience(limit);
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = condition()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("not within {limit:?}");
        }
        thread::sleep(INTERVAL);
    }
}
