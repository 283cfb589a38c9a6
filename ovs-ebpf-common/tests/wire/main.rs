//! The codecs against the vectors in `tests/vectors`, which an independent implementation made, and
//! against properties that hold for every input. Runs on any host.

mod ecn;
mod frame;
mod headers;
mod ipv4;
mod outer;
