//! Frames and tables by the million, the same ones for the same seed: valid ones of every kind, with
//! one thing out of the ordinary, and mutated ones.

pub mod hostile;
mod mutate;
mod overlay;
mod random;
mod scene;
mod security;
mod underlay;

use ovs_ebpf_common::abi::Program;

pub use random::Random;
pub use scene::{Device, Scene};

/// A frame on its way into a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The device's ifindex.
    pub device: u32,
    /// Payload bytes per segment of a GSO packet; 0 for a single packet.
    pub gso_size: u32,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
}

/// Frames that fit to a scene, more or less, without end.
#[derive(Debug)]
pub struct Traffic {
    random: Random,
    /// The tables and who is where.
    pub scene: Scene,
    /// The frame before, to splice with.
    last: Vec<u8>,
}

impl Traffic {
    /// The traffic of a seed on a host with these devices.
    #[must_use]
    pub fn new(seed: u64, devices: &[Device]) -> Self {
        let mut random = Random::new(seed);
        let scene = Scene::new(&mut random, devices);
        Self { random, scene, last: Vec::new() }
    }

    /// Makes the next arrival in place, and says which program it is for.
    pub fn next(&mut self, arrival: &mut Arrival) -> Program {
        let Self { random, scene, last } = self;
        arrival.frame.clear();
        arrival.gso_size = 0;
        let program = if random.one_in(8) {
            security::arrive(random, scene, arrival);
            Program::PortSecurity
        } else if random.one_in(2) {
            overlay::arrive(random, scene, arrival);
            Program::PortIngress
        } else {
            underlay::arrive(random, scene, arrival);
            // One frame in three of the underlay meets the filter.
            if random.one_in(3) { Program::UplinkXdp } else { Program::UplinkIngress }
        };
        if program == Program::UplinkXdp {
            arrival.gso_size = 0;
        }
        if random.one_in(2) {
            for _ in 0..=random.below(3) {
                mutate::change(random, &mut arrival.frame, last);
            }
            let from_underlay = matches!(program, Program::UplinkIngress | Program::UplinkXdp);
            if from_underlay && random.one_in(2) {
                underlay::repair(&mut arrival.frame);
            }
        }
        last.clone_from(&arrival.frame);
        program
    }
}
