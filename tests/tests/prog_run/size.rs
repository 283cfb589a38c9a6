//! The programs' size, which grows unseen, and every packet's cost with it.
//!
//! Time differs from run to run; the number of instructions does not. Another compiler or kernel may
//! move it a little.

use aya::{
    Ebpf,
    programs::{Program as Loaded, ProgramInfo, SchedClassifier, Xdp},
};
use ovs_ebpf_common::abi::Program;

use crate::host::object;

/// Upper bounds of a program's size.
struct Bounds {
    /// Instructions that the verifier walked, on all paths together.
    verified: u32,
    /// Instructions after the verifier: dead code removed, some helpers inlined.
    translated: u32,
}

/// The sizes when last set (Rust 1.96, LLVM 22, kernel 6.18), plus 5 %.
const fn bounds(program: Program) -> Bounds {
    match program {
        Program::PortIngress => Bounds { verified: 5_116, translated: 1_731 },
        Program::UplinkIngress => Bounds { verified: 11_995, translated: 1_509 },
        Program::UplinkXdp => Bounds { verified: 2_259, translated: 748 },
    }
}

#[test]
fn programs_stay_within_their_bounds() {
    let mut ebpf = Ebpf::load(object()).expect("the BPF object loads");
    let mut beyond = Vec::new();
    for program in Program::ALL {
        let name = program.name();
        let info = load(ebpf.program_mut(name).expect("in the object"));
        let verified = info.verified_instruction_count().expect("verified_insns: kernel 5.16");
        // Eight bytes each.
        let translated = info.size_translated().expect("xlated_prog_len: kernel 4.15") / 8;
        let bounds = bounds(program);
        println!("{name}: {verified} instructions verified, {translated} translated");
        for (what, size, bound) in
            [("verified", verified, bounds.verified), ("translated", translated, bounds.translated)]
        {
            if size > bound {
                beyond.push(format!(
                    "{name}: {size} instructions {what}, more than {bound}; if they are worth it, \
                     set the bound in {} to {} and say in the commit what they buy",
                    file!(),
                    size + size / 20
                ));
            }
        }
    }
    assert!(beyond.is_empty(), "{}", beyond.join("\n"));
}

fn load(program: &mut Loaded) -> ProgramInfo {
    let accepted = "the verifier accepts it";
    let info = if let Loaded::Xdp(_) = program {
        let program: &mut Xdp = program.try_into().expect("for XDP");
        program.load().expect(accepted);
        program.info()
    } else {
        let program: &mut SchedClassifier = program.try_into().expect("a classifier");
        program.load().expect(accepted);
        program.info()
    };
    info.expect("the kernel tells of the program")
}
