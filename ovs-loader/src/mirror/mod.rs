//! From the truth to the maps: what is accelerated and what not, why, and the changes that make the
//! maps say so.
//!
//! Pure: [`plan`] decides from facts alone, [`entry`] decides on one FDB entry, [`apply`] turns the
//! difference into map updates in an order that never lets a packet go astray.

pub mod apply;
mod clash;
pub mod entry;
mod gate;
mod guard;
mod held;
mod ids;
mod maps;
pub mod plan;
mod security;
#[cfg(test)]
mod tests;
mod tunnel;

pub use apply::Applied;
pub use gate::Facts;
pub use guard::{Flow, Guards};
pub use ids::TunnelIds;
pub use maps::{MapReader, MapWriter};
pub use plan::{BridgePlan, Plan, PortPlan, TunnelPlan, Way, Ways};
pub use security::{Secured, SecuredPort};
pub use tunnel::targets;
