//! tc filters, TCX programs and queueing disciplines on watched devices.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use nix::mount::{MsFlags, mount};
use ovs_loader::rules::{HostRules, Rules, TcFilters};

use crate::lab::{fresh, ifindex, in_namespace, sh, until};

async fn watching(devices: &[&str]) -> Rules {
    let mut rules = fresh().await;
    let devices = devices.iter().map(|name| ifindex(name)).collect::<BTreeSet<_>>();
    rules.watch_devices(devices).expect("watch devices");
    rules
}

fn on_v0(facts: &HostRules) -> TcFilters {
    facts.tc.get(&ifindex("v0")).cloned().unwrap_or_default()
}

#[test]
fn classic_ingress_filters_appear_and_go() {
    in_namespace(async || {
        let mut rules = watching(&["v0"]).await;
        for qdisc in ["clsact", "ingress"] {
            sh(&format!(
                "tc qdisc add dev v0 {qdisc}
                 tc filter add dev v0 ingress pref 7 protocol ip u32 match u32 0 0"
            ));
            until(&mut rules, qdisc, |facts| {
                on_v0(facts)
                    == TcFilters {
                        ingress_classic: Some("filter u32 pref 7".to_owned()),
                        ..TcFilters::default()
                    }
            })
            .await;
            sh("tc filter delete dev v0 ingress pref 7");
            until(&mut rules, "no filter", |facts| facts.tc.is_empty()).await;
            sh(&format!("tc qdisc delete dev v0 {qdisc}"));
        }
    });
}

#[test]
fn clsact_egress_filters_appear_and_go() {
    in_namespace(async || {
        let mut rules = watching(&["v0"]).await;
        sh("tc qdisc add dev v0 clsact
            tc filter add dev v0 egress pref 7 protocol ip u32 match u32 0 0");
        until(&mut rules, "egress filter", |facts| {
            on_v0(facts).egress.as_deref() == Some("filter u32 pref 7")
        })
        .await;
        assert_eq!(on_v0(rules.facts()).ingress_classic, None);
        sh("tc qdisc delete dev v0 clsact");
        until(&mut rules, "no filter", |facts| facts.tc.is_empty()).await;
    });
}

#[test]
fn shaping_qdiscs_and_their_filters_appear_and_go() {
    in_namespace(async || {
        let mut rules = watching(&["v0"]).await;
        sh("tc qdisc add dev v0 root tbf rate 10mbit burst 10k latency 10ms");
        until(&mut rules, "tbf", |facts| on_v0(facts).qdisc.as_deref() == Some("qdisc tbf")).await;
        sh("tc qdisc replace dev v0 root handle 1: htb
            tc filter add dev v0 parent 1: pref 7 protocol ip u32 match u32 0 0");
        until(&mut rules, "htb with a filter", |facts| {
            on_v0(facts).qdisc.as_deref() == Some("qdisc htb")
                && on_v0(facts).egress.as_deref() == Some("qdisc htb filter u32 pref 7")
        })
        .await;
        sh("tc qdisc delete dev v0 root");
        until(&mut rules, "no qdisc", |facts| facts.tc.is_empty()).await;
    });
}

#[test]
fn plain_qdiscs_empty_clsact_and_other_devices_are_nothing() {
    in_namespace(async || {
        sh("tc qdisc add dev v0 root pfifo limit 100
            tc qdisc add dev v0 clsact
            tc qdisc add dev v1 root tbf rate 10mbit burst 10k latency 10ms
            tc qdisc add dev v1 clsact
            tc filter add dev v1 egress protocol ip u32 match u32 0 0");
        assert!(watching(&["v0"]).await.facts().tc.is_empty());
        assert!(!watching(&["v0", "v1"]).await.facts().tc.is_empty());
    });
}

#[test]
fn facts_follow_the_watched_devices() {
    in_namespace(async || {
        sh("tc qdisc add dev v0 root tbf rate 10mbit burst 10k latency 10ms");
        let mut rules = watching(&["v0"]).await;
        assert!(on_v0(rules.facts()).qdisc.is_some());
        rules.watch_devices(BTreeSet::new()).expect("watch nothing");
        assert!(rules.facts().tc.is_empty());
        // A device that is gone has nothing, and is no error.
        rules.watch_devices(BTreeSet::from([ifindex("v0"), 4711])).expect("watch a lost device");
        assert!(on_v0(rules.facts()).qdisc.is_some());
    });
}

#[test]
fn a_classic_bpf_program_counts() {
    in_namespace(async || {
        let lab = Bpffs::mount();
        let mut program = lab.program("theirs");
        let mut rules = watching(&["v0"]).await;
        sh("tc qdisc add dev v0 clsact");
        attach(&mut program, TcAttachType::Ingress, (6, 1));
        until(&mut rules, "theirs", |facts| {
            on_v0(facts).ingress_classic.as_deref() == Some("filter bpf pref 6")
        })
        .await;
        sh("tc filter delete dev v0 ingress pref 6");
        until(&mut rules, "none", |facts| facts.tc.is_empty()).await;
    });
}

#[test]
fn a_filter_with_the_last_priority_is_told_apart() {
    in_namespace(async || {
        let lab = Bpffs::mount();
        let mut program = lab.program("theirs");
        let mut rules = watching(&["v0"]).await;
        sh("tc qdisc add dev v0 clsact");
        attach(&mut program, TcAttachType::Ingress, (6, 1));
        // The handle of one of ours, but not its name.
        attach(&mut program, TcAttachType::Ingress, (0xffff, 1));
        until(&mut rules, "both", |facts| {
            on_v0(facts)
                == TcFilters {
                    ingress_classic: Some("filter bpf pref 6, filter bpf pref 65535".to_owned()),
                    ingress_classic_last: Some("filter bpf pref 65535".to_owned()),
                    ..TcFilters::default()
                }
        })
        .await;
    });
}

fn attach(program: &mut SchedClassifier, hook: TcAttachType, (priority, handle): (u16, u32)) {
    let options = NlOptions { priority, handle: handle.into(), classid: None };
    let link = program
        .attach_with_options("v0", hook, TcAttachOptions::Netlink(options))
        .and_then(|link| program.take_link(link))
        .expect("attach by netlink");
    // Stays on the device.
    std::mem::forget(link);
}

#[test]
fn tcx_programs_appear_and_go_and_ingress_ones_are_told_apart() {
    in_namespace(async || {
        let lab = Bpffs::mount();
        let mut program = lab.program("theirs");
        let id = program.info().expect("program info").id();
        let mut rules = watching(&["v0"]).await;
        let mut attach = |hook| {
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            let link = program.attach_with_options("v0", hook, options).expect("attach by TCX");
            program.take_link(link).expect("link")
        };
        let ingress = attach(TcAttachType::Ingress);
        let only_ingress = TcFilters { ingress_tcx: vec![id], ..TcFilters::default() };
        until(&mut rules, "TCX on ingress", |facts| on_v0(facts) == only_ingress).await;
        drop(ingress);
        let egress = attach(TcAttachType::Egress);
        until(&mut rules, "TCX program", |facts| {
            let what = Some("1 TCX program(s)".to_owned());
            on_v0(facts) == TcFilters { egress: what, ..TcFilters::default() }
        })
        .await;
        drop(egress);
        until(&mut rules, "no TCX program", |facts| facts.tc.is_empty()).await;
    });
}

/// A BPF file system in this test's mount namespace.
struct Bpffs {
    directory: tempfile::TempDir,
}

impl Bpffs {
    fn mount() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        mount(Some("bpf"), directory.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .expect("mount bpffs");
        Self { directory }
    }

    /// A program that passes everything on, through a pin: aya loads from ELF files only.
    fn program(&self, name: &str) -> SchedClassifier {
        let path: PathBuf = self.directory.path().join(name);
        load_and_pin(name, &path).expect("load a BPF program");
        SchedClassifier::from_pin(&path).expect("open the pinned program")
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.directory.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Loads `return TC_ACT_UNSPEC` under a name and pins it.
fn load_and_pin(name: &str, path: &Path) -> io::Result<()> {
    /// `union bpf_attr` for `BPF_PROG_LOAD`.
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
    }
    /// `union bpf_attr` for `BPF_OBJ_PIN`.
    #[repr(C)]
    struct Pin {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_OBJ_PIN: libc::c_int = 6;
    const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

    // r0 = -1; exit
    let instructions: [u64; 2] = [0xffff_ffff_0000_00b7, 0x0000_0000_0000_0095];
    let mut prog_name = [0; 16];
    prog_name[..name.len()].copy_from_slice(name.as_bytes());
    let load = Load {
        prog_type: BPF_PROG_TYPE_SCHED_CLS,
        insn_cnt: 2,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
    };
    // SAFETY: the attribute and what it points to live until the call returns.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, which nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("descriptor")) };
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let pin = Pin {
        pathname: path.as_ptr() as u64,
        bpf_fd: program.as_raw_fd().cast_unsigned(),
        file_flags: 0,
    };
    // SAFETY: the attribute and the path live until the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw const pin, size_of::<Pin>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
