//! A virtual machine with a distribution kernel that runs programs of this machine, just built, on
//! this machine's root. It is emulated: no /dev/kvm is needed, and ten times the time.

mod initramfs;
mod job;
mod kernel;
mod machine;

pub(crate) use self::{
    job::Job,
    kernel::Series,
    machine::{Clock, Machine},
};
