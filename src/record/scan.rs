//! A forward-only walk over JSON text that notes where values lie and builds nothing.
//!
//! Owns JSON's grammar as far as slicing needs it: structure, literals, numbers and
//! where strings end. It does not decode strings and lets raw control characters in
//! them pass. Invariant: a span it returns holds one complete value, and depth is
//! bounded, so hostile text can neither overflow the stack nor escape its slice.
//!
//! Hand-written because it is the hot loop of the whole program: one pass over a page
//! finds every record, its sequence number, time and keys at close to memory speed.

use std::ops::Range;

/// Nesting beyond which text is refused. DynamoDB allows 32 levels of attribute values,
/// each two JSON levels deep, inside an envelope of four.
pub(crate) const MAX_DEPTH: usize = 128;

/// Where and why the text stopped being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(crate) struct ScanError {
    what: &'static str,
    at: usize,
}

impl ScanError {
    pub(crate) fn new(what: &'static str, at: usize) -> Self {
        Self { what, at }
    }

    /// What was found or missed there.
    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    /// The byte at which it was.
    pub(crate) fn at(&self) -> usize {
        self.at
    }
}

type Scanned<T> = Result<T, ScanError>;

/// A place in the text that only moves forward.
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// Walks an object: `member` is called with where each key lies (between its quotes,
    /// escapes untouched), placed before its value, and must consume exactly that value.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Range<usize>) -> Scanned<()>,
    ) -> Scanned<Range<usize>> {
        let start = self.open(b'{', "expected an object")?;
        if self.peek()? == b'}' {
            return Ok(self.close(start));
        }
        loop {
            let key = self.string()?;
            self.expect(b':', "expected ':'")?;
            member(self, key)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => return Ok(self.close(start)),
                _ => return self.fail("expected ',' or '}'"),
            }
        }
    }

    /// Walks an array: `element` is called before each element and must consume it.
    pub(crate) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Scanned<()>,
    ) -> Scanned<Range<usize>> {
        let start = self.open(b'[', "expected an array")?;
        if self.peek()? == b']' {
            return Ok(self.close(start));
        }
        loop {
            element(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => return Ok(self.close(start)),
                _ => return self.fail("expected ',' or ']'"),
            }
        }
    }

    /// A string; the span is what stands between the quotes, escapes untouched.
    pub(crate) fn string(&mut self) -> Scanned<Range<usize>> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        loop {
            let Some(found) = find_quote_or_backslash(&self.text[self.at..]) else {
                return self.fail("unterminated string");
            };
            self.at += found + 1;
            if self.text[self.at - 1] == b'"' {
                return Ok(start..self.at - 1);
            }
            self.escape()?;
        }
    }

    /// Any value; the span is the whole of it.
    pub(crate) fn value(&mut self) -> Scanned<Range<usize>> {
        match self.peek()? {
            b'{' => self.object(|scanner, _| scanner.value().map(drop)),
            b'[' => self.array(|scanner| scanner.value().map(drop)),
            b'"' => self.string().map(|inner| inner.start - 1..inner.end + 1),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number(),
        }
    }

    /// A string or `null`.
    pub(crate) fn string_or_null(&mut self) -> Scanned<Option<Range<usize>>> {
        if self.peek()? == b'n' {
            return self.literal(b"null").map(|_| None);
        }
        self.string().map(Some)
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Scanned<()> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { self.fail("trailing characters") }
    }

    fn number(&mut self) -> Scanned<Range<usize>> {
        let start = self.at;
        self.accept(b"-");
        if !self.accept(b"0") && self.digits() == 0 {
            return self.fail("expected a value");
        }
        if self.accept(b".") && self.digits() == 0 {
            return self.fail("expected a digit");
        }
        if self.accept(b"eE") {
            self.accept(b"+-");
            if self.digits() == 0 {
                return self.fail("expected a digit");
            }
        }
        Ok(start..self.at)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.accept(b"0123456789") {}
        self.at - start
    }

    fn accept(&mut self, any_of: &[u8]) -> bool {
        let hit = self.text.get(self.at).is_some_and(|byte| any_of.contains(byte));
        self.at += usize::from(hit);
        hit
    }

    fn literal(&mut self, literal: &'static [u8]) -> Scanned<Range<usize>> {
        if !self.text[self.at..].starts_with(literal) {
            return self.fail("expected a value");
        }
        let start = self.at;
        self.at += literal.len();
        Ok(start..self.at)
    }

    /// After a backslash.
    fn escape(&mut self) -> Scanned<()> {
        match self.text.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => match self.text.get(self.at + 1..self.at + 5) {
                Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => self.at += 5,
                _ => return self.fail("bad escape"),
            },
            _ => return self.fail("bad escape"),
        }
        Ok(())
    }

    fn open(&mut self, bracket: u8, what: &'static str) -> Scanned<usize> {
        self.expect(bracket, what)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("nested too deeply");
        }
        Ok(self.at - 1)
    }

    fn close(&mut self, start: usize) -> Range<usize> {
        self.at += 1;
        self.depth -= 1;
        start..self.at
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Scanned<()> {
        if self.peek()? != byte {
            return self.fail(what);
        }
        self.at += 1;
        Ok(())
    }

    /// The byte that comes next, white space aside.
    pub(crate) fn peek(&mut self) -> Scanned<u8> {
        self.skip_space();
        match self.text.get(self.at) {
            Some(&byte) => Ok(byte),
            None => self.fail("unexpected end"),
        }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn fail<T>(&self, what: &'static str) -> Scanned<T> {
        Err(ScanError::new(what, self.at))
    }
}

/// Most strings of a record are shorter than what setting up a vector search costs, so
/// the first words are looked at in general registers.
const WORDS: usize = 4;

#[inline]
fn find_quote_or_backslash(text: &[u8]) -> Option<usize> {
    let (words, tail) = text.as_chunks::<8>();
    for (index, word) in words.iter().take(WORDS).enumerate() {
        let word = u64::from_le_bytes(*word);
        let hits = zero_bytes(word ^ every(b'"')) | zero_bytes(word ^ every(b'\\'));
        if hits != 0 {
            return Some(index * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    let seen = words.len().min(WORDS) * 8;
    let rest = if words.len() > WORDS { &text[seen..] } else { tail };
    memchr::memchr2(b'"', b'\\', rest).map(|found| found + seen)
}

const fn every(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The high bit of every byte that is zero; bytes above the lowest such may be set too.
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(every(0x01)) & !word & every(0x80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn accepts(text: &[u8]) -> bool {
        let mut scanner = Scanner::new(text);
        scanner.value().and_then(|_| scanner.end()).is_ok()
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(accepts(nested(MAX_DEPTH).as_bytes()));
        assert!(!accepts(nested(MAX_DEPTH + 1).as_bytes()));
        assert!(!accepts("[".repeat(1_000_000).as_bytes()));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".*", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn finds_the_first_quote_or_backslash(text in prop::collection::vec(prop_oneof![
            8 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\'), 2 => Just(b'"' + 1),
        ], 0..80)) {
            let plainly = text.iter().position(|&byte| byte == b'"' || byte == b'\\');
            prop_assert_eq!(find_quote_or_backslash(&text), plainly);
        }

        #[test]
        fn the_span_of_a_value_is_the_value(value in json(), pretty: bool) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let padded = format!(" {text}\n");
            let mut scanner = Scanner::new(padded.as_bytes());
            let span = scanner.value().unwrap();
            prop_assert_eq!(&padded[span], text.as_str());
            prop_assert!(scanner.end().is_ok());
        }

        /// A page with a byte changed or cut off is judged as serde_json judges it;
        /// raw control characters in strings are the one leniency.
        #[test]
        fn agrees_with_serde_json_on_damaged_text(
            value in json(), at: prop::sample::Index, byte in 0x20u8..0x7f, cut: bool,
        ) {
            let mut text = value.to_string().into_bytes();
            let at = at.index(text.len());
            if cut { text.truncate(at) } else { text[at] = byte }
            if let Ok(text) = std::str::from_utf8(&text) {
                let theirs = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
                prop_assert_eq!(accepts(text.as_bytes()), theirs, "{}", text);
            }
        }
    }
}
