//! Getting an answer to stdout.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

/// Prints a report: for people as `table` has it, or as one JSON object.
pub(super) fn report<T: Serialize>(
    json: bool,
    report: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<()> {
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(report)?))
    } else {
        print(&table(report))
    }
}

/// Prints text. A reader that has seen enough (`| head`) is no error.
pub(super) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to stdout"),
    }
}
