//! Lists by station, where many stations have the same one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::model::Mac;

/// A list for each station, of which there may be a million. Each different list is there once, and a
/// station costs its address and a number.
#[derive(Clone, Debug)]
pub struct ByStation<T> {
    stations: HashMap<Mac, u32>,
    /// Each different list with how many stations have it; empty places are to be reused.
    lists: Vec<Option<(Arc<[T]>, usize)>>,
    numbers: HashMap<Arc<[T]>, u32>,
    free: Vec<u32>,
}

impl<T: Clone + Eq + Hash> ByStation<T> {
    /// A station's list.
    #[must_use]
    pub fn get(&self, station: Mac) -> Option<&[T]> {
        self.stations.get(&station).and_then(|&number| self.list(number))
    }

    /// Gives a station a list in place of the one it had. Gives whether it had another or none.
    pub fn insert(&mut self, station: Mac, list: &[T]) -> bool {
        let number = match self.numbers.get(list) {
            Some(&number) => number,
            None => self.add(list.into()),
        };
        let before = self.stations.insert(station, number);
        if before == Some(number) {
            return false;
        }
        if let Some((_, stations)) = &mut self.lists[number as usize] {
            *stations += 1;
        }
        if let Some(before) = before {
            self.leave(before);
        }
        true
    }

    /// Forgets a station. Gives whether it had a list.
    pub fn remove(&mut self, station: Mac) -> bool {
        let before = self.stations.remove(&station);
        if let Some(before) = before {
            self.leave(before);
        }
        before.is_some()
    }

    /// Every different list that a station has.
    pub fn lists(&self) -> impl Iterator<Item = &[T]> {
        self.lists.iter().flatten().map(|(list, _)| &**list)
    }

    /// Whether no station has a list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stations.is_empty()
    }

    /// The stations whose lists differ.
    pub(super) fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Mac> + 'a {
        let differs = |station: &&Mac| self.get(**station) != other.get(**station);
        let gone = self.stations.keys().filter(|station| !other.stations.contains_key(station));
        other.stations.keys().filter(differs).chain(gone).copied()
    }

    /// Several as one, in which a station has what it has in each.
    pub(super) fn merged(all: impl IntoIterator<Item = Self>) -> Self {
        let mut all = all.into_iter();
        let mut merged = all.next().unwrap_or_default();
        // Their lists are put together first: one may be from thousands.
        let mut several = HashMap::<Mac, Vec<T>>::new();
        for other in all {
            for (&station, &number) in &other.stations {
                let list = other.list(number).unwrap_or_default();
                match merged.get(station) {
                    None => drop(merged.insert(station, list)),
                    Some(own) => several
                        .entry(station)
                        .or_insert_with(|| own.to_vec())
                        .extend_from_slice(list),
                }
            }
        }
        for (station, list) in several {
            merged.insert(station, &list);
        }
        merged
    }

    /// The same with other lists.
    pub(super) fn map<U: Clone + Eq + Hash>(self, each: impl Fn(&[T]) -> Vec<U>) -> ByStation<U> {
        let mut mapped = ByStation::default();
        // Different lists may become the same.
        let numbers: Vec<_> = self
            .lists
            .into_iter()
            .map(|list| {
                // No station has the number of an empty place.
                let Some((list, stations)) = list else { return 0 };
                let list = each(&list);
                let known = mapped.numbers.get(list.as_slice()).copied();
                let number = known.unwrap_or_else(|| mapped.add(list.into()));
                if let Some((_, count)) = &mut mapped.lists[number as usize] {
                    *count += stations;
                }
                number
            })
            .collect();
        mapped.stations = self.stations;
        mapped.stations.values_mut().for_each(|number| *number = numbers[*number as usize]);
        mapped
    }

    fn list(&self, number: u32) -> Option<&[T]> {
        self.lists[number as usize].as_ref().map(|(list, _)| &**list)
    }

    /// Adds a list that no station has yet.
    fn add(&mut self, list: Arc<[T]>) -> u32 {
        let place = Some((Arc::clone(&list), 0));
        let number = match self.free.pop() {
            Some(number) => {
                self.lists[number as usize] = place;
                number
            }
            None => {
                self.lists.push(place);
                (self.lists.len() - 1) as u32
            }
        };
        self.numbers.insert(list, number);
        number
    }

    /// A station has the list no more.
    fn leave(&mut self, number: u32) {
        let place = &mut self.lists[number as usize];
        let Some((list, stations)) = place else { return };
        *stations -= 1;
        if *stations == 0 {
            self.numbers.remove(list);
            *place = None;
            self.free.push(number);
        }
    }
}

impl<T> Default for ByStation<T> {
    fn default() -> Self {
        Self {
            stations: HashMap::new(),
            lists: Vec::new(),
            numbers: HashMap::new(),
            free: Vec::new(),
        }
    }
}

/// Equal where every station has an equal list.
impl<T: Clone + Eq + Hash> PartialEq for ByStation<T> {
    fn eq(&self, other: &Self) -> bool {
        self.stations.len() == other.stations.len() && self.differences(other).next().is_none()
    }
}

impl<T: Clone + Eq + Hash> Eq for ByStation<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    #[test]
    fn stations_share_a_list_until_the_last_one_leaves_it() {
        let mut lists = ByStation::default();
        for station in 0..100 {
            assert!(lists.insert(mac(station), &[7]));
        }
        assert_eq!(lists.lists().count(), 1);
        assert!(!lists.insert(mac(0), &[7]));
        for station in 0..99 {
            assert!(lists.remove(mac(station)));
        }
        assert!(!lists.remove(mac(0)));
        assert_eq!(lists.get(mac(99)), Some([7].as_slice()));
        assert!(lists.insert(mac(99), &[8, 9]));
        assert_eq!(lists.lists().collect::<Vec<_>>(), [[8, 9]]);
        // The place of the first list is used again.
        assert!(lists.insert(mac(1), &[7]));
        assert_eq!(lists.lists.len(), 2);
        assert_eq!(lists.get(mac(1)), Some([7].as_slice()));
    }

    #[test]
    fn equality_and_differences_are_of_the_lists_and_not_of_their_numbers() {
        let (mut one, mut other) = (ByStation::default(), ByStation::default());
        one.insert(mac(1), &[1]);
        one.insert(mac(2), &[2]);
        other.insert(mac(2), &[2]);
        other.insert(mac(1), &[1]);
        assert_eq!(one, other);
        other.insert(mac(1), &[2]);
        other.remove(mac(2));
        other.insert(mac(3), &[3]);
        let mut differences: Vec<_> = one.differences(&other).collect();
        differences.sort_unstable();
        assert_eq!(differences, [mac(1), mac(2), mac(3)]);
        assert_ne!(one, other);
    }

    #[test]
    fn merged_lists_are_all_there_is_of_a_station() {
        let tables = [(1, 10), (1, 20), (2, 20), (1, 30)].map(|(station, element)| {
            let mut table = ByStation::default();
            table.insert(mac(station), &[element]);
            table
        });
        let merged = ByStation::merged(tables);
        assert_eq!(merged.get(mac(1)), Some([10, 20, 30].as_slice()));
        assert_eq!(merged.get(mac(2)), Some([20].as_slice()));
        assert_eq!(ByStation::<u8>::merged([]), ByStation::default());
    }

    #[test]
    fn lists_that_become_equal_become_one() {
        let mut lists = ByStation::default();
        lists.insert(mac(1), &[1]);
        lists.insert(mac(2), &[-1]);
        lists.insert(mac(3), &[3]);
        lists.remove(mac(3));
        let mut mapped = lists.map(|list| list.iter().map(|n: &i32| n.abs()).collect());
        assert_eq!(mapped.lists().collect::<Vec<_>>(), [[1]]);
        assert!(mapped.remove(mac(1)) && mapped.remove(mac(2)));
        assert_eq!(mapped.lists().count(), 0);
    }
}
