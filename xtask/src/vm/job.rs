//! What runs in the virtual machine.

use std::{fmt::Write as _, path::PathBuf};

/// Begins a line on the port for results that is not a job's output: the status of the job that
/// has ended, or [`READY`]. The record separator of ASCII, which no test prints.
pub(super) const MARK: u8 = 0x1e;
/// In such a line: the machine is up.
pub(super) const READY: &str = "ready";

/// How many times longer than on the usual machine a lab may take: `$LAB_PATIENCE`.
const PATIENCE: u32 = 6;

/// Seconds since boot before anything runs. Until then ovs-vswitchd counts no processor
/// (`count_cpu_cores`, which believes it has just looked), starts no thread for the kernel's questions,
/// and its datapath loses every packet that needs one, also later.
const UPTIME: u32 = 10;

/// Uses what the kernel patches its code for at the first use and after the last (static keys): time
/// stamps of packets, which each `ping` asks for, and hooks at a device's ingress and egress. An emulated
/// processor may trap on the code while another one patches it (`Oops: int3`): the less often, the
/// better.
const HOLD_KEYS: &str =
    "tc qdisc add dev lo clsact; ping -q -i 86400 127.0.0.1 > /dev/null 2>&1 < /dev/null &";

/// A program that runs as root in the virtual machine.
#[derive(Debug, Default)]
pub(crate) struct Job {
    /// Where it runs.
    pub(crate) directory: PathBuf,
    /// Variables on top of the machine's own.
    pub(crate) environment: Vec<(String, String)>,
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
}

/// The shell script that runs jobs in turn. Their stdout leaves by the second serial port and their
/// stderr by the third, through pipes: to a program, a serial port is a terminal.
pub(super) fn script(jobs: &[Job]) -> String {
    let mut script = format!(
        "export LAB_PATIENCE={PATIENCE}\n\
         export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         export HOME=/root LC_ALL=C.UTF-8\n\
         mkfifo /run/stdout /run/stderr\n\
         cat < /run/stdout > /dev/ttyS1 &\n\
         cat < /run/stderr > /dev/ttyS2 &\n\
         exec < /dev/null > /run/stdout 2> /run/stderr\n\
         ip link set lo up\n\
         {HOLD_KEYS}\n\
         while [ \"$(cut -d. -f1 /proc/uptime)\" -le {UPTIME} ]; do sleep 0.2; done\n",
    );
    let mut add = |line: std::fmt::Arguments<'_>| {
        script.write_fmt(line).expect("writing to a String can't fail");
    };
    add(format_args!("printf '\\036{READY}\\n'\n"));
    for job in jobs {
        let variables = job.environment.iter().map(|(name, value)| format!("{name}={value}"));
        let words: Vec<String> =
            variables.chain(job.words.iter().cloned()).map(|word| quote(&word)).collect();
        let directory = quote(&job.directory.to_string_lossy());
        add(format_args!("(cd {directory} && exec env {})\n", words.join(" ")));
        add(format_args!("printf '\\036%d\\n' $?\n"));
    }
    // Once all has left; `$!` is the ping of HOLD_KEYS, which would not end by itself.
    add(format_args!("exec > /dev/null 2>&1\nkill $!\nwait\necho b > /proc/sysrq-trigger\n"));
    script
}

/// As one word of a shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        let words = ["it's", "a b", "$HOME", "\\", ""];
        let line = words.map(quote).join(" ");
        let output =
            Command::new("sh").args(["-c", &format!("printf '%s|' {line}")]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's|a b|$HOME|\\||");
    }

    #[test]
    fn each_job_ends_with_its_status() {
        let job = Job { words: vec!["true".into()], directory: "/".into(), ..Job::default() };
        let script = script(&[job]);
        assert!(script.contains("(cd '/' && exec env 'true')\nprintf '\\036%d\\n' $?\n"));
    }
}
