//! `BPF_PROG_TEST_RUN` of a TC program: one frame in, verdict and frame out.
//!
//! What `bpf_prog_test_run_skb` (net/bpf/test_run.c) makes of its input:
//! - The device is the context's `ifindex`, looked up in the calling thread's network namespace; 0 or
//!   1 is the loopback device. `skb->protocol` and `skb->pkt_type` come from `eth_type_trans` with
//!   that device, so that a frame to another MAC than the device's is `PACKET_OTHERHOST`.
//! - A VLAN tag stays in the frame; reception would have moved it into metadata.
//! - A context may set mark, priority, ingress_ifindex, ifindex, cb, tstamp, wire_len, gso_segs,
//!   gso_size and hwtstamp. Every other byte has to be zero.
//! - A frame too short for the IP header that its EtherType announces is refused: EINVAL.
//! - A redirect is a return value; nothing is sent.

use std::io;
use std::mem::offset_of;

use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions};
use aya_obj::generated::__sk_buff;

/// `TC_ACT_UNSPEC`: the next filter on the hook decides, in the end the bridge.
pub const PASS: i32 = -1;
/// `TC_ACT_REDIRECT`.
pub const REDIRECT: i32 = 7;

/// Room for the longest outer header, and more to catch a program that adds too much.
const ROOM: usize = 256;

/// What a program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The program's return value, `TC_ACT_*`.
    pub verdict: i32,
    /// The frame after the run.
    pub frame: Vec<u8>,
}

/// A frame as the program meets it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The device that received it.
    pub ifindex: u32,
    /// From the Ethernet header on.
    pub frame: &'a [u8],
    /// Payload bytes per segment of a GSO packet; 0 for a single packet.
    pub gso_size: u32,
}

/// Runs a program once: with `repeat` above 1 its changes to the frame would accumulate.
///
/// `Ok(None)` where the kernel makes no skb of the frame.
pub fn run(program: &SchedClassifier, input: Input<'_>) -> Result<Option<Outcome>, ProgramError> {
    let mut context = [0; size_of::<__sk_buff>()];
    put(&mut context, offset_of!(__sk_buff, ingress_ifindex), input.ifindex);
    put(&mut context, offset_of!(__sk_buff, ifindex), input.ifindex);
    put(&mut context, offset_of!(__sk_buff, gso_size), input.gso_size);
    let mut frame = vec![0; input.frame.len() + ROOM];
    let options = TestRunOptions {
        data_in: Some(input.frame),
        data_out: Some(&mut frame),
        ctx_in: Some(&context),
        ..TestRunOptions::new()
    };
    match program.test_run(options) {
        Ok(result) => {
            frame.truncate(result.data_size_out as usize);
            Ok(Some(Outcome { verdict: result.return_value.cast_signed(), frame }))
        }
        Err(ProgramError::SyscallError(error))
            if error.io_error.kind() == io::ErrorKind::InvalidInput && too_short(input.frame) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether the kernel refuses the frame: shorter than Ethernet and the IP header it announces.
pub fn too_short(frame: &[u8]) -> bool {
    let header = match frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        Some(_) => 1,
        None => return true,
    };
    frame.len() < 14 + header
}

fn put(context: &mut [u8], at: usize, value: u32) {
    context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}
