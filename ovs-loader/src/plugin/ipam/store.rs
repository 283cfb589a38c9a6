//! The pools of a host on disk: one file for each, so that they outlive the daemon and the host's run.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use super::pool::Pool;
use crate::durable;

/// The directory of a host's pools.
#[derive(Clone, Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    /// That of a state directory, which need not exist yet.
    pub(super) fn new(state: &Path) -> Self {
        Self { directory: state.join("pools") }
    }

    /// Every pool by its id.
    pub(super) fn load(&self) -> Result<BTreeMap<String, Pool>, Error> {
        let mut pools = BTreeMap::new();
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(pools),
            entries => entries.map_err(|reason| failed("read", &self.directory, reason))?,
        };
        for entry in entries {
            let path = entry.map_err(|reason| failed("read", &self.directory, reason))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = fs::read(&path).map_err(|reason| failed("read", &path, reason))?;
            let pool: Pool = serde_json::from_slice(&bytes)
                .map_err(|problem| Error::Damaged { path, problem })?;
            pools.insert(pool.id.clone(), pool);
        }
        Ok(pools)
    }

    pub(super) fn save(&self, pool: &Pool) -> Result<(), Error> {
        let path = self.path(&pool.id);
        let written = fs::create_dir_all(&self.directory)
            .and_then(|()| Ok(serde_json::to_vec_pretty(pool)?))
            .and_then(|content| durable::write(&path, &content));
        written.map_err(|reason| failed("write", &path, reason))
    }

    pub(super) fn remove(&self, id: &str) -> Result<(), Error> {
        let path = self.path(id);
        durable::remove(&path).map_err(|reason| failed("remove", &path, reason))
    }

    /// An id has a dot or more of its own: no extension to replace.
    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

fn failed(doing: &'static str, path: &Path, reason: io::Error) -> Error {
    Error::State { doing, path: path.to_owned(), reason }
}
