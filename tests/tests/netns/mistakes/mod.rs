//! What a person gets wrong or a host lacks: one line says what to do, and nothing is changed.

mod configuration;
mod host;
mod words;

use ovs_ebpf_tests::lab::Host;

use crate::support::ovs_loader;

/// Runs `ovs-loader` on a host and gives what it says when it fails.
///
/// # Panics
/// When it doesn't fail, or says more than one line.
#[track_caller]
fn complaint(host: &Host, arguments: &[&str]) -> String {
    let error = match ovs_loader(host, arguments) {
        Ok(said) => panic!("{arguments:?} succeeded: {said}"),
        Err(error) => format!("{error:#}"),
    };
    let (command, said) = error.split_once("\n").expect("the command's own line, then its words");
    assert!(command.contains("exit status: 1"), "{error}");
    assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
    said.trim_end().to_owned()
}
