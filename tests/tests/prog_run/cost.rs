//! What the programs cost, by measures that no clock is in: how many instructions the
//! verifier went through, and how many the kernel has made of them. The bounds, `bounds.json`, are
//! what was measured when they were written.

use std::{collections::BTreeMap, env, fs, path::Path};

use ovs_ebpf_common::abi::Program;
use serde::{Deserialize, Serialize};

use crate::host::Host;

/// More than was measured by so many percent is a regression. Kernels differ by less.
const SLACK: u64 = 10;
/// In the environment: write what is measured as the new bounds.
const WRITE: &str = "OVS_EBPF_WRITE_BOUNDS";

/// The measures of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cost {
    /// Instructions that the verifier went through, on all ways.
    verified: u64,
    /// BPF instructions that the kernel has made of it.
    instructions: u64,
}

#[test]
fn no_program_has_grown_past_its_bounds() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prog_run/bounds.json");
    let host = Host::new();
    let measured: BTreeMap<String, Cost> = Program::ALL
        .into_iter()
        .map(|program| (program.name().to_owned(), cost(&host, program)))
        .collect();
    if env::var_os(WRITE).is_some() {
        let text = serde_json::to_string_pretty(&measured).expect("JSON") + "\n";
        fs::write(&file, text).expect("bounds.json can be written");
    }
    let bounds = fs::read_to_string(&file).expect("bounds.json");
    let bounds: BTreeMap<String, Cost> = serde_json::from_str(&bounds).expect("bounds.json");
    for (program, cost) in &measured {
        let bound = bounds.get(program).unwrap_or_else(|| panic!("no bounds for {program}"));
        for (what, is, was) in [
            ("instructions verified", cost.verified, bound.verified),
            ("instructions", cost.instructions, bound.instructions),
        ] {
            assert!(
                is <= was + was * SLACK / 100,
                "{program} has {is} {what}, {SLACK} % more than {was} at least; where the growth is \
                 meant, `{WRITE}=1 cargo xtask test no_program_has_grown` makes it the bound"
            );
        }
    }
}

fn cost(host: &Host, program: Program) -> Cost {
    let info = host.info(program);
    let verified = info.verified_instruction_count().expect("Linux 5.16 or newer");
    let bytes = info.size_translated().expect("root may see the program");
    Cost { verified: verified.into(), instructions: u64::from(bytes) / 8 }
}
