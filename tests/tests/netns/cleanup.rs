//! What a lab leaves behind: nothing, however its process ends.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    panic::{self, AssertUnwindSafe},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ovs_ebpf_tests::lab::Lab;

/// In the environment of a process that makes a lab and waits for its end.
const VICTIM: &str = "OVS_EBPF_TEST_VICTIM";

#[test]
fn a_panic_leaves_nothing_behind() -> Result<()> {
    let mut name = String::new();
    let mut forgotten = None;
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::pair().expect("a lab");
        lab.name().clone_into(&mut name);
        forgotten = Some(lab.container(0).command("sleep").arg("1000").spawn().expect("sleep"));
        panic!("on purpose");
    }));
    assert!(panicked.is_err() && !name.is_empty());
    let mut forgotten = forgotten.expect("started");
    let ended = forgotten.try_wait()?;
    forgotten.kill()?;
    assert!(ended.is_some(), "the lab ends what runs in it");
    assert_eq!(left_by(&name), [""; 0]);
    Ok(())
}

#[test]
fn a_signal_leaves_nothing_behind() -> Result<()> {
    if env::var_os(VICTIM).is_some() {
        return wait_for_the_end();
    }
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let (mut victim, lab) = victim()?;
        let up = left_by(&lab);
        kill(Pid::from_raw(victim.id().cast_signed()), signal)?;
        assert_eq!(victim.wait()?.code(), Some(status));
        assert!(up.len() >= 4, "{up:?}");
        assert_eq!(left_by(&lab), [""; 0]);
    }
    Ok(())
}

#[test]
fn what_sigkill_leaves_behind_is_removed_by_the_next_process() -> Result<()> {
    let (mut killed, lab) = victim()?;
    killed.kill()?;
    killed.wait()?;
    assert!(left_by(&lab).len() >= 4, "{:?}", left_by(&lab));
    let (mut next, its_lab) = victim()?;
    let left = left_by(&lab);
    kill(Pid::from_raw(next.id().cast_signed()), Signal::SIGTERM)?;
    next.wait()?;
    assert_eq!((left, left_by(&its_lab)), (Vec::new(), Vec::new()));
    Ok(())
}

/// Another process with a lab, and the lab's name.
fn victim() -> Result<(Child, String)> {
    let mut child = Command::new(env::current_exe()?)
        .args(["cleanup::a_signal_leaves_nothing_behind", "--exact", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut lines = stdout.lines().map_while(Result::ok);
    let lab = lines.find_map(|line| Some(line.split_once("lab is ")?.1.to_owned()));
    Ok((child, lab.context("the other process made no lab")?))
}

fn wait_for_the_end() -> Result<()> {
    let lab = Lab::pair()?;
    println!("lab is {}", lab.name());
    loop {
        thread::park();
    }
}

/// Namespaces and directories of a lab.
fn left_by(lab: &str) -> Vec<String> {
    let directories = ["/run/netns", "/run/ovs-ebpf-test", "/sys/fs/bpf/ovs-ebpf-test"];
    let entries = directories.into_iter().flat_map(fs::read_dir).flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(lab)).collect()
}
