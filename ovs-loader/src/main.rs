//! `ovs-loader`: see `ovs-loader --help`.

fn main() {}
