//! One pool: the subnet of a network, this host's range of it, and which addresses are given out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Error;
use super::subnet::{Range, Subnet, next};

/// A pool. Pure: whoever changes it writes it down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name towards Docker.
    pub id: String,
    /// The network's subnet.
    pub subnet: Subnet,
    /// Where addresses that nobody asks for by name come from.
    pub range: Range,
    /// The last of them. The search goes on behind it and round the range, so that an address that was
    /// given back comes again after all others: neighbours may still have its old MAC.
    pub last: Option<IpAddr>,
    /// The addresses that are given out.
    pub used: BTreeSet<IpAddr>,
}

impl Pool {
    /// Gives out this address. It may be any of the subnet, whatever this host's range is.
    ///
    /// # Errors
    /// It is given out already, or no station's of the subnet.
    pub fn take(&mut self, address: IpAddr) -> Result<(), Error> {
        let stations = self.subnet.stations();
        if !stations.contains(address) {
            return Err(Error::Outside { address, subnet: self.subnet, stations });
        }
        if !self.used.insert(address) {
            return Err(Error::Taken { address, subnet: self.subnet });
        }
        Ok(())
    }

    /// Gives out the next address of this host's range.
    ///
    /// # Errors
    /// All are given out.
    pub fn take_next(&mut self) -> Result<IpAddr, Error> {
        let after = self.last.and_then(next).filter(|after| self.range.contains(*after));
        let from = after.unwrap_or(self.range.first);
        let free = self.free(Range { first: from, ..self.range });
        let address = free.or_else(|| self.free(self.range)).ok_or_else(|| self.exhausted())?;
        self.used.insert(address);
        self.last = Some(address);
        Ok(address)
    }

    /// Gives out the lowest free address of this host's range: a gateway's.
    ///
    /// # Errors
    /// All are given out.
    pub fn take_first(&mut self) -> Result<IpAddr, Error> {
        let address = self.free(self.range).ok_or_else(|| self.exhausted())?;
        self.used.insert(address);
        Ok(address)
    }

    /// Takes an address back. False if it was not given out.
    pub fn release(&mut self, address: IpAddr) -> bool {
        self.used.remove(&address)
    }

    /// The lowest address of a range that is not given out.
    fn free(&self, range: Range) -> Option<IpAddr> {
        let mut candidate = range.first;
        for used in self.used.range(range.first..=range.last) {
            if *used != candidate {
                break;
            }
            candidate = next(candidate)?;
        }
        range.contains(candidate).then_some(candidate)
    }

    fn exhausted(&self) -> Error {
        Error::Exhausted { range: self.range, subnet: self.subnet }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(first: &str, last: &str) -> Pool {
        Pool {
            id: "test".to_owned(),
            subnet: "10.5.0.0/24".parse().unwrap(),
            range: Range { first: first.parse().unwrap(), last: last.parse().unwrap() },
            last: None,
            used: BTreeSet::new(),
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_come_in_turn_and_what_was_given_back_comes_last() {
        let mut pool = pool("10.5.0.2", "10.5.0.4");
        assert_eq!(pool.take_next().unwrap(), address("10.5.0.2"));
        assert!(pool.release(address("10.5.0.2")));
        assert_eq!(pool.take_next().unwrap(), address("10.5.0.3"));
        assert_eq!(pool.take_next().unwrap(), address("10.5.0.4"));
        assert_eq!(pool.take_next().unwrap(), address("10.5.0.2"));
        let said = pool.take_next().expect_err("none is left").to_string();
        assert!(said.contains("10.5.0.2 to 10.5.0.4"), "{said}");
        assert!(!pool.release(address("10.5.0.9")));
    }

    #[test]
    fn an_address_that_was_asked_for_is_passed_over() {
        let mut pool = pool("10.5.0.2", "10.5.0.5");
        pool.take(address("10.5.0.2")).unwrap();
        pool.take(address("10.5.0.4")).unwrap();
        assert_eq!(pool.take_next().unwrap(), address("10.5.0.3"));
        assert_eq!(pool.take_next().unwrap(), address("10.5.0.5"));
        assert!(pool.take_next().is_err());
    }

    #[test]
    fn any_station_of_the_subnet_can_be_asked_for_once() {
        let mut pool = pool("10.5.0.2", "10.5.0.5");
        pool.take(address("10.5.0.200")).unwrap();
        assert!(matches!(pool.take(address("10.5.0.200")), Err(Error::Taken { .. })));
        for text in ["10.5.0.0", "10.5.0.255", "10.6.0.1", "fd05::1"] {
            assert!(matches!(pool.take(address(text)), Err(Error::Outside { .. })), "{text}");
        }
    }

    #[test]
    fn a_gateway_is_the_first_of_the_range() {
        let mut pool = pool("10.5.0.65", "10.5.0.70");
        assert_eq!(pool.take_first().unwrap(), address("10.5.0.65"));
        assert_eq!(pool.take_next().unwrap(), address("10.5.0.66"));
    }

    proptest! {
        #[test]
        fn no_address_is_given_out_twice(steps in prop::collection::vec((0u8..4, 0u8..12), 0..200)) {
            let mut pool = pool("10.5.0.2", "10.5.0.9");
            let mut held = BTreeSet::new();
            for (step, host) in steps {
                let wanted: IpAddr = [10, 5, 0, host].into();
                match step {
                    0 | 1 => match pool.take_next() {
                        Ok(given) => {
                            prop_assert!(held.insert(given) && pool.range.contains(given));
                        }
                        Err(_) => prop_assert_eq!((2..=9).filter(|host|
                            held.contains(&IpAddr::from([10, 5, 0, *host]))).count(), 8),
                    },
                    2 => prop_assert_eq!(pool.take(wanted).is_ok(), host != 0 && held.insert(wanted)),
                    _ => prop_assert_eq!(pool.release(wanted), held.remove(&wanted)),
                }
            }
        }
    }
}
