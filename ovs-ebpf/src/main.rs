//! placeholder until the programs land
fn main() {}
