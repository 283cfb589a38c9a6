//! No two containers of a network get the same address.

mod probe;
