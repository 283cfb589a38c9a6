//! The daemon's life: what it takes over, what it leaves, and how it follows the host.

mod adoption;
mod churn;
mod clsact;
mod commands;
mod following;
mod life;

use std::time::Duration;

/// How soon the daemon has followed a change.
const FOLLOWED: Duration = Duration::from_secs(3);
