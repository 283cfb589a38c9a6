//! No two containers of a network get the same address, whatever their hosts.

mod engines;
mod probe;
