//! Hosts in network namespaces, load generators, and the tests that run on them.

pub mod accelerated;
pub mod lab;
pub mod vectors;
pub mod why;
