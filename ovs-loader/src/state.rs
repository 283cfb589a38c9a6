//! Small files of what must outlive the daemon and the host: one for each thing, written beside its
//! place, synced, and renamed into it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file of the state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses.
    #[error("cannot {doing} {}: {reason}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// A file is none of ours.
    #[error("{} is not understood: {problem}; move it away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: serde_json::Error,
    },
}

/// A directory with one file for each thing of a kind.
#[derive(Debug)]
pub struct Files<T> {
    directory: PathBuf,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Files<T> {
    fn clone(&self) -> Self {
        Self::at(&self.directory)
    }
}

impl<T> Files<T> {
    /// Those of a directory, which need not exist before the first is saved.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), kind: PhantomData }
    }

    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Forgets one, which need not be there.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        match fs::remove_file(&path).and_then(|()| self.sync()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|reason| Error::Io { doing: "remove", path, reason }),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name).with_extension("json")
    }

    /// A rename lasts once the directory is on disk.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

impl<T: DeserializeOwned> Files<T> {
    /// All of them, in no order.
    ///
    /// # Errors
    /// One can't be read, or is none of ours.
    pub fn load(&self) -> Result<Vec<T>, Error> {
        let unreadable = |reason| Error::Io { doing: "read", path: self.directory.clone(), reason };
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(unreadable)?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                all.extend(read(path)?);
            }
        }
        Ok(all)
    }

    /// One of them, if it is there.
    ///
    /// # Errors
    /// It can't be read, or is none of ours.
    pub fn get(&self, name: &str) -> Result<Option<T>, Error> {
        read(self.path(name))
    }
}

impl<T: Serialize> Files<T> {
    /// Writes one down, in place of what was known under its name.
    ///
    /// # Errors
    /// The disk refuses; what was known before still is.
    pub fn save(&self, name: &str, thing: &T) -> Result<(), Error> {
        let path = self.path(name);
        let written = (|| {
            fs::create_dir_all(&self.directory)?;
            let beside = path.with_extension("new");
            let mut file = File::create(&beside)?;
            file.write_all(&serde_json::to_vec_pretty(thing)?)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            self.sync()
        })();
        written.map_err(|reason| Error::Io { doing: "write", path, reason })
    }
}

/// One file; `None` if it is gone.
fn read<T: DeserializeOwned>(path: PathBuf) -> Result<Option<T>, Error> {
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(Error::Io { doing: "read", path, reason }),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|problem| Error::Damaged { path, problem }),
    }
}
