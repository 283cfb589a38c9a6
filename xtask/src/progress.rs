//! Shows that a long step is under way: a spinner with the step's last line of output on a
//! terminal, plain lines elsewhere. All of it goes to stderr, so that stdout is left to results.

use std::{
    io::{self, BufRead as _, BufReader, IsTerminal as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// How often a step says that it lives, where there is no terminal to animate.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// One step under way; ends when dropped.
#[derive(Debug)]
pub struct Step {
    title: String,
    started: Instant,
    spoke: Instant,
    spinner: Option<ProgressBar>,
}

impl Step {
    /// Begins a step, named as something being done: `installing bpf-linker`.
    pub fn start(title: impl Into<String>) -> Self {
        let title = title.into();
        let spinner = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg}")
                .expect("the template is well-formed");
            let spinner = ProgressBar::new_spinner().with_style(style).with_prefix(title.clone());
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        if spinner.is_none() {
            eprintln!("{title} …");
        }
        let now = Instant::now();
        Self { title, started: now, spoke: now, spinner }
    }

    /// Shows the step's latest line of output.
    pub fn line(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        if let Some(spinner) = &self.spinner {
            spinner.set_message(line.trim().to_owned());
        } else if self.spoke.elapsed() >= PLAIN_INTERVAL {
            self.spoke = Instant::now();
            eprintln!("  {} s: {}", self.started.elapsed().as_secs(), line.trim());
        }
    }

    /// Ends the step and says how long it took.
    pub fn done(self) {
        let line = format!("{}: done in {:.1} s", self.title, self.started.elapsed().as_secs_f64());
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        eprintln!("{line}");
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// Runs a command as one step and returns what it printed, stdout and stderr in order. It gets no
/// standard input: a step can't ask.
///
/// # Errors
/// With the command's output, when it can't be started or fails.
pub fn run(title: impl Into<String>, mut command: Command) -> Result<String> {
    let shown = describe(&command);
    let mut step = Step::start(title);
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
    // It holds the pipe's writing end, without whose closing the output would never end.
    drop(command);

    let mut output = String::new();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader);
    while reader.read_until(b'\n', &mut line).context("cannot read a command's output")? > 0 {
        let text = String::from_utf8_lossy(&line);
        step.line(&text);
        output.push_str(&text);
        line.clear();
    }
    let status = child.wait().context("cannot wait for a command")?;
    if !status.success() {
        bail!("`{shown}` failed ({status}):\n{}", output.trim_end());
    }
    step.done();
    Ok(output)
}

/// A command as one would type it.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_of_both_streams_is_kept_in_order() {
        assert_eq!(run("testing", sh("echo a; echo b >&2; echo c")).unwrap(), "a\nb\nc\n");
    }

    #[test]
    fn a_failure_tells_the_command_and_its_output() {
        let error = run("testing", sh("echo why >&2; exit 3")).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains("exit 3"), "{error}");
    }
}
