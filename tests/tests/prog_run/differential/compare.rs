//! One frame through the model and through a program.

use std::collections::BTreeMap;

use ovs_ebpf_common::{
    Reason,
    abi::{DoubtValue, Program, TUNNEL_CAPACITY, TunnelCounters},
};
use ovs_ebpf_tests::{
    generate::Arrival,
    model::{Gso, Model, Received, Tables},
};

use super::decode::decode;
use crate::clock::now;
use crate::host::{DEVICES, Host, Observed};
use crate::run::{Input, PASS, REDIRECT};

/// A frame on its way into a program, and the tables that it meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) tables: Tables,
    pub(super) program: Program,
    pub(super) arrival: Arrival,
}

impl Case {
    /// How model and program differ on it, if they do.
    pub(super) fn try_on(&self, host: &mut Host) -> Option<String> {
        let mut both = Both::start(host, &self.tables);
        both.run(self.program, &self.arrival).and_then(|_outcome| both.settle()).err()
    }

    /// The case without the entries that make no difference.
    pub(super) fn with_less(&self, host: &mut Host) -> Self {
        let mut case = self.clone();
        macro_rules! thin {
            ($($map:ident)+) => {$(
                for key in self.tables.$map.keys() {
                    let entry = case.tables.$map.remove(key).expect("not yet removed");
                    if case.try_on(host).is_none() {
                        case.tables.$map.insert(*key, entry);
                    }
                }
            )+};
        }
        thin!(ports fdb doubts tunnels tunnel_index guards uplinks security allowed stations);
        case
    }

    /// The frame for people.
    pub(super) fn describe(&self) -> String {
        let Arrival { device, gso_size, frame } = &self.arrival;
        let hex = frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (program, len) = (self.program.name(), frame.len());
        format!(
            "{program}, device {device}, gso_size {gso_size}, {len} bytes:\n{hex}\n{}",
            decode(frame)
        )
    }
}

/// What reception makes of an arrival.
pub(super) fn received(arrival: &Arrival) -> Received<'_> {
    let device = DEVICES.iter().find(|device| device.ifindex == arrival.device);
    Received {
        device: arrival.device,
        for_host: device.is_some_and(|device| arrival.frame.starts_with(&device.mac)),
        tag: None,
        gso: (arrival.gso_size != 0).then_some(Gso { size: arrival.gso_size, tunnelable: false }),
        frame: &arrival.frame,
    }
}

/// Model and programs, with the same tables.
pub(super) struct Both<'a> {
    host: &'a mut Host,
    model: Model,
    /// The tables as they were at the start.
    tables: Tables,
    /// What had been counted by then.
    counted: BTreeMap<u32, TunnelCounters>,
    /// How many events were told.
    pub(super) told: usize,
}

impl<'a> Both<'a> {
    pub(super) fn start(host: &'a mut Host, tables: &Tables) -> Self {
        host.set_tables(tables);
        let exists = |id: &&u32| **id < TUNNEL_CAPACITY as u32;
        let ids = tables.tunnels.keys().filter(exists);
        let counted = ids.map(|id| (*id, host.tunnel_counters_of(*id))).collect();
        Self { host, model: Model::new(tables.clone()), tables: tables.clone(), counted, told: 0 }
    }

    /// Runs both. Gives the outcome they agree on; the error says how they differ.
    pub(super) fn run(
        &mut self,
        program: Program,
        arrival: &Arrival,
    ) -> Result<Option<Reason>, String> {
        let Arrival { device, gso_size, frame } = arrival;
        let expected = self.model.run(program, now(), &received(arrival));
        if program == Program::UplinkXdp {
            let seen = self.host.filter(*device, frame);
            return match expected.map(drop) == seen {
                true => Ok(seen.err()),
                false => Err(format!("{seen:?}; the model says otherwise")),
            };
        }
        if program == Program::PortSecurity {
            let seen = self.host.secure(*device, frame, *gso_size);
            return match expected.map(drop) == seen {
                true => Ok(seen.err()),
                false => Err(format!("{seen:?}; the model says otherwise")),
            };
        }
        let input = Input { ifindex: *device, frame, gso_size: *gso_size, mark: 0 };
        let Observed { outcome, counted } = self.host.observe(program, input);
        let (reason, fate, left) = match expected {
            Ok(forwarded) => {
                let counters = vec![(0, 1), (1, frame.len() as u64)];
                (None, (REDIRECT, counters), forwarded.with_choices_of(&outcome.frame))
            }
            Err(reason) => (Some(reason), (PASS, vec![(2 + reason as usize, 1)]), frame.clone()),
        };
        let seen = (outcome.verdict, counted);
        if seen != fate {
            return Err(format!("{}; the model says {}", in_words(&seen), in_words(&fate)));
        }
        if outcome.frame != left {
            let at = outcome.frame.iter().zip(&left).position(|(seen, model)| seen != model);
            let at = at.unwrap_or(outcome.frame.len().min(left.len()));
            return Err(format!(
                "the frame that leaves differs from byte {at} on:\n  {:02x?}\nthe model says\n  {:02x?}",
                outcome.frame, left
            ));
        }
        let (events, expected) = (self.host.events(), std::mem::take(&mut self.model.events));
        if events != expected {
            return Err(format!("told of {events:02x?}; the model says {expected:02x?}"));
        }
        if !expected.is_empty() {
            self.told += expected.len();
            self.end_silence()?;
        }
        self.end_doubts()?;
        Ok(reason)
    }

    /// Lets who has just raised an event raise the next, so that none depends on the time: 20 ms are
    /// many frames or none, on a busy machine.
    fn end_silence(&mut self) -> Result<(), String> {
        let Self { host, model, tables, .. } = self;
        macro_rules! end {
            ($map:ident) => {
                for (key, entry) in &mut model.tables.$map {
                    let before = tables.$map[key];
                    if *entry != before {
                        let seen = host.$map.get(key, 0).expect("an entry").next_event;
                        if seen == before.next_event || seen.abs_diff(entry.next_event) > NEAR {
                            let expected = entry.next_event;
                            return Err(format!("silent to {seen}; the model says {expected}"));
                        }
                        *entry = before;
                        host.$map.insert(key, before, 0).expect("an entry");
                    }
                }
            };
        }
        end!(ports);
        end!(tunnel_index);
        end!(tunnel_index6);
        Ok(())
    }

    /// Lets stations that have just come into doubt be believed again, for the same reason.
    fn end_doubts(&mut self) -> Result<(), String> {
        let Self { host, model, tables, .. } = self;
        for key in model.doubts.drain(..) {
            let expected = model.tables.doubts[&key];
            let seen = host.doubts.get(&key, 0).unwrap_or_default();
            let agree = DoubtValue { until: expected.until, ..seen } == expected;
            if !agree || seen.until.abs_diff(expected.until) > NEAR {
                return Err(format!(
                    "{key:02x?} is in doubt as {seen:?}; the model says {expected:?}"
                ));
            }
            match tables.doubts.get(&key) {
                Some(before) => {
                    model.tables.doubts.insert(key, *before);
                    host.doubts.insert(key, before, 0).expect("doubts");
                }
                None => {
                    model.tables.doubts.remove(&key);
                    host.doubts.remove(&key).expect("doubts");
                }
            }
            host.forget_flows();
        }
        Ok(())
    }

    /// Compares what is left in the maps.
    pub(super) fn settle(self) -> Result<(), String> {
        macro_rules! same {
            ($map:ident) => {
                self.model
                    .tables
                    .$map
                    .iter()
                    .all(|(key, entry)| self.host.$map.get(key, 0).is_ok_and(|seen| seen == *entry))
            };
        }
        if !(same!(ports) && same!(tunnel_index) && same!(tunnel_index6)) {
            return Err("silent without an event".to_owned());
        }
        for (id, before) in &self.counted {
            let seen = since(self.host.tunnel_counters_of(*id), *before);
            let expected = self.model.tunnel_counters.get(id).copied().unwrap_or_default();
            if seen != expected {
                return Err(format!("tunnel {id} counted {seen:?}; the model says {expected:?}"));
            }
        }
        for (port, expected) in &self.model.tables.security {
            let seen = self.host.security.get(port, 0).expect("secured").discarded;
            if seen != expected.discarded {
                let expected = expected.discarded;
                return Err(format!("{seen} discarded of port {port}; the model says {expected}"));
            }
        }
        for (key, expected) in &self.model.tables.fdb {
            let seen = self.host.fdb.get(key, 0).expect("in the FDB");
            let (seen, expected) = (seen.next_revalidation, expected.next_revalidation);
            let written = |deadline| deadline != self.tables.fdb[key].next_revalidation;
            if written(seen) != written(expected) || seen.abs_diff(expected) > NEAR {
                return Err(format!(
                    "{key:02x?} is to be validated anew at {seen}; the model says {expected}"
                ));
            }
        }
        Ok(())
    }
}

/// Nanoseconds between two clocks, one read after the other on a busy machine.
const NEAR: u64 = 60_000_000_000;

fn since(now: TunnelCounters, before: TunnelCounters) -> TunnelCounters {
    TunnelCounters {
        tx_packets: now.tx_packets - before.tx_packets,
        tx_bytes: now.tx_bytes - before.tx_bytes,
        rx_packets: now.rx_packets - before.rx_packets,
        rx_bytes: now.rx_bytes - before.rx_bytes,
    }
}

/// A verdict and the counters that moved with it.
fn in_words((verdict, counted): &(i32, Vec<(usize, u64)>)) -> String {
    let counted: Vec<_> = counted.iter().map(|(at, by)| format!("{} by {by}", name(*at))).collect();
    format!("verdict {verdict}, counted {}", counted.join(", "))
}

/// What a place in [`Host::moved`]'s list counts.
fn name(at: usize) -> &'static str {
    match at {
        0 => "packets",
        1 => "bytes",
        _ => Reason::from_code((at - 2) as u8).map_or("an unknown reason", Reason::name),
    }
}
