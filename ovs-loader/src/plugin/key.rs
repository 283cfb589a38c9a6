//! A tunnel's key from its network's name: the same on every host without anybody's telling.

/// The bit that derived keys have: those that people choose are small.
const DERIVED: u32 = 1 << 23;

/// The key of a network of this name: FNV-1a (32 bits) of the name, folded to 23 bits, and above them
/// a one. It fits a VNI, 24 bits (RFC 7348), and a GRE key.
pub(super) fn derived(name: &str) -> u32 {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    DERIVED | (hash ^ hash >> 23) & (DERIVED - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hashes are those of the FNV authors' test vectors for 32-bit FNV-1a.
    #[test]
    fn keys_are_the_same_everywhere_and_never_change() {
        let folded = |hash: u32| 0x80_0000 | (hash ^ hash >> 23) & 0x7f_ffff;
        for (name, hash) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(derived(name), folded(hash), "{name}");
        }
        assert_ne!(derived("web"), derived("db"));
    }
}
