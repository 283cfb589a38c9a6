//! Small files that a crash leaves either as they were or as they were to be.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// What a file is called until it is complete.
const BESIDE: &str = "new";

/// Puts a file in place of what was there: written beside it, synced, and renamed.
///
/// # Errors
/// The disk refuses; what was there before still is.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(BESIDE);
    let mut file = File::create(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}

/// Removes a file; one that is gone already is no error.
///
/// # Errors
/// The disk refuses.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path).and_then(|()| sync_parent(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A change of names lasts once the directory is on disk.
fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
