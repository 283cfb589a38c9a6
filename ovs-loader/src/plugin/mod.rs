//! Docker's remote drivers: networks and addresses for real engines.

pub mod ipam;
pub mod probe;
