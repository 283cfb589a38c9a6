//! The loaded programs, one frame at a time through `BPF_PROG_TEST_RUN`: verdict, whole frame, and
//! which counter moved. Needs root.

mod attach;
mod batch;
mod clock;
mod cost;
mod decap;
mod differential;
mod doubt;
mod encap;
mod events;
mod filter;
mod flat;
mod flows;
mod host;
mod hostile;
mod live;
mod oracle;
mod run;
mod scale;
mod security;
mod veth;
mod vlan;
mod wire;
