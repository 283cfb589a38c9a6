//! Hosts in network namespaces, load generators, a model of the kernel programs, and the tests that
//! run on them.

pub mod accelerated;
pub mod ecn;
pub mod generate;
pub mod lab;
pub mod model;
pub mod vectors;
pub mod why;
pub mod wire;
