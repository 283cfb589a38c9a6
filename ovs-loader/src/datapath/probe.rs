//! What this kernel can do, found out by trying: versions do not tell what was ported back.

use aya::EbpfLoader;
use aya::programs::{TestRun as _, TestRunOptions};

use super::{Error, OBJECT, classifier, verified};

/// The program that tries.
const PROGRAM: &str = "decap_probe";

/// Whether the kernel is one with PREEMPT_RT, which says so.
pub(super) fn is_preempt_rt() -> bool {
    std::fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1")
}

/// Whether `bpf_skb_adjust_room` takes `BPF_F_ADJ_ROOM_DECAP_L3_IPV6`: Linux 6.3 does.
///
/// # Errors
/// Where the kernel refuses the program that tries it.
pub fn decap_l3() -> Result<bool, Error> {
    let fail = |source| Error::Program { program: PROGRAM, source };
    // Maps of its own, which go with it.
    let mut ebpf = EbpfLoader::new().map_max_entries("fdb", 1).load(OBJECT)?;
    let probe = classifier(&mut ebpf, PROGRAM);
    verified(|| probe.load()).map_err(fail)?;
    // Ethernet, an IPv4 header to take off, an IPv6 header to remain.
    let mut frame = [0; 14 + 20 + 40];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
    Ok(probe.test_run(options).map_err(fail)?.return_value == 0)
}
