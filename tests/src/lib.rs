//! Hosts in network namespaces, load generators, and the tests that run on them.

pub mod lab;
pub mod vectors;
