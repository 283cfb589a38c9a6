//! `BPF_PROG_TEST_RUN`: one frame in, verdict and frame out.
//!
//! What `bpf_prog_test_run_skb` (net/bpf/test_run.c) makes of its input:
//! - The device is the context's `ifindex`, looked up in the calling thread's network namespace; 0 or
//!   1 is the loopback device. `skb->protocol` and `skb->pkt_type` come from `eth_type_trans` with
//!   that device, so that a frame to another MAC than the device's is `PACKET_OTHERHOST`.
//! - A VLAN tag stays in the frame; reception would have moved it into metadata.
//! - A context may set mark, priority, ingress_ifindex, ifindex, cb, tstamp, wire_len, gso_segs,
//!   gso_size and hwtstamp. Every other byte has to be zero.
//! - A frame too short for the IP header that its EtherType announces is refused: EINVAL. So is one
//!   longer than a page less headroom and the skb's own data, 3,712 bytes on x86-64.
//! - A redirect is a return value; nothing is sent.

use aya::programs::{
    ProgramError, SchedClassifier, TestRun as _, TestRunAttrs, TestRunOptions, Xdp,
};

/// `TC_ACT_UNSPEC`: the next filter on the hook decides, in the end the bridge.
pub(crate) const PASS: i32 = -1;
/// `TC_ACT_SHOT`: the packet is discarded.
pub(crate) const SHOT: i32 = 2;
/// `TC_ACT_REDIRECT`.
pub(crate) const REDIRECT: i32 = 7;

/// Room for the longest outer header, and more to catch a program that adds too much.
const ROOM: usize = 256;

/// Where `struct __sk_buff` (include/uapi/linux/bpf.h) has what is set here, and its length.
const MARK: usize = 8;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;
const GSO_SIZE: usize = 176;
const CONTEXT_LEN: usize = 192;

/// What a program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The program's return value, `TC_ACT_*`.
    pub(crate) verdict: i32,
    /// The frame after the run.
    pub(crate) frame: Vec<u8>,
    /// Its mark after the run.
    pub(crate) mark: u32,
}

/// A frame as the program meets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    /// The device that received it.
    pub(crate) ifindex: u32,
    /// From the Ethernet header on.
    pub(crate) frame: &'a [u8],
    /// Payload bytes per segment of a GSO packet; 0 for a single packet.
    pub(crate) gso_size: u32,
    /// `skb->mark`.
    pub(crate) mark: u32,
}

/// Runs a program once: with `repeat` above 1 its changes to the frame would accumulate.
pub(crate) fn run(program: &SchedClassifier, input: Input<'_>) -> Result<Outcome, ProgramError> {
    let mut context = [0; CONTEXT_LEN];
    put(&mut context, INGRESS_IFINDEX, input.ifindex);
    put(&mut context, IFINDEX, input.ifindex);
    put(&mut context, GSO_SIZE, input.gso_size);
    put(&mut context, MARK, input.mark);
    let mut after = [0; CONTEXT_LEN];
    let mut frame = vec![0; input.frame.len() + ROOM];
    let options = TestRunOptions {
        data_in: Some(input.frame),
        data_out: Some(&mut frame),
        ctx_in: Some(&context),
        ctx_out: Some(&mut after),
        ..TestRunOptions::new()
    };
    let result = program.test_run(options)?;
    frame.truncate(result.data_size_out as usize);
    let mark = after[MARK..].first_chunk().copied().map_or(0, u32::from_ne_bytes);
    Ok(Outcome { verdict: result.return_value.cast_signed(), frame, mark })
}

/// `XDP_DROP`.
pub(crate) const XDP_DROP: u32 = 1;
/// `XDP_PASS`.
pub(crate) const XDP_PASS: u32 = 2;

/// Runs an XDP program once on a frame that arrives on the first queue of a device: its return value,
/// and the frame after the run.
///
/// `bpf_prog_test_run_xdp` takes frames from 14 bytes up to a page less headroom and tailroom; longer
/// ones have their rest in further buffers, as a driver's would.
pub(crate) fn run_xdp(
    program: &Xdp,
    ifindex: u32,
    frame: &[u8],
) -> Result<(u32, Vec<u8>), ProgramError> {
    let context = xdp_context(ifindex, frame);
    let mut after = vec![0; frame.len() + ROOM];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut after),
        ctx_in: Some(&context),
        ..TestRunOptions::new()
    };
    let result = program.test_run(options)?;
    after.truncate(result.data_size_out as usize);
    Ok((result.return_value, after))
}

/// What came of live frames.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Live {
    /// How many were received at most: where a signal interrupts it, the kernel does not say how far
    /// it came, and those frames are sent once more.
    pub(crate) most: u64,
    /// What it took to receive those that were asked for.
    pub(crate) took: std::time::Duration,
}

/// Has a device receive at least so many copies of a frame, 64 at once (NAPI's usual budget), through
/// an XDP program whose verdicts count.
pub(crate) fn run_xdp_live(
    program: &Xdp,
    ifindex: u32,
    frame: &[u8],
    copies: u32,
) -> Result<Live, ProgramError> {
    /// Copies that are asked for at once: a fraction of a second.
    const AT_ONCE: u32 = 100_000;
    let context = xdp_context(ifindex, frame);
    let (mut left, mut live) = (copies, Live::default());
    while left > 0 {
        let count = left.min(AT_ONCE);
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::new()
        };
        live.most += u64::from(count);
        match program.test_run(options) {
            Ok(result) => {
                left -= count;
                // Of each copy.
                live.took += result.duration * count;
            }
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(live)
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn xdp_context(ifindex: u32, frame: &[u8]) -> [u8; 24] {
    let mut context = [0; 24];
    put(&mut context, 4, frame.len() as u32);
    put(&mut context, 12, ifindex);
    context
}

/// Whether the kernel refuses to run a program on the frame: it ends before the IP header does that its
/// EtherType announces.
pub(crate) fn too_short(frame: &[u8]) -> bool {
    let header = match frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        Some(_) => 0,
        None => return true,
    };
    frame.len() < 14 + header
}

fn put(context: &mut [u8], at: usize, value: u32) {
    context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}
