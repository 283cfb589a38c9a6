//! Numbers that look random and are the same for the same seed.

/// Steele, Lea and Flood's SplitMix64: any seed will do.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// True once in `n` times, on average.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.number() as u8
    }

    /// Any 16 bits.
    pub fn word(&mut self) -> u16 {
        self.number() as u16
    }

    /// One of several.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Any bytes, appended.
    pub fn fill(&mut self, bytes: &mut Vec<u8>, count: usize) {
        for _ in 0..count.div_ceil(8) {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(bytes.len() - (count.next_multiple_of(8) - count));
    }
}
