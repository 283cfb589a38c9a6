//! Many elements of a hash map with one system call (`BPF_MAP_*_BATCH` of `bpf(2)`, Linux 5.6), which
//! aya has no words for.
//!
//! Where the kernel refuses a batch, or stops half-way (a full map, a key that is not there), its
//! elements are gone through one by one: writing or removing twice is the same as once, so nothing
//! depends on how far the kernel says it came, which those before 6.8 do not always say.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::maps::{HashMap, Map, MapData, MapError};
use aya::{Ebpf, Pod};

use super::tables::{Error, absent_is_fine, error, missing};
use crate::bpf::bpf;

/// Elements of a batch: enough that the system call does not show, few enough that the programs hear
/// of a change within a few milliseconds.
pub(super) const BATCH: usize = 4096;

// Commands of bpf(2), from linux/bpf.h.
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_MAP_DELETE_BATCH: libc::c_int = 27;

/// The `batch` member of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// What came of a write of several elements, one after the other.
#[derive(Debug)]
#[must_use]
pub struct Written<E> {
    /// How many of them are done, from the first on.
    pub done: usize,
    /// What kept the next one from it; `Ok` with less than all is that the map is full.
    pub outcome: Result<(), E>,
}

/// A hash map of the programs' that is written and read in batches.
pub(super) struct BatchMap<K, V> {
    name: &'static str,
    single: HashMap<MapData, K, V>,
    /// The same map: aya keeps its own descriptor to itself.
    fd: OwnedFd,
    types: PhantomData<(K, V)>,
}

impl<K: Pod + Default, V: Pod + Default> BatchMap<K, V> {
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        let fail = |source| error("find", name)(source);
        let map = ebpf.take_map(name).ok_or_else(|| fail(missing(name)))?;
        let Map::HashMap(data) = map else {
            return Err(fail(missing(name)));
        };
        let fd = data.fd().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| fail(MapError::IoError(source)))?;
        let single = Map::HashMap(data).try_into().map_err(fail)?;
        Ok(Self { name, single, fd, types: PhantomData })
    }

    /// Adds or replaces elements.
    pub(super) fn set(&mut self, elements: &[(K, V)]) -> Written<Error> {
        if elements.len() > 1 {
            let keys: Vec<K> = elements.iter().map(|(key, _)| *key).collect();
            let values: Vec<V> = elements.iter().map(|(_, value)| *value).collect();
            if update(self.fd.as_fd(), &keys, &values).is_ok() {
                return Written { done: elements.len(), outcome: Ok(()) };
            }
        }
        let write = |map: &mut HashMap<_, K, V>, (key, value): &(K, V)| map.insert(key, value, 0);
        match self.one_by_one(elements, write) {
            Written { done, outcome: Err(Error::Full(_)) } => Written { done, outcome: Ok(()) },
            written => written,
        }
    }

    /// Removes the elements that are there.
    pub(super) fn remove(&mut self, keys: &[K]) -> Written<Error> {
        if keys.len() > 1 && delete(self.fd.as_fd(), keys).is_ok() {
            return Written { done: keys.len(), outcome: Ok(()) };
        }
        self.one_by_one(keys, |map, key| absent_is_fine(map.remove(key)))
    }

    fn one_by_one<T>(
        &mut self,
        items: &[T],
        write: impl Fn(&mut HashMap<MapData, K, V>, &T) -> Result<(), MapError>,
    ) -> Written<Error> {
        for (done, item) in items.iter().enumerate() {
            if let Err(source) = write(&mut self.single, item) {
                return Written { done, outcome: Err(error("write", self.name)(source)) };
            }
        }
        Written { done: items.len(), outcome: Ok(()) }
    }

    /// All elements.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        lookup_all(self.fd.as_fd(), BATCH).or_else(|_| {
            self.single.iter().collect::<Result<_, _>>().map_err(error("read", self.name))
        })
    }
}

/// `BPF_MAP_UPDATE_BATCH`: adds or replaces `keys[i]` with `values[i]`.
fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    assert_eq!(keys.len(), values.len());
    let mut attributes = Attributes {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len() as u32,
        ..Attributes::default()
    };
    // SAFETY: the kernel reads `count` keys and values; both slices have as many, of the sizes that
    // the map was checked for.
    unsafe { call(BPF_MAP_UPDATE_BATCH, map, &mut attributes) }
}

/// `BPF_MAP_DELETE_BATCH`. Stops at the first key that is not there (`ENOENT`).
fn delete<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
    let mut attributes = Attributes {
        keys: keys.as_ptr() as u64,
        count: keys.len() as u32,
        ..Attributes::default()
    };
    // SAFETY: the kernel reads `count` keys of the slice.
    unsafe { call(BPF_MAP_DELETE_BATCH, map, &mut attributes) }
}

/// `BPF_MAP_LOOKUP_BATCH`, until the map's end, `batch` elements at a time.
fn lookup_all<K: Pod + Default, V: Pod + Default>(
    map: BorrowedFd<'_>,
    mut batch: usize,
) -> io::Result<Vec<(K, V)>> {
    let mut entries = Vec::new();
    // Where the last batch ended: opaque, four bytes of a hash map, a key of others.
    let mut position = [0u8; 64];
    let mut begun = false;
    loop {
        let mut keys = vec![K::default(); batch];
        let mut values = vec![V::default(); batch];
        let mut next = position;
        let mut attributes = Attributes {
            in_batch: if begun { position.as_ptr() as u64 } else { 0 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: batch as u32,
            ..Attributes::default()
        };
        // SAFETY: the kernel writes up to `count` keys and values, for which there is room, and a
        // position of four bytes or a key, which are shorter than the array.
        let outcome = unsafe { call(BPF_MAP_LOOKUP_BATCH, map, &mut attributes) };
        let ended = match outcome {
            Ok(()) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                // A bucket with more elements than asked for.
                Some(libc::ENOSPC) => {
                    batch *= 2;
                    continue;
                }
                _ => return Err(error),
            },
        };
        let count = attributes.count as usize;
        entries.extend(keys.into_iter().zip(values).take(count));
        if ended {
            return Ok(entries);
        }
        (position, begun) = (next, true);
    }
}

/// # Safety
/// The pointers in `attributes` must be valid for what `command` reads and writes there.
unsafe fn call(
    command: libc::c_int,
    map: BorrowedFd<'_>,
    attributes: &mut Attributes,
) -> io::Result<()> {
    attributes.map_fd = map.as_raw_fd() as u32;
    // SAFETY: the caller vouches for what the attributes point at.
    unsafe { bpf(command, attributes) }.map(drop)
}
