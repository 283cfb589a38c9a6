//! QEMU with the virtual machine, and what comes out of it.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Series, initramfs,
    job::{self, Job, MARK, READY},
    kernel::Kernel,
};
use crate::progress::Step;

/// How long the machine may say nothing. The longest test takes a fraction of it.
const SILENCE: Duration = Duration::from_secs(400);
/// How long it may run.
const LIFE: Duration = Duration::from_secs(60 * 60);
/// So many of the console's last lines tell what went wrong.
const LAST_LINES: usize = 40;
/// Warnings and worse alone: the emulated port is slow. Devices and namespaces go without waiting
/// for every processor's next tick.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off \
                            rcupdate.rcu_expedited=1";

/// What the virtual machine's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// This machine's, on two processors at once.
    Host,
    /// This machine's, on two processors that take turns: none patches the kernel's code while the other
    /// runs it, which traps once in a while (`Oops: int3`).
    HostInTurn,
    /// A nanosecond for each instruction of its one processor, while that is not idle.
    Instructions,
}

impl Clock {
    fn qemu(self) -> &'static [&'static str] {
        match self {
            Self::Host => &["-accel", "tcg,thread=multi", "-smp", "2"],
            Self::HostInTurn => &["-accel", "tcg,thread=single", "-smp", "2"],
            Self::Instructions => {
                &["-accel", "tcg,thread=single", "-icount", "shift=0", "-smp", "1"]
            }
        }
    }

    fn command_line(self) -> &'static str {
        match self {
            Self::Host | Self::HostInTurn => "",
            // The counter itself, not compared with slower clocks.
            Self::Instructions => " clocksource=tsc tsc=reliable",
        }
    }
}

/// All that can be emulated, but for the fast string instructions: with them the kernel copies and clears
/// memory by `rep movsb` and `rep stosb`, which the emulator does byte by byte. Any other processor's cost of
/// a copy is nearer to that of words.
const PROCESSOR: &str = "max,-erms,-fsrm";

/// A running virtual machine. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Machine {
    child: Child,
    output: Receiver<Chunk>,
    results: Results,
    console: PathBuf,
    /// How long it may say nothing.
    silence: Duration,
    end: Instant,
}

/// What it prints.
#[derive(Debug)]
enum Chunk {
    /// On the port for results.
    Out(Vec<u8>),
    /// On the port for errors, and QEMU's own.
    Err(Vec<u8>),
}

impl Machine {
    /// Boots a kernel of the series, which then runs these jobs one after the other, and waits
    /// until it is up. The console's log stays in the target directory.
    ///
    /// # Errors
    /// When the kernel can't be had, and with the console's last lines when it does not come up.
    pub(crate) fn boot(series: Series, clock: Clock, jobs: &[Job]) -> Result<Self> {
        let kernel = Kernel::obtain(series)?;
        let step = Step::start(format!("booting Linux {series}"));
        let directory = target()?.join("vm");
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let console = directory.join(format!("console-{series}.log"));
        let initramfs = directory.join(format!("initramfs-{series}"));
        let content = initramfs::build(&kernel.modules, &job::script(jobs))?;
        fs::write(&initramfs, content)
            .with_context(|| format!("cannot write {}", initramfs.display()))?;

        let mut machine = Self::start(qemu(&kernel, clock, &initramfs, &console), console, SILENCE)
            .context("cannot start qemu-system-x86_64 of package qemu-system-x86")?;
        let line = machine.until_mark(&mut |_| Ok(()))?;
        if line != READY {
            bail!("the virtual machine said {line:?} instead of {READY:?}");
        }
        step.done();
        Ok(machine)
    }

    fn start(mut command: Command, console: PathBuf, silence: Duration) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (sender, output) = mpsc::channel();
        forward(child.stdout.take().expect("stdout is piped"), sender.clone(), Chunk::Out);
        forward(child.stderr.take().expect("stderr is piped"), sender, Chunk::Err);
        let end = Instant::now() + LIFE;
        Ok(Self { child, output, results: Results::default(), console, silence, end })
    }

    /// Waits for the end of the next job, giving its output to `sink` as it comes, and returns its
    /// exit status.
    ///
    /// # Errors
    /// With the console's last lines, when the machine ends or hangs before; `sink`'s own.
    pub(crate) fn next_status(
        &mut self,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<i32> {
        let line = self.until_mark(&mut sink)?;
        line.parse().with_context(|| format!("{line:?} is no exit status"))
    }

    /// Waits for the machine's end after its last job, for what the jobs still had to say.
    ///
    /// # Errors
    /// See [`next_status`](Self::next_status).
    pub(crate) fn finish(mut self) -> Result<()> {
        while self.receive()? {}
        Ok(())
    }

    /// Passes output on up to the next marked line, which it returns.
    fn until_mark(&mut self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<String> {
        loop {
            sink(&self.results.output()).context("cannot pass the output on")?;
            if let Some(line) = self.results.mark() {
                return Ok(line);
            }
            if !self.receive()? {
                bail!("it ended too early{}", self.log());
            }
        }
    }

    /// Waits for output; `false` if there will be no more.
    fn receive(&mut self) -> Result<bool> {
        let left = self.end.saturating_duration_since(Instant::now());
        match self.output.recv_timeout(self.silence.min(left)) {
            Ok(Chunk::Out(bytes)) => self.results.0.extend(bytes),
            Ok(Chunk::Err(bytes)) => io::stderr().write_all(&bytes).context("cannot write")?,
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
            Err(RecvTimeoutError::Timeout) if left < self.silence => {
                bail!("it was not done within {LIFE:?}{}", self.log())
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!("it hangs: no output for {:?}{}", self.silence, self.log())
            }
        }
        Ok(true)
    }

    /// The console's last lines, to follow an error.
    fn log(&self) -> String {
        let log = fs::read(&self.console).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        format!("; the end of its console, {}:\n{}", self.console.display(), last.join("\n"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // After its last job it ends by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came by the port for results and was not looked at: the jobs' output and marked lines.
#[derive(Debug, Default)]
struct Results(Vec<u8>);

impl Results {
    /// Takes the output up to the next marked line.
    fn output(&mut self) -> Vec<u8> {
        let mark = self.0.iter().position(|byte| *byte == MARK);
        self.0.drain(..mark.unwrap_or(self.0.len())).collect()
    }

    /// Takes a marked line that comes next and is whole, without its mark and its end.
    fn mark(&mut self) -> Option<String> {
        if self.0.first() != Some(&MARK) {
            return None;
        }
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.0.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line[1..end]).into_owned())
    }
}

fn qemu(kernel: &Kernel, clock: Clock, initramfs: &Path, console: &Path) -> Command {
    // It must not outlive this process, even one that is killed. It takes no standard stream for a
    // port.
    const START: &str = "exec setpriv --pdeathsig KILL qemu-system-x86_64 \"$@\" 3>&2";
    let mut command = Command::new("sh");
    command.args(["-c", START, "sh"]);
    command.args(clock.qemu()).args(["-cpu", PROCESSOR, "-m", "2048"]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
    command.args(["-append", &format!("{COMMAND_LINE}{}", clock.command_line())]);
    // Nothing in the machine may write to this machine's files, and links are not followed.
    command.args([
        "-virtfs",
        "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
    ]);
    // The serial ports: the console, the jobs' stdout and their stderr.
    command.arg("-serial").arg(format!("file:{}", console.display()));
    command.args(["-serial", "stdio"]);
    command.args(["-add-fd", "fd=3,set=3"]);
    command.args(["-chardev", "file,id=stderr,path=/dev/fdset/3,append=on"]);
    command.args(["-serial", "chardev:stderr"]);
    command
}

/// Reads a stream on a thread of its own.
fn forward(
    mut stream: impl io::Read + Send + 'static,
    sender: Sender<Chunk>,
    chunk: fn(Vec<u8>) -> Chunk,
) {
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut bytes) {
            if sender.send(chunk(bytes[..length].to_vec())).is_err() {
                return;
            }
        }
    });
}

/// The target directory that this program was built into.
fn target() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let target = program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    Ok(target.context("this program is in no target directory")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(script: &str) -> Machine {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let console = env::temp_dir().join(format!("console-{:?}", thread::current().id()));
        fs::write(&console, "one\nthe last\n").unwrap();
        Machine::start(command, console, Duration::from_millis(300)).unwrap()
    }

    #[test]
    fn output_comes_before_the_status_of_its_job() {
        let mut machine = machine(r"printf 'a\nb\0360\nc\0361'; sleep 0.1; printf '01\nrest'");
        let mut output = Vec::new();
        let mut next = |output: &mut Vec<u8>| {
            machine.next_status(|bytes| {
                output.extend_from_slice(bytes);
                Ok(())
            })
        };
        assert_eq!(next(&mut output).unwrap(), 0);
        assert_eq!(output, b"a\nb");
        assert_eq!(next(&mut output).unwrap(), 101);
        assert_eq!(output, b"a\nbc");
        let error = next(&mut output).unwrap_err().to_string();
        assert!(error.contains("too early") && output == b"a\nbcrest", "{error}");
        let console = machine.console.clone();
        machine.finish().unwrap();
        fs::remove_file(console).unwrap();
    }

    #[test]
    fn a_hang_ends_with_the_consoles_last_lines() {
        let mut machine = machine("exec sleep 30");
        let error = machine.next_status(|_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("hangs") && error.ends_with("one\nthe last"), "{error}");
        fs::remove_file(&machine.console).unwrap();
    }
}
