//! Where a string of JSON goes on being plain: the search for its end.
//!
//! Owns the one inner loop of the scanner. Most strings of a record are shorter than what
//! setting up a vector search costs, and of any length, so that a branch on each few bytes would
//! be guessed wrong: sixteen at a time are judged without one, in general registers.

const WORD: usize = size_of::<u128>();
/// So many words are looked at before a vector search is set up.
const NEAR: usize = 4;

/// Where the first `"` or `\` of `text` is.
#[inline(always)]
pub(super) fn find_quote_or_backslash(text: &[u8]) -> Option<usize> {
    // Apart from the rest, so that this much goes into the loop that asks.
    match text.first_chunk().and_then(find_in_word) {
        Some(found) => Some(found),
        None => find_further(text),
    }
}

#[inline(always)]
fn find_in_word(word: &[u8; WORD]) -> Option<usize> {
    let word = u128::from_le_bytes(*word);
    let hits = zero_bytes(word ^ every(b'"')) | zero_bytes(word ^ every(b'\\'));
    (hits != 0).then(|| hits.trailing_zeros() as usize / 8)
}

fn find_further(text: &[u8]) -> Option<usize> {
    let (words, tail) = text.as_chunks();
    for (index, word) in words.iter().take(NEAR).enumerate() {
        if let Some(found) = find_in_word(word) {
            return Some(index * WORD + found);
        }
    }
    let rest = if words.len() > NEAR { &text[NEAR * WORD..] } else { tail };
    memchr::memchr2(b'"', b'\\', rest).map(|found| found + text.len() - rest.len())
}

const fn every(byte: u8) -> u128 {
    u128::from_le_bytes([byte; WORD])
}

/// The high bit of every byte that is zero; bytes above the lowest such may be set too.
const fn zero_bytes(word: u128) -> u128 {
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
