//! Frames that nobody would send.

use super::Random;

/// The shortest frame: an Ethernet header.
const SHORTEST: usize = 14;
/// Headers lie within; what comes early decides most.
const HEADERS: usize = 120;
/// See [`super::overlay`].
const LONGEST: usize = 3_600;

/// Changes one thing. `other` is another frame, to take a part from.
pub(super) fn change(random: &mut Random, frame: &mut Vec<u8>, other: &[u8]) {
    let end = if random.one_in(4) { frame.len() } else { frame.len().min(HEADERS) };
    let at = random.below(end);
    match random.below(10) {
        0..3 => frame[at] ^= 1 << random.below(8),
        3..5 => frame[at] = random.byte(),
        5..7 => {
            const WORDS: [u16; 10] =
                [0, 1, 0x7fff, 0x8000, 0xffff, 0x0800, 0x86dd, 0x8100, 0x6558, 4789];
            let word = random.of(&WORDS).to_be_bytes();
            let at = (at & !1).min(frame.len() - 2);
            frame[at..at + 2].copy_from_slice(&word);
        }
        7 => frame.truncate(SHORTEST + random.below(frame.len() - SHORTEST + 1)),
        8 => {
            let count = random.below(64).min(LONGEST.saturating_sub(frame.len()));
            random.fill(frame, count);
        }
        // The head of one frame, the rest of another.
        _ if other.len() > SHORTEST => {
            let at = at.max(SHORTEST).min(frame.len());
            frame.truncate(at);
            let from = random.below(other.len());
            frame.extend_from_slice(&other[from..]);
            frame.truncate(LONGEST);
        }
        _ => {}
    }
}
