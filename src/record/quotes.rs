//! Where a string of JSON goes on being plain: the search for its end.
//!
//! Owns the one inner loop of the scanner. Most strings of a record are shorter than what
//! setting up a vector search costs, and of any length, so that a branch on each word would
//! be guessed wrong; two words at a time are judged without one.

/// So many bytes are looked at in general registers before the vector search is set up.
const NEAR: usize = 64;

/// Where the first `"` or `\` of `text` is.
#[inline]
pub(super) fn find_quote_or_backslash(text: &[u8]) -> Option<usize> {
    let (pairs, tail) = text.as_chunks::<16>();
    for (index, pair) in pairs.iter().take(NEAR / 16).enumerate() {
        let [low, high] = [&pair[..8], &pair[8..]]
            .map(|word| hits(u64::from_le_bytes(word.try_into().expect("eight bytes"))));
        if low | high != 0 {
            let (word, before) = if low != 0 { (low, 0) } else { (high, 8) };
            return Some(index * 16 + before + word.trailing_zeros() as usize / 8);
        }
    }
    let rest = if pairs.len() > NEAR / 16 { &text[NEAR..] } else { tail };
    memchr::memchr2(b'"', b'\\', rest).map(|found| found + text.len() - rest.len())
}

/// The high bit of every byte that is one of the two; bytes above the lowest such may be set
/// too.
const fn hits(word: u64) -> u64 {
    zero_bytes(word ^ every(b'"')) | zero_bytes(word ^ every(b'\\'))
}

const fn every(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(every(0x01)) & !word & every(0x80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_the_first_quote_or_backslash(text in prop::collection::vec(prop_oneof![
            8 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\'), 2 => Just(b'"' + 1),
        ], 0..80), from in 0..200_usize) {
            let text = [vec![b'x'; from], text].concat();
            let plainly = text.iter().position(|&byte| byte == b'"' || byte == b'\\');
            prop_assert_eq!(find_quote_or_backslash(&text), plainly);
        }
    }
}
